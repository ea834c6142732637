"""tfpeft: makes a trained Keras 3 model small, and proves on the exported file what that cost."""

import types
import warnings

from tfpeft.adapters.adapted_model import AdaptedModel, add_adapters
from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.adapters.bitfit import BitFit
from tfpeft.adapters.bottleneck import BottleneckAdapter
from tfpeft.adapters.ia3 import IA3
from tfpeft.adapters.lora import DoRA, LoRA
from tfpeft.adapters.merge import merge_adapters, trainable_summary
from tfpeft.adapters.norm_tuning import NormTuning
from tfpeft.automl.advice.recommendations import Recommendation, Recommendations
from tfpeft.automl.recommend import recommend
from tfpeft.automl.search import search
from tfpeft.automl.students.images import MobileBlocks, SmallCNN
from tfpeft.automl.students.sequences import Small1D, TinyTransformer
from tfpeft.automl.trials.budget import Budget
from tfpeft.automl.trials.records import SearchTrial
from tfpeft.automl.trials.results import SearchResult
from tfpeft.automl.trials.techniques import Techniques
from tfpeft.caching.precompute import Precomputed, PrecomputedInputs, precompute
from tfpeft.channels.constants import remove_constant_channels
from tfpeft.channels.iterative import IterativeChannelPruningResult, prune_channels_iteratively
from tfpeft.channels.prune_channels import prune_channels
from tfpeft.channels.report import ChannelReport
from tfpeft.channels.sensitivity import ChannelSensitivity, channel_sensitivity
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
from tfpeft.distribution.strategy import MultiWorkerStrategy
from tfpeft.evaluation.compare import compare, evaluate
from tfpeft.evaluation.results import Comparison, Evaluation
from tfpeft.export.c_array import export_c_array
from tfpeft.export.describe import TFLiteDescription, describe_tflite
from tfpeft.export.onnx import export_onnx
from tfpeft.export.report import ExportReport
from tfpeft.export.saved_model import export_saved_model
from tfpeft.export.serving import ServingReport
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.model_loading import load_model
from tfpeft.quantization.clustering import WeightClustering
from tfpeft.quantization.error import QuantizationError, quantization_error
from tfpeft.quantization.quantize_aware import (
    QuantizeAwareModel,
    quantize_aware,
    strip_quantization,
)
from tfpeft.quantization.selective import SelectiveQuantizationResult, quantize_selectively
from tfpeft.quantization.strip import strip_clustering
from tfpeft.reports.figure_logger import FigureLogger
from tfpeft.sharing.mixing import TaskInputs, mix_tasks
from tfpeft.sharing.shared_model import SharedModel
from tfpeft.sharing.task_model import TaskModel
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

__version__ = "0.2.0"

__all__ = [
    "AdaptedModel",
    "AdapterMethod",
    "AttentionTransfer",
    "BinarySoftLabels",
    "BitFit",
    "BottleneckAdapter",
    "Budget",
    "BudgetError",
    "ChannelReport",
    "ChannelSensitivity",
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
    "FigureLogger",
    "FixedMask",
    "GradientPruning",
    "IA3",
    "InputError",
    "IterativeChannelPruningResult",
    "IterativePruningResult",
    "KeepBest",
    "LayerSensitivity",
    "LoRA",
    "MagnitudePruning",
    "MobileBlocks",
    "MovementPruning",
    "MultiWorkerStrategy",
    "NoMatchError",
    "NormTuning",
    "Precomputed",
    "PrecomputedInputs",
    "ProximalGroupL1",
    "ProximalL1",
    "Pruning",
    "QuantizeAwareModel",
    "QuantizationError",
    "RandomPruning",
    "Recommendation",
    "Recommendations",
    "RelationalAngle",
    "RelationalDistance",
    "RigL",
    "SET",
    "SearchResult",
    "SearchTrial",
    "SelectiveQuantizationResult",
    "ServingReport",
    "SharedModel",
    "SimilarityPreserving",
    "Small1D",
    "SmallCNN",
    "SoftLabels",
    "SparseOptimizer",
    "SparsityLogger",
    "SquaredError",
    "StaticSparse",
    "TFLiteDescription",
    "TFLiteFile",
    "TargetedDropout",
    "TaskInputs",
    "TaskModel",
    "Techniques",
    "TinyTransformer",
    "WeightClustering",
    "XnnpackPolicy",
    "add_adapters",
    "channel_sensitivity",
    "compare",
    "constant_sparsity",
    "describe_tflite",
    "evaluate",
    "export_c_array",
    "export_onnx",
    "export_saved_model",
    "export_tflite",
    "l1_regularize",
    "layer_sensitivity",
    "load_model",
    "merge_adapters",
    "mix_tasks",
    "polynomial_decay",
    "precompute",
    "prune_channels",
    "prune_channels_iteratively",
    "prune_for_xnnpack",
    "prune_iteratively",
    "quantization_error",
    "quantize_aware",
    "quantize_selectively",
    "recommend",
    "remove_constant_channels",
    "scale_width",
    "search",
    "strip_clustering",
    "strip_pruning",
    "strip_quantization",
    "trainable_summary",
]

_RENAMED = {  # in 0.2.0, of 2026-11-25; the old names go with 0.4.0
    "DistillationTerm": "DistillationLoss",
    "IterativePruning": "IterativePruningResult",
    "Sensitivity": "LayerSensitivity",
    "Taught": "PrecomputedInputs",
}


def _predict(path, x, signature=None):
    """Returns the output of a .tflite file; see `TFLiteFile.predict`."""
    return TFLiteFile(path).predict(x, signature)


def __getattr__(name):
    if name == "tflite":
        warnings.warn(
            "tfpeft.tflite.predict(path, x) is tfpeft.TFLiteFile(path).predict(x) since 0.2.0; "
            "the old name goes with 0.4.0.",
            DeprecationWarning,
            stacklevel=2,
        )
        return types.SimpleNamespace(predict=_predict)
    if name not in _RENAMED:
        raise AttributeError(f"module 'tfpeft' has no attribute {name!r}")
    warnings.warn(
        f"tfpeft.{name} is called tfpeft.{_RENAMED[name]} since 0.2.0; the old name goes with "
        "0.4.0.",
        DeprecationWarning,
        stacklevel=2,
    )
    return globals()[_RENAMED[name]]
