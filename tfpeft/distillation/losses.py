"""What a student can learn from a teacher: each term one formula in one class."""

import re

import keras
from keras import ops

from tfpeft.core.arguments import check_positive, compatible_shapes, invalid
from tfpeft.distillation.features import same_positions, zeros_where_masked


def _register(cls):
    return keras.saving.register_keras_serializable(package="tfpeft")(cls)


@_register
class DistillationTerm(keras.losses.Loss):
    """One term of what a `Distiller` learns from the teacher: weight * mean(call(t, s)).

    A term of one's own is a subclass whose `call(teacher, student)` returns a value for each
    sample, (batch,), or each position, (batch, positions...). The mean over them is weighted by
    `sample_weight` and leaves masked positions out, as Keras does for its losses. Attributes of
    the class tell what `call` gets:

    - `on_logits`: True for logits, where both models answer classes; probabilities are turned
      into logits first. `SoftLabels` is a subclass to begin with: its logits are divided by T,
      and its value is multiplied by T^2.
    - `match_widths`: True for a linear projection of the student's features to as many channels
      as the teacher's where they differ. It is trained with the student and is no part of it.
    - `uses`: more keyword arguments of `call`: `"labels"`, the classes (batch, ...), and
      `"mask"`, (batch, positions...) of booleans, or None. A term that does not use the mask gets
      it applied where its values are those of the positions.

    Args:
        weight: Factor of the term, > 0.
        teacher_layer: Name, or path such as "backbone/block_1", of the layer whose output is
            compared, also inside nested models; None for the model's output.
        student_layer: The same of the student.
        output: Key or index of the output that is compared, of models with several; None for
            each of them.
        name: The name of the term in the logs.

    Raises:
        ValueError: for a weight out of range.

    Example:

    ```python
    import keras, tfpeft

    @keras.saving.register_keras_serializable()
    class Cosine(tfpeft.DistillationTerm):
        match_widths = True

        def call(self, teacher, student):
            return 1.0 + keras.losses.cosine_similarity(teacher, student, axis=-1)

    term = Cosine(teacher_layer="conv_3", student_layer="conv_2", weight=0.5)
    ```
    """

    on_logits = False
    match_widths = False
    uses = ()

    def __init__(
        self, *, weight=1.0, teacher_layer=None, student_layer=None, output=None, name=None
    ):
        check_positive("weight", weight)
        for argument, layer in (("teacher_layer", teacher_layer), ("student_layer", student_layer)):
            if layer is not None and not isinstance(layer, str):
                raise invalid(argument, "the name or path of a layer", layer)
        super().__init__(name=name or _snake_case(type(self).__name__))
        self.weight = weight
        self.teacher_layer = teacher_layer
        self.student_layer = student_layer
        self.output = output

    def __call__(self, teacher, student, sample_weight=None, labels=None, mask=None):
        given = {"labels": labels, "mask": mask}
        teacher = ops.cast(teacher, self.dtype)
        student = ops.cast(student, self.dtype)
        check_shapes(teacher, student, sides=1)
        values = self.call(teacher, student, **{name: given[name] for name in self.uses})
        if mask is not None and "mask" not in self.uses and len(values.shape) == len(mask.shape):
            values._keras_mask = mask
        return _mean(values, _as_wide_as(values, sample_weight))

    def call(self, teacher, student):
        raise NotImplementedError

    def get_config(self):
        return {
            "weight": self.weight,
            "teacher_layer": self.teacher_layer,
            "student_layer": self.student_layer,
            "output": self.output,
            "name": self.name,
        }


class _Mean(keras.losses.Loss):
    """Weights, masks, averages and scales for replicas, as every Keras loss."""

    def call(self, _, values):
        return values


def _mean(values, sample_weight):
    return _Mean(name="mean")(values, values, sample_weight)


def _as_wide_as(values, sample_weight):
    """Brings weights of samples to positions, and those of positions to samples."""
    if sample_weight is None:
        return None
    sample_weight = ops.cast(sample_weight, values.dtype)
    rank, wanted = len(sample_weight.shape), len(values.shape)
    if rank > wanted:
        return ops.mean(sample_weight, axis=tuple(range(wanted, rank)))
    shape = (*ops.shape(sample_weight), *[1] * (wanted - rank))
    return ops.broadcast_to(ops.reshape(sample_weight, shape), ops.shape(values))


