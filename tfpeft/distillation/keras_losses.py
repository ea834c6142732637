"""Losses of `keras.distillation` as terms of a Distiller, computed right."""

import keras
from keras import ops

from tfpeft.core.arguments import invalid
from tfpeft.distillation.losses import (
    DistillationTerm,
    LogitsTerm,
    SoftLabels,
    check_shapes,
)


def as_terms(loss, weight=1.0):
    """Returns the terms that a `keras.distillation.DistillationLoss` stands for.

    `LogitsDistillation` is `SoftLabels` at its temperature, where its loss is the KL divergence:
    by its default Keras takes KL of raw logits, without softmax and T^2. Losses given as a
    structure are a term for each output that has one.
    """
    layers = {
        "teacher_layer": getattr(loss, "teacher_layer_name", None),
        "student_layer": getattr(loss, "student_layer_name", None),
    }
    if _computes_as(loss, keras.distillation.LogitsDistillation):

        def make(each, output):
            options = {"temperature": loss.temperature, "weight": weight, "output": output}
            if isinstance(each, keras.losses.KLDivergence) or each is keras.losses.kl_divergence:
                return SoftLabels(**options)
            return KerasLogits(loss=each, **options)

    elif _computes_as(loss, keras.distillation.FeatureDistillation):

        def make(each, output):
            return KerasFeatures(loss=each, weight=weight, output=output, **layers)

    elif isinstance(loss, keras.distillation.DistillationLoss):
        return [KerasTerm(loss=loss, weight=weight, **layers)]
    else:
        expected = "terms of tfpeft or of keras.distillation, or pairs of one and its weight"
        raise invalid("losses", expected, loss)
    losses = loss.loss
    if isinstance(losses, (list, tuple)):
        losses = dict(enumerate(losses))
    if isinstance(losses, dict):
        return [make(each, output) for output, each in losses.items() if each is not None]
    return [make(losses, None)]


class _HoldsLoss:
    """Saves and restores the Keras object or function that a term computes with."""

    def get_config(self):
        return {**super().get_config(), "loss": keras.saving.serialize_keras_object(self.loss)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "loss": keras.saving.deserialize_keras_object(config["loss"])})


@keras.saving.register_keras_serializable(package="tfpeft")
class KerasLogits(_HoldsLoss, LogitsTerm):
    """A loss of `keras.distillation.LogitsDistillation` for which there is no class here.

    Crossentropies get probabilities of the teacher, softened, and T^2; others, such as a squared
    error, compare z_t / T and z_s / T as Keras does.
    """

    def __init__(self, *, loss, **options):
        super().__init__(**options)
        self.loss = loss

    def call(self, teacher, student):
        options = {}
        if isinstance(self.loss, keras.losses.CategoricalCrossentropy):
            options = self.loss.get_config()
        elif self.loss is not keras.losses.categorical_crossentropy:
            return _function(self.loss)(teacher, student) / self.temperature**2
        crossentropy = keras.losses.CategoricalCrossentropy(**{**options, "from_logits": True})
        return crossentropy.call(ops.softmax(teacher, axis=-1), student)


@keras.saving.register_keras_serializable(package="tfpeft")
class KerasFeatures(_HoldsLoss, DistillationTerm):
    """`keras.distillation.FeatureDistillation`: its loss between two layers or outputs."""

    def __init__(self, *, loss, **options):
        super().__init__(**options)
        self.loss = loss

    def call(self, teacher, student):
        check_shapes(teacher, student)
        return _function(self.loss)(teacher, student)


@keras.saving.register_keras_serializable(package="tfpeft")
class KerasTerm(_HoldsLoss, DistillationTerm):
    """Any other `keras.distillation.DistillationLoss`: what its `compute_loss` says.

    It is one number for the batch; sample weights count by their mean.
    """

    def __init__(self, *, loss, **options):
        super().__init__(**options)
        self.loss = loss

    def call(self, teacher, student):
        value = ops.mean(self.loss.compute_loss(teacher, student))
        return ops.broadcast_to(value, (ops.shape(student)[0],))


def _function(loss):
    """Returns values (batch, ...) of a loss, which may be an object that averages them."""
    return loss.call if isinstance(loss, keras.losses.Loss) else loss


def _computes_as(loss, kind):
    return isinstance(loss, kind) and type(loss).compute_loss is kind.compute_loss
