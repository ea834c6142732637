"""Agreement of a model with a reference model: on any inputs, without labels."""

import numpy as np

from tfpeft.evaluation.figures import Statistics
from tfpeft.evaluation.recognition import kind_of_loss

_CLASSES = ("classification", "binary", "segmentation")


class Agreement(Statistics):
    """How alike the outputs of a model and of a reference are.

    - equal_classes, the share of samples, or positions, of which both predict the same class;
    - correlation, of all outputs;
    - largest_deviation, max |output - reference's|, in the unit of the outputs.

    Outputs of different kinds, as logits and probabilities, have equal classes only.

    Args:
        outputs, reference: The `Outputs` of the model and of the reference.
        of_classes: Whether they are classes.
    """

    columns = ("weight", "equal", "a", "aa", "b", "bb", "ab")

    def __init__(self, outputs, reference, *, of_classes):
        super().__init__(outputs)
        self._reference, self._of_classes = reference, of_classes
        self._shift, self._largest = None, 0.0

    def statistics(self, y, outputs):
        """Returns the statistics of outputs and those of the reference, `y`."""
        a, b = (np.asarray(each, "float64") for each in (outputs, y))
        size = len(a)
        equal = np.zeros(size)
        if self._of_classes:
            same = self.outputs.class_numbers(a) == self._reference.class_numbers(b)
            equal = same.reshape(size, -1).mean(axis=1)
        a, b = a.reshape(size, -1), b.reshape(size, -1)
        if self._shift is None:
            self._shift = b.mean()
        self._largest = max(self._largest, float(np.abs(a - b).max()))
        a, b = a - self._shift, b - self._shift
        values = {"a": a, "aa": a * a, "b": b, "bb": b * b, "ab": a * b}
        return {"equal": equal, **{name: each.mean(axis=1) for name, each in values.items()}}

    def figures(self, sums):
        weight = sums["weight"]
        found = {"equal_classes": sums["equal"] / weight} if self._of_classes else {}
        if self.outputs.kind == self._reference.kind:
            spreads = [sums[f"{i}{i}"] - sums[i] ** 2 / weight for i in "ab"]
            together = sums["ab"] - sums["a"] * sums["b"] / weight
            found["correlation"] = np.clip(together / np.sqrt(spreads[0] * spreads[1]), -1, 1)
        return found

    def result(self, samples):
        found = super().result(samples)
        if self.outputs.kind == self._reference.kind:
            found.values["largest_deviation"] = self._largest
        else:
            kinds = f"{self.outputs.kind} against {self._reference.kind}"
            found.notes += (f"no correlation, no largest_deviation: {kinds}",)
        return found


def are_classes(task, outputs, losses):
    """Whether outputs are classes, as far as is known.

    Args:
        task: The name of the task, or None.
        outputs: The `Outputs`.
        losses: What the models are compiled with, or None.
    """
    if task is not None:
        return task in _CLASSES
    if any(kind_of_loss(loss) == "values" for loss in losses):
        return False
    return outputs.units > 1 or outputs.kind == "sigmoid"
