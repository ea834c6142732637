"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.adapter_methods import (
    IA3,
    AdapterMethod,
    BitFit,
    BottleneckAdapter,
    DoRA,
    LoRA,
    NormTuning,
)
from tfpeft.adapters import AdaptedModel, add_adapters, merge_adapters, trainable_summary
from tfpeft.distillation import Distiller
from tfpeft.distillation_losses import (
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
from tfpeft.evaluation import Comparison, Evaluation, compare, evaluate
from tfpeft.export import ExportReport, export_tflite
from tfpeft.iterative_pruning import IterativePruning, prune_iteratively
from tfpeft.l1 import ProximalGroupL1, ProximalL1, l1_regularize
from tfpeft.mixing import TaskInputs, mix_tasks
from tfpeft.precompute import Precomputed, Taught, precompute
from tfpeft.pruning import (
    GradientPruning,
    MagnitudePruning,
    MovementPruning,
    Pruning,
    RandomPruning,
)
from tfpeft.schedules import constant_sparsity, polynomial_decay
from tfpeft.sensitivity import Sensitivity, layer_sensitivity
from tfpeft.sharing import SharedModel, TaskModel
from tfpeft.sparse_optimizer import SparseOptimizer, SparsityLogger
from tfpeft.sparse_training import (
    SET,
    RigL,
    StaticSparse,
    TargetedDropout,
)
from tfpeft.width import scale_width
from tfpeft.xnnpack import XnnpackPolicy, prune_for_xnnpack
from tfpeft.zeros import FixedMask, strip_pruning

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
    "IterativePruning",
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
    "Sensitivity",
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
