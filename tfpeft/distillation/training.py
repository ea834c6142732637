"""Training of a student: `compile` and labels by its outputs, L_hard, and checks that XLA keeps."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import are_class_weights, invalid, is_weight, unexpected
from tfpeft.core.graph import output_tensor, outputs_by_key
from tfpeft.core.labels import (
    check_form,
    is_binary,
    is_loss,
    is_metric,
    named_by_shapes,
    range_checks,
)
from tfpeft.core.training import CheckedModel
from tfpeft.distillation.output_matching import OutputNames, by_output, match_labels
from tfpeft.distillation.teacher_check import TeacherCheck


class StudentTraining(CheckedModel):
    """The base of `Distiller`: what does not depend on a teacher.

    A subclass has the attributes `student` and `alpha`.
    """

    def __init__(self, *, name):
        super().__init__(name=name)
        self._teacher_check = TeacherCheck()
        self._hard_losses = self._measured = None  # by output, as `compile` got them

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        **options,
    ) -> None:
        """As of `keras.Model`; for several outputs a dict may leave outputs out.

        Args:
            optimizer: As of Keras, or a sparse one.
            loss: L_hard: a loss, or a list or dict of one per output.
            loss_weights: A list or dict of a number per output.
            metrics: Metrics of the student.
            weighted_metrics: The same, of metrics that use sample and class weights.
            **options: Further arguments of `keras.Model.compile`.

        Raises:
            InputError: for outputs that the student does not have, and what is not a loss, a
                weight or a metric.
        """
        known = OutputNames.of(self.student)
        _check_each("loss", loss, is_loss, "a loss, a function, or the name of a loss in Keras")
        _check_each("loss_weights", loss_weights, is_weight, "a number >= 0 per output")
        for name, value in (("metrics", metrics), ("weighted_metrics", weighted_metrics)):
            if value is not None and not isinstance(value, (dict, list, tuple)):
                raise invalid(name, "a list or dict of metrics", value)
            _check_each(name, value, is_metric, "metrics, functions, or names of Keras's metrics")
        self._hard_losses = by_output("loss", loss, known)
        metrics = by_output("metrics", metrics, known)
        weighted_metrics = by_output("weighted_metrics", weighted_metrics, known)
        self._measured = [metrics, weighted_metrics]
        super().compile(
            optimizer=optimizer,
            loss=self._hard_losses,
            loss_weights=by_output("loss_weights", loss_weights, known),
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **options,
        )
        if self.jit_compile:
            self._teacher_check.prepare()

    def fit(self, x=None, y=None, *args, class_weight: dict[int, float] | None = None, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: for a student without a weight to train; for data that is empty or does not
                end; for labels, or outputs of the teacher, that cannot be used; for a
                `class_weight` other than {class number: weight}, for classes of the only output.
        """
        self._check_class_weight(class_weight)
        if self.student.built and not self.student.trainable_variables:
            expected = "a student with weights to train"
            raise unexpected(expected, f"{self.student.name!r}, of which none is trainable")
        return super().fit(x, y, *args, class_weight=class_weight, **kwargs)

    def _check_class_weight(self, class_weight):
        if class_weight is None:
            return
        known = OutputNames.of(self.student)
        if known is not None and len(known.keys) > 1:
            expected = "None for a student of several outputs; `sample_weight` may have one of each"
            raise invalid("class_weight", expected, class_weight)
        if not are_class_weights(class_weight):
            raise invalid("class_weight", "{class number: weight >= 0}", class_weight)
        output = output_tensor(self.student, None)
        width = None if output is None else output.shape[-1]
        classes = 2 if width == 1 else width
        if classes is not None and any(number >= classes for number in class_weight):
            raise invalid("class_weight", f"class numbers from 0 to {classes - 1}", class_weight)

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    def make_train_function(self, force=False):
        is_new = self.train_function is None or force
        super().make_train_function(force)
        if is_new and self.jit_compile:
            self.train_function = self._raising(self.train_function)

    def make_test_function(self, force=False):
        is_new = self.test_function is None or force
        super().make_test_function(force)
        if is_new and self.jit_compile:
            self.test_function = self._raising(self.test_function)

    def _raising(self, function):
        """Returns a function of Keras that raises what its compiled steps have recorded."""

        def run(iterator):
            logs = function(iterator)
            self._teacher_check.raise_recorded()
            return logs

        return run

    def match(self, y, y_pred, sample_weight):
        """Returns labels and sample weights in the structure of the outputs, None where missing."""
        known = OutputNames.of(self.student, y_pred)
        y = match_labels(y, y_pred, known, "labels")
        return y, match_labels(sample_weight, y_pred, known, "sample weights")

    def hard_loss(self, y, y_pred, sample_weight):
        """Returns L_hard of labels and weights that `match` returned."""
        if y is None or self._compile_loss is None:
            if self.alpha == 0.0:
                return ops.zeros(())
            missing = "labels in the data" if y is None else "a `loss` in compile"
            raise unexpected(f"{missing}, or alpha=0", f"alpha={self.alpha}")
        checks = []
        outputs, labels = outputs_by_key(y_pred), outputs_by_key(y)
        for output, loss in _by_key(self._hard_losses, outputs).items():
            if loss is None:
                continue
            where = "the student" if output is None else f"the output {output!r}"
            if labels[output] is None:
                raise unexpected(f"labels for {where}, which has a loss", "none")
            pair = labels[output], outputs[output]
            loss = named_by_shapes(loss, *pair)
            check_form(*pair, loss, where)
            # Labels of weight 0 may be out of range.
            if not self.jit_compile and not (is_binary(loss) and sample_weight is not None):
                checks += range_checks(*pair, loss, where, may_be_missing=False)
        with tf.control_dependencies(checks):
            y_pred = keras.tree.map_structure(_identity, y_pred)
        return self._compile_loss(*self._filled(y, y_pred, sample_weight))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, sample_weight = self.match(y, y_pred, sample_weight)
        if y is not None:
            outputs, labels = outputs_by_key(y_pred), outputs_by_key(y)
            for metrics in self._measured or ():
                for output, metric in _by_key(metrics, outputs).items():
                    if metric and labels[output] is None:
                        raise unexpected(f"labels for the output {output!r}, with metrics", "none")
            y, y_pred, sample_weight = self._filled(y, y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _filled(self, y, y_pred, sample_weight):
        """Returns them without None, as Keras reads what it does not use."""
        is_nested = isinstance(y_pred, (dict, list, tuple))
        if is_nested:
            y = keras.tree.map_structure(lambda a, b: b if a is None else a, y, y_pred)
        if is_nested and isinstance(sample_weight, (dict, list, tuple)):
            sample_weight = keras.tree.map_structure(
                lambda weight, b: ops.ones(ops.shape(b)[:1]) if weight is None else weight,
                sample_weight,
                y_pred,
            )
        return y, y_pred, sample_weight


def _by_key(values, outputs):
    """Returns {key of the output: value} of an argument that `by_output` returned."""
    if list(outputs) == [None]:
        return {None: values if not isinstance(values, dict) else next(iter(values.values()))}
    if isinstance(values, (list, tuple)) and len(values) == len(outputs):
        return dict(zip(outputs, values, strict=True))
    if isinstance(values, dict):
        return {key: values.get(key) for key in outputs}
    return dict.fromkeys(outputs, values)


def _identity(tensor):
    """Returns a tensor with its mask, computed after the control dependencies."""
    copy = tf.identity(tensor)
    if getattr(tensor, "_keras_mask", None) is not None:
        copy._keras_mask = tensor._keras_mask
    return copy


def _check_each(name, values, is_valid, expected):
    for value in keras.tree.flatten(values):
        if value is not None and not is_valid(value):
            raise invalid(name, expected, value)
