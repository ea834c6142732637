"""Distillation losses on relations between samples: distances and angles."""

from keras import ops

from tfpeft.core.registration import register
from tfpeft.distillation.distillation_loss import DistillationLoss
from tfpeft.distillation.features import flatten, unit_vectors, zeros_where_masked


@register()
class RelationalDistance(DistillationLoss):
    """mean(huber(d_t - d_s)) over pairs, where d = ||f_i - f_j|| / (mean of these distances).

    Features are flattened to (batch, values); teacher and student may have different numbers of
    values. The Huber loss is that of delta 1.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationLoss`.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.RelationalDistance(weight=25.0), tfpeft.RelationalAngle(weight=50.0)]
    ```

    Reference: Park et al., "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        distances = [
            _relative_distances(flatten(zeros_where_masked(f, mask))) for f in (teacher, student)
        ]
        return ops.mean(_huber(distances[0] - distances[1]), axis=-1)


@register()
class RelationalAngle(DistillationLoss):
    """mean(huber(c_t - c_s)) over triplets, where c_ijk = cos of the angle at f_i, to f_j and f_k.

    Features are flattened to (batch, values); teacher and student may have different numbers of
    values. The Huber loss is that of delta 1. Memory grows with batch^3 and batch^2 * values: 128
    samples of 10 logits take 8 MB, of 4,096 features 270 MB.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationLoss`.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.RelationalDistance(weight=25.0), tfpeft.RelationalAngle(weight=50.0)]
    ```

    Reference: Park et al., "Relational Knowledge Distillation", 2019,
    https://arxiv.org/abs/1904.05068
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        cosines = [_cosines(flatten(zeros_where_masked(f, mask))) for f in (teacher, student)]
        return ops.mean(_huber(cosines[0] - cosines[1]), axis=(1, 2))


def _huber(difference):
    size = ops.abs(difference)
    return ops.where(size < 1.0, 0.5 * ops.square(size), size - 0.5)


def _relative_distances(rows):
    """Returns the distance of each pair of rows, divided by the mean distance; 0 to itself."""
    squares = ops.sum(ops.square(rows[None] - rows[:, None]), axis=-1)
    differ = squares > 0.0
    # The square root has no gradient at 0: such pairs are kept out of it, not multiplied by 0.
    distances = ops.where(differ, ops.sqrt(ops.where(differ, squares, 1.0)), 0.0)
    count = ops.sum(ops.cast(differ, rows.dtype))
    return ops.divide_no_nan(distances * count, ops.sum(distances))


def _cosines(rows):
    """Returns the cosine of the angle at row i between rows j and k, as [i, j, k]."""
    directions = unit_vectors(rows[None] - rows[:, None])
    return directions @ ops.transpose(directions, (0, 2, 1))
