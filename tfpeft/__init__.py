"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.adapters.adapted_model import AdaptedModel, add_adapters
from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.adapters.bitfit import BitFit
from tfpeft.adapters.bottleneck import BottleneckAdapter
from tfpeft.adapters.ia3 import IA3
from tfpeft.adapters.lora import DoRA, LoRA
from tfpeft.adapters.merge import merge_adapters, trainable_summary
from tfpeft.adapters.norm_tuning import NormTuning
from tfpeft.caching.precompute import Precomputed, PrecomputedInputs, precompute
from tfpeft.core.arguments import BudgetError, ExportError, InputError, NoMatchError
from tfpeft.distillation.distillation_loss import DistillationLoss
from tfpeft.distillation.distiller import Distiller
from tfpeft.distillation.feature_losses import (
    AttentionTransfer,
    FeatureMatching,
    SimilarityPreserving,
)
from tfpeft.distillation.logits_losses import (
    DIST,
    BinarySoftLabels,
    DecoupledKD,
    SoftLabels,
    SquaredError,
)
from tfpeft.distillation.relation_losses import RelationalAngle, RelationalDistance
from tfpeft.distillation.students import scale_width
from tfpeft.evaluation.compare import Comparison, Evaluation, compare, evaluate
from tfpeft.export.tflite import ExportReport, export_tflite
from tfpeft.sharing.mixing import TaskInputs, mix_tasks
from tfpeft.sharing.shared_model import SharedModel
from tfpeft.sharing.task_model import TaskModel
from tfpeft.sparsity.iterative import IterativePruning, prune_iteratively
from tfpeft.sparsity.l1 import ProximalGroupL1, ProximalL1, l1_regularize
from tfpeft.sparsity.pruning import (
    GradientPruning,
    MagnitudePruning,
    MovementPruning,
    Pruning,
    RandomPruning,
)
from tfpeft.sparsity.schedules import constant_sparsity, polynomial_decay
from tfpeft.sparsity.sensitivity import Sensitivity, layer_sensitivity
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer, SparsityLogger
from tfpeft.sparsity.sparse_training import SET, RigL, StaticSparse, TargetedDropout
from tfpeft.sparsity.strip import FixedMask, strip_pruning
from tfpeft.sparsity.xnnpack import XnnpackPolicy, prune_for_xnnpack

__version__ = "0.2.0"

__all__ = [
    "AdaptedModel",
    "AdapterMethod",
    "AttentionTransfer",
    "BinarySoftLabels",
    "BitFit",
    "BottleneckAdapter",
    "BudgetError",
    "Comparison",
    "DIST",
    "DecoupledKD",
    "DistillationLoss",
    "Distiller",
    "DoRA",
    "Evaluation",
    "ExportError",
    "ExportReport",
    "FeatureMatching",
    "FixedMask",
    "GradientPruning",
    "IA3",
    "InputError",
    "IterativePruning",
    "LoRA",
    "MagnitudePruning",
    "MovementPruning",
    "NoMatchError",
    "NormTuning",
    "Precomputed",
    "PrecomputedInputs",
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
