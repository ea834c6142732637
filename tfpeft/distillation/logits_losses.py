"""Distillation losses on outputs: soft labels and their relatives, and the squared error."""

from keras import ops

from tfpeft.core.arguments import compatible_shapes, invalid, is_weight, unexpected
from tfpeft.core.registration import register
from tfpeft.distillation.distillation_loss import DistillationLoss, LogitsLoss, squared_error

_RESOLUTION = 2.0**-24  # half of the distance from 1 to the next float32
_EXCLUDED = -1e4  # added to a logit, its exp is 0
_CONSTANT = 1e-12  # probabilities whose squared distances to their mean sum to less are constant


@register()
class SoftLabels(LogitsLoss):
    """Soft labels: T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), summed over the classes.

    T^2 keeps the gradients at one scale for every temperature. Outputs are (batch, ..., classes);
    the loss has a value per sample or position.

    Args:
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the loss, > 0.
        output: Key or index of one output, for models with several; None for all outputs.
        name: The name of the loss in the logs.

    Raises:
        InputError: if `temperature` or `weight` is out of range.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.SoftLabels(), tfpeft.SimilarityPreserving(weight=100.0)]
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    def call(self, teacher, student):
        return _divergence(ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1))


@register()
class BinarySoftLabels(LogitsLoss):
    """Soft labels of yes-or-no outputs: T^2 * KL of sigmoid(z_t / T) and sigmoid(z_s / T).

    For two classes in one output, and for multi-label outputs; averaged over the last axis, as
    Keras's binary crossentropy is. Arguments and errors: see `SoftLabels`.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.BinarySoftLabels(temperature=2.0)]
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    activation = "sigmoid"

    @staticmethod
    def logits(probabilities):
        # Clipped to what float32 resolves near 1: values beyond carry no information.
        p = ops.clip(probabilities, _RESOLUTION, 1.0 - _RESOLUTION)
        return ops.log(p) - ops.log(1.0 - p)

    @staticmethod
    def mean_of(logits, weights, temperature):
        def log_mean(sign):
            parts = zip(logits, weights, strict=True)
            return ops.logsumexp(
                ops.stack([ops.log(w) + ops.log_sigmoid(sign * z / temperature) for z, w in parts]),
                axis=0,
            )

        return temperature * (log_mean(1.0) - log_mean(-1.0))

    def call(self, teacher, student):
        yes = ops.sigmoid(teacher) * (ops.log_sigmoid(teacher) - ops.log_sigmoid(student))
        no = ops.sigmoid(-teacher) * (ops.log_sigmoid(-teacher) - ops.log_sigmoid(-student))
        return ops.mean(yes + no, axis=-1)


@register()
class DecoupledKD(LogitsLoss):
    """Soft labels in two parts, weighted separately: T^2 * (target * TCKD + other * NCKD).

    With p the softened probabilities and y the label, TCKD = KL of (p_y, 1 - p_y), and NCKD = KL
    of the other classes, renormalized without y. Soft labels are the special case target = 1,
    other = 1 - p_y of the teacher: for samples where the teacher is confident, they hardly
    transfer what it knows about the other classes.

    Args:
        target: Weight >= 0 of TCKD, the paper's alpha.
        other: Weight >= 0 of NCKD, the paper's beta: 1 to 10, larger for a more confident teacher.
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the loss, > 0.
        output: Key or index of one output, for models with several; None for all outputs.
        name: The name of the loss in the logs.

    Raises:
        InputError: if an argument is out of range, and in training without labels.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.DecoupledKD(other=8.0, temperature=4.0)]
    ```

    Reference: Zhao et al., "Decoupled Knowledge Distillation", 2022,
    https://arxiv.org/abs/2203.08679
    """

    uses = ("labels",)

    def __init__(
        self,
        *,
        target: float = 1.0,
        other: float = 8.0,
        temperature: float | None = None,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str | None = None,
    ):
        super().__init__(temperature=temperature, weight=weight, output=output, name=name)
        _check_parts(target=target, other=other)
        self.target = target
        self.other = other

    def call(self, teacher, student, labels):
        classes = student.shape[-1]
        _check_labels(labels, student)
        if len(labels.shape) == len(student.shape) and labels.shape[-1] == classes > 1:
            labels = ops.argmax(labels, axis=-1)
        labels = ops.reshape(ops.cast(labels, "int32"), ops.shape(student)[:-1])
        is_target = ops.one_hot(labels, classes, dtype=student.dtype)
        parts = []
        for z in (teacher, student):
            target = ops.sum(is_target * ops.log_softmax(z, axis=-1), axis=-1, keepdims=True)
            others = ops.logsumexp(z + _EXCLUDED * is_target, axis=-1, keepdims=True)
            others = others - ops.logsumexp(z, axis=-1, keepdims=True)
            among_others = ops.log_softmax(z + _EXCLUDED * is_target, axis=-1)
            parts.append((ops.concatenate([target, others], axis=-1), among_others))
        (teacher_target, teacher_others), (student_target, student_others) = parts
        tckd = _divergence(teacher_target, student_target)
        nckd = _divergence(teacher_others, student_others)
        return self.target * tckd + self.other * nckd

    def get_config(self):
        return {**super().get_config(), "target": self.target, "other": self.other}