class LogitsTerm(DistillationTerm):
    """A term on the classes that models answer: T^2 * call(z_t / T, z_s / T)."""

    on_logits = True
    activation = "softmax"  # makes probabilities of the logits

    def __init__(self, *, temperature=None, weight=1.0, output=None, name=None):
        super().__init__(weight=weight, output=output, name=name)
        if temperature is not None:
            check_positive("temperature", temperature)
        self.temperature = temperature

    def __call__(
        self, teacher, student, sample_weight=None, labels=None, mask=None, temperature=1.0
    ):
        """Returns the term of logits; `temperature` counts if the term has none of its own."""
        temperature = temperature if self.temperature is None else self.temperature
        teacher, student = (ops.cast(z, self.dtype) / temperature for z in (teacher, student))
        check_shapes(teacher, student)
        if self.activation == "softmax" and student.shape[-1] == 1:
            raise ValueError(
                f"{self.name} expected two classes or more; of one number BinarySoftLabels and "
                f"SquaredError can learn. Received: outputs of shape {tuple(student.shape)}"
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


@_register
class SoftLabels(LogitsTerm):
    """T^2 * KL(softmax(z_t / T) || softmax(z_s / T)), summed over the classes.

    T^2 keeps the gradients at one scale for every temperature. Outputs are (batch, ..., classes);
    values are those of the samples or positions.

    Args:
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the term, > 0.
        output: Key or index of one output of models with several; None for each.
        name: The name of the term in the logs.

    Raises:
        ValueError: for a temperature or weight out of range.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.SoftLabels(), tfpeft.SimilarityPreserving(weight=100.0)]
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    def call(self, teacher, student):
        return _divergence(ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1))


@_register
class BinarySoftLabels(LogitsTerm):
    """T^2 * KL of sigmoid(z_t / T) and sigmoid(z_s / T), each output a yes or no of its own.

    For two classes in one output, and for several labels at once; averaged over the last axis, as
    Keras's binary crossentropy is. Arguments and errors: see `SoftLabels`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.BinarySoftLabels(temperature=2.0)]
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    activation = "sigmoid"

    @staticmethod
    def logits(probabilities):
        # No nearer to 0 and 1 than float32 comes to 1: there is nothing to be known beyond.
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


@_register
class DecoupledKD(LogitsTerm):
    """Soft labels in two parts with weights of their own: T^2 * (target * TCKD + other * NCKD).

    With p the softened probabilities and y the label, TCKD = KL of (p_y, 1 - p_y), and NCKD = KL
    of the probabilities of the other classes among themselves. Soft labels are the special case
    target = 1, other = 1 - p_y of the teacher: where the teacher is sure, what it knows of the
    other classes hardly counts there.

    Args:
        target: Weight of TCKD, the paper's alpha.
        other: Weight of NCKD, the paper's beta: 1 to 10, more for a teacher that is surer.
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the term, > 0.
        output: Key or index of one output of models with several; None for each.
        name: The name of the term in the logs.

    Raises:
        ValueError: for a temperature or weight out of range. Training without labels is refused.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.DecoupledKD(other=8.0, temperature=4.0)]
    ```

    Reference: Zhao et al., "Decoupled Knowledge Distillation", 2022,
    https://arxiv.org/abs/2203.08679
    """

    uses = ("labels",)

    def __init__(
        self, *, target=1.0, other=8.0, temperature=None, weight=1.0, output=None, name=None
    ):
        super().__init__(temperature=temperature, weight=weight, output=output, name=name)
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
            others = ops.logsumexp(z + _NEVER * is_target, axis=-1, keepdims=True)
            others = others - ops.logsumexp(z, axis=-1, keepdims=True)
            among = ops.log_softmax(z + _NEVER * is_target, axis=-1)
            parts.append((ops.concatenate([target, others], axis=-1), among))
        (teacher_target, teacher_among), (student_target, student_among) = parts
        tckd = _divergence(teacher_target, student_target)
        nckd = _divergence(teacher_among, student_among)
        return self.target * tckd + self.other * nckd

    def get_config(self):
        return {**super().get_config(), "target": self.target, "other": self.other}


@_register
class DIST(LogitsTerm):
    """Relations instead of values: T^2 * (inter * (1 - r_samples) + intra * (1 - r_classes)).

    With p the softened probabilities, r_samples is Pearson's correlation of the teacher's and the
    student's p of one sample over the classes, and r_classes that of one class over the samples
    (and positions) of the batch, averaged over the classes. A much stronger teacher need not be
    matched exactly then.

    Args:
        inter: Weight of the relation among classes within a sample, the paper's beta.
        intra: Weight of the relation among samples within a class, the paper's gamma.
        temperature: T > 0; None for that of the Distiller.
        weight: Factor of the term, > 0.
        output: Key or index of one output of models with several; None for each.
        name: The name of the term in the logs.

    Raises:
        ValueError: for a temperature or weight out of range.

    What it does not give: r_classes without the samples of weight 0, and, under a strategy,
    across replicas.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.DIST(inter=1.0, intra=1.0, temperature=1.0)]
    ```

    Reference: Huang et al., "Knowledge Distillation from A Stronger Teacher", 2022,
    https://arxiv.org/abs/2205.10536
    """

    uses = ("mask",)

    def __init__(
        self, *, inter=1.0, intra=1.0, temperature=None, weight=1.0, output=None, name=None
    ):
        super().__init__(temperature=temperature, weight=weight, output=output, name=name)
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


@_register
class SquaredError(DistillationTerm):
    """mean((t - s)^2) over the last axis of outputs, as they are: for regression.

    Args:
        weight: Factor of the term, > 0.
        output: Key or index of one output of models with several; None for each.
        name: The name of the term in the logs.

    Raises:
        ValueError: for a weight out of range.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.SquaredError()]
    ```

    Reference: Ba & Caruana, "Do Deep Nets Really Need to be Deep?", 2014,
    https://arxiv.org/abs/1312.6184
    """

    def __init__(self, *, weight=1.0, output=None, name=None):
        super().__init__(weight=weight, output=output, name=name)

    def call(self, teacher, student):
        return _squared_error(teacher, student)

    def get_config(self):
        return {"weight": self.weight, "output": self.output, "name": self.name}


@_register
class FeatureMatching(DistillationTerm):
    """mean((t - P s)^2) of the features of two layers: the hints of FitNets.

    P is the identity, or where the numbers of channels differ, a linear layer that is trained
    with the student and thrown away. Where positions differ, the longer axis is averaged onto the
    shorter one; features without positions, (batch, channels), meet averages over positions.

    Arguments and errors: see `DistillationTerm`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.FeatureMatching(teacher_layer="conv_3", student_layer="conv_2", weight=0.5)]
    ```

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015,
    https://arxiv.org/abs/1412.6550
    """

    match_widths = True
    uses = ("mask",)

    def call(self, teacher, student, mask):
        teacher, student, mask = same_positions(teacher, student, mask)
        values = _squared_error(teacher, student)
        if mask is not None:
            values._keras_mask = mask
        return values


@_register
class AttentionTransfer(DistillationTerm):
    """mean((a_t - a_s)^2) over positions, where a = v / ||v|| and v = mean(f^2) over channels.

    The features f are maps (batch, positions..., channels) of any number of channels; positions
    are brought together as `FeatureMatching` does. Weights of the paper: 500 and more, as the
    squares of normalised maps are small.

    Arguments and errors: see `DistillationTerm`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.AttentionTransfer(teacher_layer="conv_3", student_layer="conv_2", weight=500.0)]
    ```

    Reference: Zagoruyko & Komodakis, "Paying More Attention to Attention", 2017,
    https://arxiv.org/abs/1612.03928
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        if len(teacher.shape) < 3 or len(student.shape) < 3:
            raise ValueError(
                f"{self.name} expected features with positions, (batch, positions..., channels). "
                f"Received: teacher {tuple(teacher.shape)}, student {tuple(student.shape)}"
            )
        teacher, student, mask = same_positions(teacher, student, mask)
        maps = [
            _unit(_rows(ops.mean(ops.square(zeros_where_masked(f, mask)), axis=-1)))
            for f in (teacher, student)
        ]
        values = _squared_error(*maps)
        if mask is None:
            return values
        count = ops.sum(ops.cast(mask, values.dtype), axis=-1)
        return ops.divide_no_nan(values * mask.shape[-1], count)


@_register
class SimilarityPreserving(DistillationTerm):
    """||G_t - G_s||_F^2 / batch^2, where G = F F^T with rows of length 1, and F the features.

    Features are flattened to (batch, all the rest); their sizes may differ. Weights of the paper:
    a few thousand.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationTerm`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.SimilarityPreserving(teacher_layer="flatten", student_layer="flatten")]
    ```

    Reference: Tung & Mori, "Similarity-Preserving Knowledge Distillation", 2019,
    https://arxiv.org/abs/1907.09682
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        features = _both_where_unmasked(teacher, student, mask)
        grams = [_unit(f @ ops.transpose(f)) for f in map(_rows, features)]
        return _squared_error(*grams)


@_register
class RelationalDistance(DistillationTerm):
    """mean(huber(d_t - d_s)) over pairs, where d = ||f_i - f_j|| / (mean of these distances).

    Features are flattened to (batch, all the rest); their sizes may differ. The Huber loss is
    that of delta 1.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationTerm`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.RelationalDistance(weight=25.0), tfpeft.RelationalAngle(weight=50.0)]
    ```

    Reference: Park et al., "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        features = _both_where_unmasked(teacher, student, mask)
        distances = [_distances(_rows(f)) for f in features]
        return ops.mean(_huber(distances[0] - distances[1]), axis=-1)


@_register
class RelationalAngle(DistillationTerm):
    """mean(huber(c_t - c_s)) over triplets, where c_ijk = cos of the angle at f_i, to f_j and f_k.

    Features are flattened to (batch, all the rest); their sizes may differ. The Huber loss is
    that of delta 1. Memory grows with batch^3 and batch^2 * features: 128 samples of 10 logits
    take 8 MB, of 4,096 features 270 MB.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationTerm`.

    Example:

    ```python
    import tfpeft

    terms = [tfpeft.RelationalDistance(weight=25.0), tfpeft.RelationalAngle(weight=50.0)]
    ```

    Reference: Park et al., "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        cosines = []
        for features in _both_where_unmasked(teacher, student, mask):
            rows = _rows(features)
            directions = _unit(rows[None] - rows[:, None])
            cosines.append(directions @ ops.transpose(directions, (0, 2, 1)))
        return ops.mean(_huber(cosines[0] - cosines[1]), axis=(1, 2))


_RESOLUTION = 2.0**-24  # half of the distance from 1 to the next float32
_SMALLEST = 1e-37  # the smallest normal float32, about
_NEVER = -1e4  # added to a logit: exp of it is 0
_TINY = 1e-24  # a squared length that counts as 0
_FLAT = 1e-12  # the same of probabilities around their mean, whose rounding is near 1e-15


def _snake_case(name):
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()


def _check_labels(labels, logits):
    expected = tuple(logits.shape)
    shape = None if labels is None else tuple(labels.shape)
    wanted = (expected[:-1], (*expected[:-1], 1), expected)
    if shape is not None and any(compatible_shapes(shape, each) for each in wanted):
        return
    raise ValueError(
        "Received an invalid value for `labels`, expected class numbers or one-hot rows for logits "
        f"of shape {expected}. Received: {'none' if shape is None else f'shape {shape}'}"
    )


def _divergence(log_p, log_q):
    return ops.sum(ops.exp(log_p) * (log_p - log_q), axis=-1)


def _squared_error(teacher, student):
    check_shapes(teacher, student)
    return ops.mean(ops.square(teacher - student), axis=-1)


def check_shapes(teacher, student, sides=None):
    """Raises unless the shapes agree: all of their sides, or the first ones."""
    shapes = tuple(teacher.shape), tuple(student.shape)
    if not compatible_shapes(*(shape[:sides] for shape in shapes)):
        what = "shape" if sides is None else "number of samples"
        raise ValueError(
            f"Expected what teacher and student answer to be of the same {what}. "
            f"Received: teacher {shapes[0]}, student {shapes[1]}"
        )


def _huber(difference):
    size = ops.abs(difference)
    return ops.where(size < 1.0, 0.5 * ops.square(size), size - 0.5)


def _rows(features):
    return ops.reshape(features, (ops.shape(features)[0], -1))


def _unit(vectors):
    """Vectors on the last axis, with length 1; those of length 0 stay, with gradients of 0."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.where(squares > _TINY, ops.rsqrt(ops.maximum(squares, _TINY)), 0.0)


def _distances(rows):
    """Distances between all pairs of rows, as parts of their mean; 0 from a row to itself."""
    squares = ops.sum(ops.square(rows[None] - rows[:, None]), axis=-1)
    differ = squares > 0.0
    # The square root has no gradient at 0: such pairs are kept out of it, not multiplied by 0.
    distances = ops.where(differ, ops.sqrt(ops.where(differ, squares, 1.0)), 0.0)
    count = ops.sum(ops.cast(differ, rows.dtype))
    return ops.divide_no_nan(distances * count, ops.sum(distances))


def _correlation(a, b, axes, weights):
    """Pearson's correlation over `axes`, where entries count by `weights`.

    It is 0, without a gradient, where one of the two does not vary by more than rounding.
    """
    total = ops.maximum(ops.sum(weights, axis=axes, keepdims=True), 1.0)
    centred = [
        weights * (p - ops.sum(weights * p, axis=axes, keepdims=True) / total) for p in (a, b)
    ]
    squares = [ops.sum(ops.square(p), axis=axes) for p in centred]
    varies = ops.logical_and(squares[0] > _FLAT, squares[1] > _FLAT)
    lengths = [ops.sqrt(ops.where(varies, square, 1.0)) for square in squares]
    product = ops.sum(centred[0] * centred[1], axis=axes)
    return ops.where(varies, product / (lengths[0] * lengths[1]), 0.0)


def _both_where_unmasked(teacher, student, mask):
    return zeros_where_masked(teacher, mask), zeros_where_masked(student, mask)
