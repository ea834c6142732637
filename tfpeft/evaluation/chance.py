"""What the best constant prediction gives for a task, and whether a model is better than that."""

import dataclasses

import numpy as np

from tfpeft.evaluation.outputs import Outputs

_CONSTANTS = {
    "multi_label": "the most frequent labels give",
    "segmentation": "the most frequent class everywhere gives",
    "regression": "the mean gives",
    "reconstruction": "the mean sample gives",
}
_PERFECT = {"accuracy": 1.0, "f1": 1.0, "mean_iou": 1.0, "rmse": 0.0, "mse": 0.0}


@dataclasses.dataclass(frozen=True)
class Chance:
    """Whether predictions are better than the best constant one, by two standard errors or more.

    Of classes, the constant is the most frequent one; a model is also better if its mean recall is
    above 1 / classes, for data in which one class is nearly all. Of labels, it is those whose
    prediction gives the highest F1. Of numbers, it is their mean, of each target or of each value
    of a sample. There the standard error is that of the difference, by the bootstrap. Of positions,
    where random masks may have a higher mean IoU than a constant one, the mean recall must be above
    1 / classes, too.

    Attributes:
        metric: The headline of the task.
        value: That of the predictions.
        constant: That of the best constant prediction.
        samples: How many samples there are.
        is_better: Whether the predictions are better.
        task: The name of the task.
    """

    metric: str
    value: float
    constant: float
    samples: int
    is_better: bool
    task: str

    def __str__(self):
        start = f"{self.metric} {self._shown(self.value)} on {self.samples} samples"
        if self.task in ("classification", "binary"):
            return f"{start}, of which {self.constant:.1%} are of the most frequent class"
        return f"{start}, where {_CONSTANTS[self.task]} {self._shown(self.constant)}"

    def _shown(self, value):
        return f"{value:.4g}" if self.metric in ("rmse", "mse") else f"{value:.1%}"


def constant_predictions(task, y, classes, weight=None):
    """Returns the best constant prediction, for each sample, and its `Outputs`.

    Args:
        task: The name of the task.
        y: Labels as the statistics of the task take them.
        classes: How many classes there are.
        weight: A weight per sample, or per position; None for 1.
    """
    weight = np.ones(len(y)) if weight is None else weight
    weight = weight.reshape(weight.shape + (1,) * (y.ndim - weight.ndim))
    weight = np.broadcast_to(weight, y.shape)
    if task in ("regression", "reconstruction"):
        axes = tuple(range(y.ndim - 1)) if task == "regression" else 0
        mean = np.average(y, axis=axes, weights=weight)
        return np.broadcast_to(mean, y.shape), Outputs("values", y.shape[-1])
    if task == "multi_label":
        counts = (y * weight).sum(axis=0)
        order = np.argsort(-counts, kind="stable")
        # The F1 of all labels together, of predicting the k most frequent ones.
        predicted = weight[:, 0].sum() * np.arange(1, len(order) + 1)
        f1 = 2 * np.cumsum(counts[order]) / (predicted + counts.sum())
        constant = np.zeros(y.shape[1])
        constant[order[: int(np.argmax(f1)) + 1]] = 1
        return np.broadcast_to(constant, y.shape), Outputs("sigmoid", y.shape[1])
    constant = np.zeros(classes)
    constant[np.argmax(np.bincount(y.ravel(), weight.ravel(), classes))] = 1
    return np.broadcast_to(constant, (*y.shape, classes)), Outputs("softmax", classes)


def compare_with_chance(task, found, constant, y):
    """Returns the `Chance` of two `Figures`, of a model and of the best constant prediction.

    Args:
        task: The `Task`.
        found: Of the model.
        constant: Of `constant_predictions`.
        y: Labels as the statistics of the task take them.
    """
    name = task.headline
    value, chance = found.values[name], constant.values[name]
    if task.name in ("classification", "binary"):
        is_better = _are_classes_better(value, found.per_class["recall"], y)
    else:
        gain = found.replicates[name] - constant.replicates[name]
        gain = gain if task.higher_is_better else -gain
        difference = value - chance if task.higher_is_better else chance - value
        is_better = difference > 2 * np.nanstd(gain)
        if task.name == "segmentation":
            recall, drawn = found.values["recall"], found.replicates["recall"]
            is_better &= recall > 1 / len(np.unique(y)) + 2 * np.nanstd(drawn)
    is_better = is_better or value == _PERFECT[name]  # of few samples, or of one class
    return Chance(name, float(value), float(chance), len(y), bool(is_better), task.name)


def _are_classes_better(accuracy, recalls, y):
    classes, counts = np.unique(y, return_counts=True)
    samples, one = len(y), 1 / len(counts)
    majority, recall = counts.max() / samples, np.mean(recalls[classes])
    error = np.sqrt(majority * (1 - majority) / samples)
    recall_error = one * np.sqrt(np.sum(one * (1 - one) / counts))
    return accuracy > majority + 2 * error or recall > one + 2 * recall_error
