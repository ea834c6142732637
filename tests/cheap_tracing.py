"""Short trainings, evaluations and predictions in half of the time, for tests."""

import keras
import tensorflow as tf


def apply(set_attribute=setattr):
    """Makes short runs of models cheap.

    TensorFlow traces a step a second time if the first trace created variables: those of the
    optimizer, which Keras leaves to that trace unless a strategy distributes the model. And it
    optimizes each graph that it runs, which pays in long trainings only. `predict` and `evaluate`
    trace each model anew: for a few batches of a model whose class is Keras's, this takes longer
    than to run it operation by operation.

    Args:
        set_attribute: What sets an attribute, as `MonkeyPatch.setattr`.
    """
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    make_train_function = keras.Model.make_train_function

    def build_optimizer_first(self, force=False):
        if self.built and self.optimizer is not None and not self.optimizer.built:
            self.optimizer.build(self.trainable_variables)
        return make_train_function(self, force)

    set_attribute(keras.Model, "make_train_function", build_optimizer_first)
    for name in ("make_test_function", "make_predict_function"):
        set_attribute(keras.Model, name, _without_a_graph(getattr(keras.Model, name)))


def _without_a_graph(make_function):
    def make(self, force=False):
        as_compiled = self.run_eagerly
        if type(self).__module__.startswith("keras.") and not tf.distribute.has_strategy():
            self.run_eagerly = True
        try:
            return make_function(self, force)
        finally:
            self.run_eagerly = as_compiled

    return make
