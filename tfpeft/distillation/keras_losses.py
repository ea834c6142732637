"""Losses of `keras.distillation` as distillation losses of a Distiller, with the right formulas."""

import keras
from keras import ops

from tfpeft.core.arguments import invalid
from tfpeft.core.registration import register
from tfpeft.distillation.distillation_loss import DistillationLoss, LogitsLoss, check_shapes
from tfpeft.distillation.logits_losses import SoftLabels


def from_keras(loss, weight=1.0):
    """Returns the distillation losses that a `keras.distillation.DistillationLoss` stands for.

    `LogitsDistillation` is `SoftLabels` at its temperature, where its loss is the KL divergence:
    by its default Keras takes KL of raw logits, without softmax and T^2. A structure of losses
    becomes a distillation loss per output that has a loss.
    """
    layers = {
        "teacher_layer": getattr(loss, "teacher_layer_name", None),
        "student_layer": getattr(loss, "student_layer_name", None),
    }
    if _computes_as(loss, keras.distillation.LogitsDistillation):

        def convert(formula, output):
            options = {"temperature": loss.temperature, "weight": weight, "output": output}
            is_kl = isinstance(formula, keras.losses.KLDivergence)
            if is_kl or formula is keras.losses.kl_divergence:
                return SoftLabels(**options)
            return KerasLogits(loss=formula, **options)

    elif _computes_as(loss, keras.distillation.FeatureDistillation):

        def convert(formula, output):
            return KerasFeatures(loss=formula, weight=weight, output=output, **layers)

    elif isinstance(loss, keras.distillation.DistillationLoss):
        return [KerasLoss(loss=loss, weight=weight, **layers)]
    else:
        expected = "losses of tfpeft or of keras.distillation, or pairs of a loss and its weight"
        raise invalid("distillation_losses", expected, loss)
    formulas = loss.loss
    if isinstance(formulas, (list, tuple)):
        formulas = dict(enumerate(formulas))
    if isinstance(formulas, dict):
        return [convert(each, output) for output, each in formulas.items() if each is not None]
    return [convert(formulas, None)]


class _SavesLoss:
    """Saves and restores the Keras object or function that a distillation loss computes with."""

    def get_config(self):
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@register()
class KerasLogits(_SavesLoss, LogitsLoss):
    """A loss of `keras.distillation.LogitsDistillation` that tfpeft has no class for.

    Crossentropies take softened probabilities of the teacher, and are multiplied by T^2; other
    losses, such as a squared error, compare z_t / T and z_s / T as Keras does.
    """

    def __init__(self, *, loss, temperature=None, weight=1.0, output=None, name=None):
        super().__init__(temperature=temperature, weight=weight, output=output, name=name)
        self.loss = loss

    def call(self, teacher, student):
        options = {}
        if isinstance(self.loss, keras.losses.CategoricalCrossentropy):
            options = self.loss.get_config()
        elif self.loss is not keras.losses.categorical_crossentropy:
            return _unreduced(self.loss)(teacher, student) / self.temperature**2
        crossentropy = keras.losses.CategoricalCrossentropy(**{**options, "from_logits": True})
        return crossentropy.call(ops.softmax(teacher, axis=-1), student)


class _OnLayers(_SavesLoss, DistillationLoss):
    """A loss of Keras between two layers or outputs."""

    def __init__(
        self,
        *,
        loss,
        weight=1.0,
        teacher_layer=None,
        student_layer=None,
        output=None,
        name=None,
    ):
        super().__init__(
            weight=weight,
            teacher_layer=teacher_layer,
            student_layer=student_layer,
            output=output,
            name=name,
        )
        self.loss = loss


@register()
class KerasFeatures(_OnLayers):
    """`keras.distillation.FeatureDistillation`: its loss between two layers or outputs."""

    def call(self, teacher, student):
        check_shapes(teacher, student)
        return _unreduced(self.loss)(teacher, student)


@register("KerasTerm")
class KerasLoss(_OnLayers):
    """Any other `keras.distillation.DistillationLoss`: the value of its `compute_loss`.

    It is one number per batch; sample weights count by their mean.
    """

    def call(self, teacher, student):
        value = ops.mean(self.loss.compute_loss(teacher, student))
        return ops.broadcast_to(value, (ops.shape(student)[0],))


def _unreduced(loss):
    """Returns the function of a loss that has values (batch, ...), without their mean."""
    return loss.call if isinstance(loss, keras.losses.Loss) else loss


def _computes_as(loss, kind):
    return isinstance(loss, kind) and type(loss).compute_loss is kind.compute_loss
