"""Distillation losses on features of two layers: values, attention maps, similarities."""

from keras import ops

from tfpeft.core.arguments import unexpected
from tfpeft.core.registration import register
from tfpeft.distillation.distillation_loss import DistillationLoss, squared_error
from tfpeft.distillation.features import flatten, same_positions, unit_vectors, zeros_where_masked


@register()
class FeatureMatching(DistillationLoss):
    """The hints of FitNets: mean((t - P s)^2) of the features of two layers.

    P is the identity, or where the numbers of channels differ, a linear layer that is trained
    with the student and discarded after training. Where positions differ, the longer axis is
    averaged onto the shorter one; features without positions, (batch, channels), are compared
    with averages over positions.

    Arguments and errors: see `DistillationLoss`.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.FeatureMatching(teacher_layer="conv_3", student_layer="conv_2", weight=0.5)]
    ```

    Reference: Romero et al., "FitNets: Hints for Thin Deep Nets", 2015,
    https://arxiv.org/abs/1412.6550
    """

    match_widths = True
    uses = ("mask",)

    def call(self, teacher, student, mask):
        teacher, student, mask = same_positions(teacher, student, mask)
        values = squared_error(teacher, student)
        if mask is not None:
            values._keras_mask = mask
        return values


@register()
class AttentionTransfer(DistillationLoss):
    """mean((a_t - a_s)^2) over positions, where a = v / ||v|| and v = mean(f^2) over channels.

    The features f are maps (batch, positions..., channels) of any number of channels; their
    positions are matched as in `FeatureMatching`. Weights of the paper: 500 and more, as the
    squares of normalized maps are small.

    Arguments and errors: see `DistillationLoss`.

    Example:

    ```python
    import tfpeft

    losses = [
        tfpeft.AttentionTransfer(teacher_layer="conv_3", student_layer="conv_2", weight=500.0)
    ]
    ```

    Reference: Zagoruyko & Komodakis, "Paying More Attention to Attention", 2017,
    https://arxiv.org/abs/1612.03928
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        if len(teacher.shape) < 3 or len(student.shape) < 3:
            raise unexpected(
                f"features with positions for {self.name}, (batch, positions..., channels)",
                f"teacher {tuple(teacher.shape)}, student {tuple(student.shape)}",
            )
        teacher, student, mask = same_positions(teacher, student, mask)
        maps = [
            unit_vectors(flatten(ops.mean(ops.square(zeros_where_masked(f, mask)), axis=-1)))
            for f in (teacher, student)
        ]
        values = squared_error(*maps)
        if mask is None:
            return values
        count = ops.sum(ops.cast(mask, values.dtype), axis=-1)
        return ops.divide_no_nan(values * mask.shape[-1], count)


@register()
class SimilarityPreserving(DistillationLoss):
    """||G_t - G_s||_F^2 / batch^2, where G = F F^T with rows of length 1, and F the features.

    Features are flattened to (batch, values); teacher and student may have different numbers of
    values. Weights of the paper: a few thousand.

    What it does not give: relations of samples on different replicas of a strategy.

    Arguments and errors: see `DistillationLoss`.

    Example:

    ```python
    import tfpeft

    losses = [tfpeft.SimilarityPreserving(teacher_layer="flatten", student_layer="flatten")]
    ```

    Reference: Tung & Mori, "Similarity-Preserving Knowledge Distillation", 2019,
    https://arxiv.org/abs/1907.09682
    """

    uses = ("mask",)

    def call(self, teacher, student, mask):
        rows = [flatten(zeros_where_masked(f, mask)) for f in (teacher, student)]
        return squared_error(*(unit_vectors(f @ ops.transpose(f)) for f in rows))
