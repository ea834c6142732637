"""A loss and a metric for training that Keras does not have: of sigmoids, and of labels' logits."""

import keras

from tfpeft.core.labels import are_class_numbers


@keras.saving.register_keras_serializable(package="tfpeft")
def sigmoid_crossentropy(y, outputs):
    """Returns the binary cross-entropy of each class against the others, of a sigmoid per class.

    Args:
        y: Class numbers (samples,) or (samples, 1), or one-hot rows.
        outputs: Sigmoids (samples, classes).
    """
    if are_class_numbers(y, outputs):
        y = keras.ops.one_hot(keras.ops.reshape(y, (-1,)), outputs.shape[-1])
    return keras.losses.binary_crossentropy(y, outputs)


@keras.saving.register_keras_serializable(package="tfpeft")
class LabelF1(keras.metrics.F1Score):
    """F1 of all labels together (micro), of rows of 0 and 1.

    Args:
        from_logits: Whether outputs are logits, which Keras's metric does not take.
        name, dtype: As of Keras.
    """

    def __init__(self, from_logits=False, name="f1", dtype=None):
        super().__init__(average="micro", threshold=0.5, name=name, dtype=dtype)
        self.from_logits = from_logits
        if from_logits:
            self.threshold = 0.0

    def get_config(self):
        return {"from_logits": self.from_logits, "name": self.name, "dtype": self.dtype}
