"""The base classes of distillation losses: weights, masks, means, and logits at a temperature."""

import re

import keras
from keras import ops

from tfpeft.core.arguments import check_name, check_positive, compatible_shapes, invalid, unexpected
from tfpeft.core.registration import register

_SMALLEST = 1e-37  # about the smallest normal float32


@register("DistillationTerm")
class DistillationLoss(keras.losses.Loss):
    """One loss between a teacher and a student: weight * mean(call(teacher, student)).

    A custom loss is a subclass whose `call(teacher, student)` returns a value per sample,
    (batch,), or per position, (batch, positions...). The mean over the values is weighted by
    `sample_weight` and leaves masked positions out, as Keras does for its losses. Attributes of
    the class decide what `call` receives:

    - `on_logits`: True if `call` compares logits of classes; probabilities are turned into logits
      first. For such a loss subclass `SoftLabels` (inside tfpeft, `LogitsLoss`), which divides
      logits by T and multiplies the value by T^2.
    - `match_widths`: True for a linear projection of the student's features to as many channels
      as the teacher's, where the numbers differ. The projection is trained with the student and
      is not part of it.
    - `uses`: more keyword arguments of `call`: `"labels"`, the classes (batch, ...), and
      `"mask"`, (batch, positions...) of booleans, or None. If a loss does not use the mask, it is
      applied to values of the mask's rank.

    Args:
        weight: Factor of the loss, > 0.
        teacher_layer: Name, or path such as "backbone/block_1", of the layer whose output is
            compared, also inside nested models; None for the model's output.
        student_layer: The same of the student.
        output: Key or index of the output that is compared, for models with several outputs;
            None for all outputs.
        name: The name of the loss in the logs.

    Raises:
        InputError: if `weight` is out of range or a layer is not a name.

    Example:

    ```python
    import keras, tfpeft

    @keras.saving.register_keras_serializable()
    class Cosine(tfpeft.DistillationLoss):
        match_widths = True

        def call(self, teacher, student):
            return 1.0 + keras.losses.cosine_similarity(teacher, student, axis=-1)

    loss = Cosine(teacher_layer="conv_3", student_layer="conv_2", weight=0.5)
    ```
    """

    on_logits = False
    match_widths = False
    uses: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        weight: float = 1.0,
        teacher_layer: str | None = None,
        student_layer: str | None = None,
        output: str | int | None = None,
        name: str | None = None,
    ):
        check_positive("weight", weight)
        for argument, layer in (("teacher_layer", teacher_layer), ("student_layer", student_layer)):
            if layer is not None and not isinstance(layer, str):
                raise invalid(argument, "the name or path of a layer", layer)
        if isinstance(output, bool) or not isinstance(output, (str, int, type(None))):
            raise invalid("output", "the key or index of an output, or None", output)
        check_name(name)
        super().__init__(name=name or _snake_case(type(self).__name__))
        self.weight = weight
        self.teacher_layer = teacher_layer
        self.student_layer = student_layer
        self.output = output

    def __call__(self, teacher, student, sample_weight=None, labels=None, mask=None):
        available = {"labels": labels, "mask": mask}
        teacher = ops.cast(teacher, self.dtype)
        student = ops.cast(student, self.dtype)
        check_shapes(teacher, student, sides=1)
        values = self.call(teacher, student, **{name: available[name] for name in self.uses})
        if mask is not None and "mask" not in self.uses and len(values.shape) == len(mask.shape):
            values._keras_mask = mask
        return _weighted_mean(values, _broadcast_weights(sample_weight, values))

    def call(self, teacher, student):
        """Returns a value per sample or position; a subclass has the formula."""
        raise NotImplementedError

    def get_config(self):
        return {
            "weight": self.weight,
            "teacher_layer": self.teacher_layer,
            "student_layer": self.student_layer,
            "output": self.output,
            "name": self.name,
        }


class LogitsLoss(DistillationLoss):
    """A distillation loss on the logits of classes: T^2 * call(z_t / T, z_s / T)."""

    on_logits = True
    activation = "softmax"  # turns logits into probabilities

    def __init__(
        self,
        *,
        temperature: float | None = None,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str | None = None,
    ):
        super().__init__(weight=weight, output=output, name=name)
        if temperature is not None:
            check_positive("temperature", temperature)
        self.temperature = temperature

    def __call__(
        self, teacher, student, sample_weight=None, labels=None, mask=None, temperature=1.0
    ):
        """Returns the loss of logits; `temperature` counts if the loss has none itself."""
        temperature = temperature if self.temperature is None else self.temperature
        teacher, student = (ops.cast(z, self.dtype) / temperature for z in (teacher, student))
        check_shapes(teacher, student)
        if self.activation == "softmax" and student.shape[-1] == 1:
            raise unexpected(
                f"two classes or more for {self.name} (BinarySoftLabels and SquaredError take one "
                "number)",
                f"outputs of shape {tuple(student.shape)}",
            )
        if mask is not None and len(mask.shape) != len(student.shape) - 1:
            mask = None
        return temperature**2 * super().__call__(teacher, student, sample_weight, labels, mask)

    @staticmethod
    def logits(probabilities):
        """Returns logits that the activation turns into these probabilities."""
        return ops.log(ops.maximum(probabilities, _SMALLEST))

    @staticmethod
    def mean_of(logits, weights, temperature):
        """Returns the logits of the weighted mean of softened probabilities of several teachers."""
        parts = [
            ops.log(weight) + ops.log_softmax(z / temperature, axis=-1)
            for z, weight in zip(logits, weights, strict=True)
        ]
        return temperature * ops.logsumexp(ops.stack(parts), axis=0)

    def get_config(self):
        return {
            "temperature": self.temperature,
            "weight": self.weight,
            "output": self.output,
            "name": self.name,
        }


class _WeightedMean(keras.losses.Loss):
    """Applies weights and masks, averages, and scales for replicas, as every Keras loss does."""

    def call(self, _, values):
        return values


def _weighted_mean(values, sample_weight):
    return _WeightedMean(name="mean")(values, values, sample_weight)


def _broadcast_weights(sample_weight, values):
    """Repeats weights per sample over positions, or averages weights per position to samples."""
    if sample_weight is None:
        return None
    sample_weight = ops.cast(sample_weight, values.dtype)
    rank, wanted = len(sample_weight.shape), len(values.shape)
    if rank > wanted:
        return ops.mean(sample_weight, axis=tuple(range(wanted, rank)))
    shape = (*ops.shape(sample_weight), *[1] * (wanted - rank))
    return ops.broadcast_to(ops.reshape(sample_weight, shape), ops.shape(values))


def _snake_case(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def check_shapes(teacher, student, sides=None):
    """Raises unless the shapes agree in all sides, or in the first `sides`."""
    shapes = tuple(teacher.shape), tuple(student.shape)
    if not compatible_shapes(*(shape[:sides] for shape in shapes)):
        what = "shape" if sides is None else "number of samples"
        raise unexpected(
            f"outputs of teacher and student of the same {what}",
            f"teacher {shapes[0]}, student {shapes[1]}",
        )


def squared_error(teacher, student):
    """Returns mean((t - s)^2) over the last axis."""
    check_shapes(teacher, student)
    return ops.mean(ops.square(teacher - student), axis=-1)
