"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.distillation import Distiller, scale_width
from tfpeft.evaluation import Comparison, Evaluation, compare, evaluate
from tfpeft.export import ExportReport, export_tflite
from tfpeft.pruning import (
    FixedMask,
    GradientPruning,
    MagnitudePruning,
    MovementPruning,
    Pruning,
    RandomPruning,
    strip_pruning,
)
from tfpeft.schedules import constant_sparsity, polynomial_decay
from tfpeft.sparse_optimizer import SparseOptimizer, SparsityLogger
from tfpeft.sparse_training import (
    SET,
    ProximalGroupL1,
    ProximalL1,
    RigL,
    StaticSparse,
    TargetedDropout,
    l1_regularize,
)

__version__ = "0.1.0"

__all__ = [
    "SET",
    "Comparison",
    "Distiller",
    "Evaluation",
    "ExportReport",
    "FixedMask",
    "GradientPruning",
    "MagnitudePruning",
    "MovementPruning",
    "ProximalGroupL1",
    "ProximalL1",
    "Pruning",
    "RandomPruning",
    "RigL",
    "SparseOptimizer",
    "SparsityLogger",
    "StaticSparse",
    "TargetedDropout",
    "compare",
    "constant_sparsity",
    "evaluate",
    "export_tflite",
    "l1_regularize",
    "polynomial_decay",
    "scale_width",
    "strip_pruning",
]
