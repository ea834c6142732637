"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

from tfpeft.distillation import Distiller, scale_width
from tfpeft.evaluation import Comparison, Evaluation, compare, evaluate
from tfpeft.export import ExportReport, export_tflite
from tfpeft.pruning import MagnitudePruning, strip_pruning
from tfpeft.sparse_optimizer import SparseOptimizer

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Distiller",
    "Evaluation",
    "ExportReport",
    "MagnitudePruning",
    "SparseOptimizer",
    "compare",
    "evaluate",
    "export_tflite",
    "scale_width",
    "strip_pruning",
]