@register()
class DIST(LogitsLoss):
    """Correlations instead of values: T^2 * (inter * (1 - r_samples) + intra * (1 - r_classes)).

    With p the softened probabilities, r_samples is Pearson's correlation of the teacher's and the
    student's p of one sample over the classes, and r_classes that of one class over the samples
    (and positions) of the batch, averaged over the classes. A student of a much stronger teacher
    need not match its probabilities exactly then.

    What it does not give: r_classes counts samples of weight 0 like others, and under a strategy
    it is computed per replica.

    Args:
        inter: Weight >= 0 of the relation among classes within a sample, the paper's beta.
        intra: Weight >= 0 of the relation among samples within a class, the paper's gamma.
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the loss, > 0.
        output: Key or index of one output, for models with several; None for all outputs.
        name: The name of the loss in the logs.

    Raises:
        InputError: if `temperature` or `weight` is out of range.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.DIST(inter=1.0, intra=1.0, temperature=1.0)]
    ```

    Reference: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022,
    https://arxiv.org/abs/2205.10536
    """

    uses = ("mask",)

    def __init__(
        self,
        *,
        inter: float = 1.0,
        intra: float = 1.0,
        temperature: float | None = None,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str | None = None,
    ):
        super().__init__(temperature=temperature, weight=weight, output=output, name=name)
        _check_parts(inter=inter, intra=intra)
        self.inter = inter
        self.intra = intra

    def call(self, teacher, student, mask):
        teacher, student = ops.softmax(teacher, axis=-1), ops.softmax(student, axis=-1)
        rows = tuple(range(len(student.shape) - 1))
        counts = ops.ones_like(student[..., :1])
        if mask is not None:
            counts = counts * ops.cast(mask, student.dtype)[..., None]
        of_samples = _correlation(teacher, student, (-1,), ops.ones_like(student))
        of_classes = ops.mean(_correlation(teacher, student, rows, counts))
        values = self.inter * (1.0 - of_samples) + self.intra * (1.0 - of_classes)
        if mask is not None:
            values._keras_mask = mask
        return values

    def get_config(self):
        return {**super().get_config(), "inter": self.inter, "intra": self.intra}


@register()
class SquaredError(DistillationLoss):
    """The squared error of outputs as they are, mean((t - s)^2) over the last axis: regression.

    Args:
        weight: Factor of the loss, > 0.
        output: Key or index of one output, for models with several; None for all outputs.
        name: The name of the loss in the logs.

    Raises:
        InputError: if `weight` is out of range.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.SquaredError()]
    ```

    Reference: Ba & Caruana, "Do Deep Nets Really Need to be Deep?", 2014,
    https://arxiv.org/abs/1312.6184
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        output: str | int | None = None,
        name: str | None = None,
    ):
        super().__init__(weight=weight, output=output, name=name)

    def call(self, teacher, student):
        return squared_error(teacher, student)

    def get_config(self):
        return {"weight": self.weight, "output": self.output, "name": self.name}


def _check_parts(**weights):
    """Raises unless weights are numbers >= 0 of which one is not 0."""
    for name, weight in weights.items():
        if not is_weight(weight):
            raise invalid(name, "a number >= 0", weight)
    if not any(weights.values()):
        raise unexpected(f"a number above 0 for {' or '.join(weights)}", "0 and 0")


def _check_labels(labels, logits):
    expected = tuple(logits.shape)
    shape = None if labels is None else tuple(labels.shape)
    wanted = (expected[:-1], (*expected[:-1], 1), expected)
    if shape is None or not any(compatible_shapes(shape, each) for each in wanted):
        classes = f"class numbers or one-hot rows for logits of shape {expected}"
        raise invalid("labels", classes, shape if shape is None else f"shape {shape}")


def _divergence(log_p, log_q):
    p = ops.exp(log_p)
    # A class that the teacher excludes costs nothing, also where a logarithm is infinite.
    return ops.sum(ops.where(p > 0.0, p * (log_p - log_q), 0.0), axis=-1)


def _correlation(a, b, axes, weights):
    """Returns Pearson's correlation over `axes`, where entries count by `weights`.

    It is 0, without a gradient, where `a` or `b` does not vary by more than rounding.
    """
    total = ops.maximum(ops.sum(weights, axis=axes, keepdims=True), 1.0)
    centred = [
        weights * (p - ops.sum(weights * p, axis=axes, keepdims=True) / total) for p in (a, b)
    ]
    squares = [ops.sum(ops.square(p), axis=axes) for p in centred]
    varies = ops.logical_and(squares[0] > _CONSTANT, squares[1] > _CONSTANT)
    lengths = [ops.sqrt(ops.where(varies, square, 1.0)) for square in squares]
    product = ops.sum(centred[0] * centred[1], axis=axes)
    return ops.where(varies, product / (lengths[0] * lengths[1]), 0.0)
