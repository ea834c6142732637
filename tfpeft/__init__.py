"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.distillation import Distiller, scale_width
from tfpeft.evaluation import Comparison, Evaluation, compare, evaluate
from tfpeft.export import ExportReport, export_tflite
from tfpeft.iterative_pruning import IterativePruning, prune_iteratively
from tfpeft.l1 import ProximalGroupL1, ProximalL1, l1_regularize
from tfpeft.pruning import (
    GradientPruning,
    MagnitudePruning,
    MovementPruning,
    Pruning,
    RandomPruning,
)
from tfpeft.schedules import constant_sparsity, polynomial_decay
from tfpeft.sensitivity import Sensitivity, layer_sensitivity
from tfpeft.sparse_optimizer import SparseOptimizer, SparsityLogger
from tfpeft.sparse_training import (
    SET,
    RigL,
    StaticSparse,
    TargetedDropout,
)
from tfpeft.xnnpack import XnnpackPolicy, prune_for_xnnpack
from tfpeft.zeros import FixedMask, strip_pruning

__version__ = "0.1.0"

__all__ = [
    "SET",
    "Comparison",
    "Distiller",
    "Evaluation",
    "ExportReport",
    "FixedMask",
    "GradientPruning",
    "IterativePruning",
    "MagnitudePruning",
    "MovementPruning",
    "ProximalGroupL1",
    "ProximalL1",
    "Pruning",
    "RandomPruning",
    "RigL",
    "Sensitivity",
    "SparseOptimizer",
    "SparsityLogger",
    "StaticSparse",
    "TargetedDropout",
    "XnnpackPolicy",
    "compare",
    "constant_sparsity",
    "evaluate",
    "export_tflite",
    "l1_regularize",
    "layer_sensitivity",
    "polynomial_decay",
    "prune_for_xnnpack",
    "prune_iteratively",
    "scale_width",
    "strip_pruning",
]
