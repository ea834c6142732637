from tfpeft.distillation import Distiller, scale_width
from tfpeft.pruning import MagnitudePruning, strip_pruning
from tfpeft.sparse_optimizer import SparseOptimizer
