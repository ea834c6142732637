"""The Distiller: a keras.Model that trains a student on labels and on teachers."""

import contextlib
import os
import threading
from collections.abc import Callable, Sequence

import keras
from keras import ops

from tfpeft.caching.frozen_model import as_frozen_model, frozen_outputs, inputs_of_models
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.core.arguments import InputError, check_name, invalid, unexpected
from tfpeft.core.hooks import recording
from tfpeft.core.layers import find_layer
from tfpeft.core.registration import register
from tfpeft.distillation.arguments import (
    as_distillation_losses,
    check_from_logits,
    check_schedule,
    check_weights,
    unique_names,
)
from tfpeft.distillation.comparison import Outputs, TeacherStudentPairs
from tfpeft.distillation.distillation_loss import DistillationLoss
from tfpeft.distillation.features import Projector
from tfpeft.distillation.output_kinds import check_nothing_shared, check_same_inputs, width_of
from tfpeft.distillation.training import StudentTraining

Teacher = keras.layers.Layer | str | os.PathLike | Callable
KerasOrTfpeftLoss = DistillationLoss | keras.distillation.DistillationLoss


@register()
class Distiller(StudentTraining):
    """Trains a student on labels and on the outputs of a teacher.

    The loss of a batch, with the loss of `compile` as `L_hard`:

    `L = alpha * L_hard + (1 - alpha) * sum_i weight_i * L_i + R`

    where L_i are the `distillation_losses`, by default the soft labels

    `T^2 * KL(softmax(z_t / T) || softmax(z_s / T))`

    of each output, z_t and z_s being the logits of teacher and student and T the temperature. Every
    distillation loss is averaged over the batch, weighted by `sample_weight`, and leaves masked
    positions out, as Keras does for its losses. R are the student's own regularization losses.

    The distiller is a `keras.Model`: `compile`, `fit`, `evaluate`, `predict` and saving work as
    for the student alone, and metrics are the student's; the logs also have `hard_loss` and each
    distillation loss before its weight. The teacher runs with training=False, once per step, and
    is not changed: neither its weights, nor BatchNorm's statistics, nor `trainable`.
    `distiller.student` is the trained model.

    With several teachers, losses on classes use the mean of the softened probabilities, losses on
    other outputs the mean of the outputs. A batch of `precompute(...).join(data)` contains the
    teacher's outputs, and no teacher runs. Validation data without them, for a distiller without
    teachers, is measured by L_hard + R alone.

    `alpha` and `temperature` are traced: a change takes effect after the next `compile`.

    What it does not give: accuracy beyond the student's capacity; in a custom training loop,
    losses on the student's layers cost a second forward pass of the student
    (`distiller.train_step(batch)` does not).

    Args:
        teacher: A built `keras.Model`; a layer such as `TFSMLayer`; the path of a .tflite file of
            one output; a function of a batch; a list of these; or None, if the data contains
            the teacher's outputs. A dict of inputs reaches teachers and student by name, and each
            may take some of them; a list reaches all by position.
        student: A `keras.Model` of one output or a dict or list of outputs: classes on the last
            axis of (batch, ..., classes), or numbers. Outputs of teacher and student are matched
            by key or layer name; lists without common names by position.
        alpha: Weight of the labels in [0, 1]; with 0 the student learns from the teacher alone,
            and neither labels nor a loss are needed. A number, or a function of the training step,
            such as a `keras.optimizers.schedules.LearningRateSchedule`.
        temperature: T > 0; above 1 the teacher's small probabilities count more. A number or a
            function of the training step, as for `alpha`. Values of a function are clipped: alpha
            to [0, 1], T to 0.1 and above.
        distillation_losses: A list of `SoftLabels`, `BinarySoftLabels`, `SquaredError`,
            `DecoupledKD`, `DIST`, `FeatureMatching`, `AttentionTransfer`, `SimilarityPreserving`,
            `RelationalDistance`, `RelationalAngle`, custom `DistillationLoss`es, losses of
            `keras.distillation`, or pairs of a loss and a factor of its weight. None for soft
            labels: `BinarySoftLabels` of outputs that end in a sigmoid, `SoftLabels` of others.
        teacher_weights: Weights > 0 of several teachers; None for equal ones.
        teacher_from_logits: Whether the teacher returns logits (True) or probabilities (False).
            None recognizes it by the last activation, of functional and Sequential models and of
            .tflite files that end in a softmax. A list has an entry per teacher.
        student_from_logits: The same of the student.
        name: The model's name.

    Raises:
        InputError: for arguments out of range, models of different inputs, outputs or classes,
            layers that do not exist (similar names are listed), and outputs that are not
            recognized as logits or probabilities; in `fit` and `evaluate` for labels that cannot
            be used, and for NaN or infinity in what a teacher returns, before weights change.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    distiller = tfpeft.Distiller(teacher, student, alpha=0.1, temperature=4.0)
    distiller.compile(
        optimizer="adam",
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    distiller.fit(x, y, verbose=0)
    distiller.student.predict(x, verbose=0)
    ```

    Reference: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015,
    https://arxiv.org/abs/1503.02531
    """

    def __init__(
        self,
        teacher: Teacher | Sequence[Teacher] | None,
        student: keras.Model,
        *,
        alpha: float | Callable = 0.1,
        temperature: float | Callable = 4.0,
        distillation_losses: Sequence[KerasOrTfpeftLoss | tuple[KerasOrTfpeftLoss, float]]
        | None = None,
        teacher_weights: Sequence[float] | None = None,
        teacher_from_logits: bool | Sequence[bool | None] | None = None,
        student_from_logits: bool | None = None,
        name: str | None = None,
    ):
        check_name(name)
        super().__init__(name=name)
        is_list = isinstance(teacher, (list, tuple))
        teachers = list(teacher) if is_list else [] if teacher is None else [teacher]
        if is_list and not teachers:
            raise invalid("teacher", "at least one teacher in the list", teacher)
        if not isinstance(student, keras.Model):
            raise invalid("student", "a keras.Model", student)
        if any(each is student for each in teachers):
            raise invalid("student", "another model than the teacher", student)
        self.alpha = check_schedule("alpha", alpha, 0.0, 1.0, "a number in [0, 1]")
        self.temperature = check_schedule(
            "temperature", temperature, 1e-6, 1e6, "a positive number"
        )
        self.teachers = [as_frozen_model(each, "teacher") for each in teachers]
        self.student = student
        self.teacher_weights = check_weights(teacher_weights, teachers)
        self.teacher_from_logits = check_from_logits("teacher_from_logits", teacher_from_logits)
        self.student_from_logits = check_from_logits("student_from_logits", student_from_logits)
        for each in self.teachers:
            check_same_inputs(each, student)
            check_nothing_shared(each, student)
        self.distillation_losses = as_distillation_losses(distillation_losses, student)
        self.projectors = [
            Projector() if loss.match_widths else None for loss in self.distillation_losses
        ]
        self._pairs = TeacherStudentPairs(
            self.teachers,
            student,
            teacher_weights=self.teacher_weights,
            teacher_from_logits=self.teacher_from_logits,
            student_from_logits=self.student_from_logits,
        )
        self._check_layers()
        for loss in self.distillation_losses:
            self._pairs.check(loss)
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        names = unique_names(loss.name for loss in self.distillation_losses)
        self._distillation_trackers = [keras.metrics.Mean(name=each) for each in names]
        self._step = threading.local()
        if self.student.built and self._teachers_are_built:
            self._build_projectors()

    @property
    def teacher(self) -> keras.layers.Layer | list | None:
        """The teacher as a layer; a list of several; None if the data contains its outputs."""
        return self.teachers[0] if len(self.teachers) == 1 else self.teachers or None

    @property
    def _teachers_are_built(self):
        return all(teacher.built for teacher in self.teachers)

    @property
    def _teacher_layers(self):
        return sorted({loss.teacher_layer for loss in self.distillation_losses} - {None})

    @property
    def _student_layers(self):
        return sorted({loss.student_layer for loss in self.distillation_losses} - {None})

    def _check_layers(self):
        """Raises early for names of layers that built models do not have."""
        if self.student.built:
            for name in self._student_layers:
                find_layer([self.student], name, "student_layer")
        if self.teachers and self._teachers_are_built:
            for name in self._teacher_layers:
                find_layer(self.teachers, name, "teacher_layer")

    def _build_projectors(self):
        """Builds the projections whose widths are known before there is data.

        The others are built with the first batch: until then the model does not count as built,
        and `get_build_config` holds their widths.
        """
        self.built = True
        for loss, projector in zip(self.distillation_losses, self.projectors, strict=True):
            if projector is None:
                continue
            widths = [
                width_of([self.student], loss.student_layer),
                width_of(self.teachers, loss.teacher_layer),
            ]
            if None in widths:
                self.built = False
            elif widths[0] != widths[1]:
                projector.build_between(*widths)

    def build(self, input_shape=None):
        if isinstance(input_shape, PrecomputedInputs):
            input_shape = input_shape.inputs
        if not self.student.built:
            self.student.build(input_shape)
        self.built = True

    @property
    def output_names(self):
        return getattr(self.student, "output_names", None)

    def call(self, inputs, training=None):
        return self.student(self._inputs(inputs)[0], training=training)

    def check_inputs(self, x):
        self._inputs(x)

    def _inputs(self, x):
        """Returns the inputs of the student and of each teacher."""
        inputs, precomputed = PrecomputedInputs.split(x)
        # Precomputed outputs may be those of a teacher with more inputs.
        may_have_more = precomputed is not None or not self.teachers
        models = [self.student, *(() if precomputed is not None else self.teachers)]
        return inputs_of_models(models, inputs, may_have_more=may_have_more)

    def train_step(self, data):
        with self._recording_student():
            return super().train_step(data)

    def test_step(self, data):
        with self._recording_student():
            return super().test_step(data)

    @contextlib.contextmanager
    def _recording_student(self):
        layers = {
            name: find_layer([self.student], name, "student_layer") for name in self._student_layers
        }
        with recording(layers) as features:
            self._step.features = features
            try:
                yield
            finally:
                self._step.features = None

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        inputs, precomputed = PrecomputedInputs.split(x)
        samples = ops.shape(keras.tree.flatten(inputs)[0])[0]
        regularization = sum(self._aggregate_additional_loss(loss) for loss in self.losses)
        y, sample_weight = self.match(y, y_pred, sample_weight)
        hard = self.hard_loss(y, y_pred, sample_weight)
        self._track(self._hard_tracker, hard, samples)
        if precomputed is None and not self.teachers:
            if training:
                raise InputError(
                    "Received `teacher=None` and data without a teacher's outputs, expected data "
                    "of `precompute(teacher, data).join(data)`, or a teacher."
                )
            return hard + regularization
        student = Outputs(y_pred, self._student_features(x, training))
        teacher, is_finite = self._teacher_outputs(x, precomputed)
        temperature = self._current_value(self.temperature, 0.1, None)
        soft = 0.0
        for loss, projector, tracker in zip(
            self.distillation_losses, self.projectors, self._distillation_trackers, strict=True
        ):
            value = self._pairs.value(
                loss, projector, teacher, student, y, sample_weight, temperature
            )
            self._track(tracker, value, samples)
            soft += loss.weight * value
        alpha = self._current_value(self.alpha, 0.0, 1.0)
        loss = alpha * hard + (1.0 - alpha) * soft + regularization
        return loss if is_finite is True else ops.where(is_finite, loss, ops.zeros_like(loss))

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        if not self.teachers and PrecomputedInputs.split(x)[1] is None:
            for tracker in self._distillation_trackers:  # no distillation loss was computed
                results.pop(tracker.name, None)
        return results

    def _student_features(self, x, training):
        features = getattr(self._step, "features", None)
        if features or not self._student_layers:
            return features
        with self._recording_student():
            self(x, training=training)
            return self._step.features

    def _teacher_outputs(self, x, precomputed):
        """Returns the teachers' `Outputs`, and whether they are finite; see `TeacherCheck`."""
        if precomputed is None:
            xs = self._inputs(x)[1:]
            outputs = Outputs(
                *frozen_outputs(self.teachers, xs, self._teacher_layers, "teacher_layer")
            )
        else:
            outputs = Outputs(precomputed["outputs"], precomputed.get("features", {}))
            if self.teachers and len(self.teachers) != len(outputs.outputs):
                raise unexpected(
                    f"outputs of {len(self.teachers)} teachers in the data, as the Distiller has",
                    len(outputs.outputs),
                )
        outputs = keras.tree.map_structure(ops.stop_gradient, outputs)
        return self._teacher_check.checked(outputs, self.jit_compile)

    def _track(self, tracker, value, samples):
        # The value is a replica's share of the batch's.
        replicas = self.distribute_strategy.num_replicas_in_sync
        tracker.update_state(value * replicas, sample_weight=samples)

    def _current_value(self, schedule, smallest, largest):
        if not callable(schedule):
            return schedule
        step = 0 if self.optimizer is None else self.optimizer.iterations
        dtype = keras.config.floatx()
        value = ops.maximum(ops.cast(schedule(ops.cast(step, dtype)), dtype), smallest)
        return value if largest is None else ops.minimum(value, largest)

    # The teachers are layers of this model, so that they are saved with it; but they are not
    # trained, and their regularization losses are not the student's.

    @property
    def trainable_variables(self):
        projections = [v for each in self.projectors if each for v in each.trainable_variables]
        return self.student.trainable_variables + projections

    @property
    def trainable_weights(self):
        return self.trainable_variables

    @property
    def non_trainable_variables(self):
        trained = {id(variable) for variable in self.trainable_variables}
        return [variable for variable in self.variables if id(variable) not in trained]

    @property
    def losses(self):
        return self.student.losses

    def get_build_config(self):
        return {"projectors": [each and each.widths for each in self.projectors]}

    def build_from_config(self, config):
        for projector, widths in zip(self.projectors, config["projectors"], strict=True):
            if widths:
                projector.build_between(*widths)
        self.built = True

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        schedules = {"alpha": self.alpha, "temperature": self.temperature}
        return {
            "teacher": serialize(self.teacher),
            "student": serialize(self.student),
            **{k: serialize(v) if callable(v) else v for k, v in schedules.items()},
            "distillation_losses": [serialize(loss) for loss in self.distillation_losses],
            "teacher_weights": self.teacher_weights,
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        if "losses" in config:  # the name of the argument until version 0.1.0
            config["distillation_losses"] = config.pop("losses")
        for key in ("teacher", "student", "alpha", "temperature", "distillation_losses"):
            config[key] = keras.saving.deserialize_keras_object(
                config[key], custom_objects=custom_objects
            )
        return cls(**config)
