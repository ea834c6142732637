"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.adapters.adapted_model import (
    AdaptedModel,
    add_adapters,
    merge_adapters,
    trainable_summary,
)
from tfpeft.adapters.adapter_method import (
    IA3,
    AdapterMethod,
    BitFit,
    BottleneckAdapter,
    DoRA,
    LoRA,
    NormTuning,
)
from tfpeft.caching.precompute import Precomputed, Taught, precompute
from tfpeft.distillation.distiller import Distiller
from tfpeft.distillation.losses import (
    DIST,
    AttentionTransfer,
    BinarySoftLabels,
    DecoupledKD,
    DistillationTerm,
    FeatureMatching,
    RelationalAngle,
    RelationalDistance,
    SimilarityPreserving,
    SoftLabels,
    SquaredError,
)
from tfpeft.distillation.students import scale_width
from tfpeft.evaluation.compare import Comparison, Evaluation, compare, evaluate
from tfpeft.export.tflite import ExportReport, export_tflite
from tfpeft.sharing.mixing import TaskInputs, mix_tasks
from tfpeft.sharing.shared_model import SharedModel, TaskModel
from tfpeft.sparsity.callbacks import KeepBest, SparsityLogger
from tfpeft.sparsity.criteria import (
    GradientPruning,
    MagnitudePruning,
    MovementPruning,
    RandomPruning,
)
from tfpeft.sparsity.fixed_mask import FixedMask
from tfpeft.sparsity.iterative import IterativePruningResult, prune_iteratively
from tfpeft.sparsity.l1 import ProximalGroupL1, ProximalL1, l1_regularize
from tfpeft.sparsity.pruning import Pruning
from tfpeft.sparsity.schedules import constant_sparsity, polynomial_decay
from tfpeft.sparsity.sensitivity import LayerSensitivity, layer_sensitivity
from tfpeft.sparsity.set_rigl import SET, RigL, StaticSparse
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer
from tfpeft.sparsity.strip import strip_pruning
from tfpeft.sparsity.targeted_dropout import TargetedDropout
from tfpeft.sparsity.xnnpack import XnnpackPolicy, prune_for_xnnpack

__version__ = "0.1.0"

__all__ = [
    "AdaptedModel",
    "AdapterMethod",
    "AttentionTransfer",
    "BinarySoftLabels",
    "BitFit",
    "BottleneckAdapter",
    "Comparison",
    "DIST",
    "DecoupledKD",
    "DistillationTerm",
    "Distiller",
    "DoRA",
    "Evaluation",
    "ExportReport",
    "FeatureMatching",
    "FixedMask",
    "GradientPruning",
    "IA3",
    "IterativePruningResult",
    "KeepBest",
    "LayerSensitivity",
    "LoRA",
    "MagnitudePruning",
    "MovementPruning",
    "NormTuning",
    "Precomputed",
    "ProximalGroupL1",
    "ProximalL1",
    "Pruning",
    "RandomPruning",
    "RelationalAngle",
    "RelationalDistance",
    "RigL",
    "SET",
    "SharedModel",
    "SimilarityPreserving",
    "SoftLabels",
    "SparseOptimizer",
    "SparsityLogger",
    "SquaredError",
    "StaticSparse",
    "TargetedDropout",
    "TaskInputs",
    "TaskModel",
    "Taught",
    "XnnpackPolicy",
    "add_adapters",
    "compare",
    "constant_sparsity",
    "evaluate",
    "export_tflite",
    "l1_regularize",
    "layer_sensitivity",
    "merge_adapters",
    "mix_tasks",
    "polynomial_decay",
    "precompute",
    "prune_for_xnnpack",
    "prune_iteratively",
    "scale_width",
    "strip_pruning",
    "trainable_summary",
]
