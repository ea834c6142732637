"""Knowledge distillation: a student learns from labels and from a teacher."""

import contextlib
import threading

import keras
from keras import ops

from tfpeft.caching import frozen_model
from tfpeft.caching.precompute import Taught
from tfpeft.core.arguments import invalid
from tfpeft.core.graph import output_keys, outputs_by_key
from tfpeft.core.hooks import mask_of, recording
from tfpeft.core.layers import find_layer
from tfpeft.distillation import arguments
from tfpeft.distillation.features import Projector
from tfpeft.distillation.output_kinds import (
    check_nothing_shared,
    check_same_classes,
    check_same_inputs,
    from_logits,
    width_of,
)


@keras.saving.register_keras_serializable(package="tfpeft")
class Distiller(keras.Model):
    """Trains a student on labels and on what a teacher answers.

    The loss of a batch, with the loss of `compile` as `L_hard`:

    `L = alpha * L_hard + (1 - alpha) * sum_i weight_i * L_i + R`

    where L_i are the terms of `losses`, by default the soft labels

    `T^2 * KL(softmax(z_t / T) || softmax(z_s / T))`

    of each output, z_t and z_s being the logits of teacher and student and T the temperature. Every
    term is averaged over the batch, weighted by `sample_weight`, and leaves masked positions out,
    as Keras does for its losses. R are the student's own regularization losses.

    The distiller is a `keras.Model`: `compile`, `fit`, `evaluate`, `predict` and saving work as
    for the student alone, and metrics are the student's; the logs also tell `hard_loss` and each
    term before its weight. The teacher runs with training=False, once a step, and is not changed:
    neither its weights, nor BatchNorm's statistics, nor `trainable`. `distiller.student` is the
    trained model.

    Of several teachers, terms on classes see the mean of the softened probabilities, terms on other
    outputs the mean of the outputs. A batch that comes from `precompute(...).join(data)` brings
    the teacher's answers with it, and no teacher runs; validation data without answers, for a
    distiller without teachers, is measured by L_hard + R alone.

    `alpha` and `temperature` are traced: set on the distiller later, they count after the next
    `compile`.

    What it does not give: a student that is never better than its capacity allows; in a training
    loop of one's own, terms on the student's layers cost a second forward pass of the student
    (`distiller.train_step(batch)` does not).

    Args:
        teacher: A built `keras.Model`; a layer such as `TFSMLayer`; the path of a .tflite file of
            one input and one output; a function of a batch; a list of these; or None, where the
            data holds what it answers. It takes the same inputs as the student.
        student: A `keras.Model` of one output or a dict or list of them, classes on the last axis
            of (batch, ..., classes), or numbers.
        alpha: Weight of the labels in [0, 1]; 0 learns from the teacher alone, and then needs
            neither labels nor a loss. A number, or a function of the training step, such as a
            `keras.optimizers.schedules.LearningRateSchedule`.
        temperature: T > 0; above 1 the teacher's small probabilities count more. A number or a
            function of the training step, as for `alpha`. What a function answers is brought into
            range: alpha into [0, 1], T to 0.1 and above.
        losses: Terms: `SoftLabels`, `BinarySoftLabels`, `SquaredError`, `DecoupledKD`, `DIST`,
            `FeatureMatching`, `AttentionTransfer`, `SimilarityPreserving`, `RelationalDistance`,
            `RelationalAngle`, a `DistillationTerm` of one's own, objects of `keras.distillation`,
            or pairs of one of these and its weight. None for soft labels: `BinarySoftLabels` of
            outputs that end in a sigmoid, `SoftLabels` of the others.
        teacher_weights: Weights > 0 of several teachers; None for equal ones.
        teacher_from_logits: Whether the teacher answers logits (True) or probabilities (False).
            None recognises it by the last activation, of functional and Sequential models and of
            .tflite files that end in a softmax. A list has an entry for each teacher.
        student_from_logits: The same of the student.
        name: The model's name.

    Raises:
        ValueError: for arguments out of range, models with other inputs or classes, layers that
            are not there (near names are listed), and outputs whose kind cannot be recognised.

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
        teacher,
        student,
        *,
        alpha=0.1,
        temperature=4.0,
        losses=None,
        teacher_weights=None,
        teacher_from_logits=None,
        student_from_logits=None,
        name=None,
    ):
        super().__init__(name=name)
        several = isinstance(teacher, (list, tuple))
        given = list(teacher) if several else [] if teacher is None else [teacher]
        if several and not given:
            raise invalid("teacher", "at least one teacher in the list", teacher)
        if not isinstance(student, keras.Model):
            raise invalid("student", "a keras.Model", student)
        if any(each is student for each in given):
            raise ValueError("Received the same model for `teacher` and `student`, expected two.")
        self.alpha = arguments.schedule("alpha", alpha, 0.0, 1.0, "a number in [0, 1]")
        self.temperature = arguments.schedule(
            "temperature", temperature, 1e-6, 1e6, "a positive number"
        )
        self.teachers = [frozen_model.as_teacher(each) for each in given]
        self.student = student
        self.teacher_weights = arguments.weights(teacher_weights, given)
        self.teacher_from_logits = arguments.from_logits("teacher_from_logits", teacher_from_logits)
        self.student_from_logits = arguments.from_logits("student_from_logits", student_from_logits)
        for each in self.teachers:
            check_same_inputs(each, student)
            check_nothing_shared(each, student)
        self.terms = arguments.terms(losses, student)
        self.projectors = [Projector() if term.match_widths else None for term in self.terms]
        self._teacher_layers = sorted({t.teacher_layer for t in self.terms} - {None})
        self._student_layers = sorted({t.student_layer for t in self.terms} - {None})
        self._check_models()
        self._hard_tracker = keras.metrics.Mean(name="hard_loss")
        names = arguments.different([term.name for term in self.terms])
        self._term_trackers = [keras.metrics.Mean(name=each) for each in names]
        self._step = threading.local()
        if self.student.built and all(each.built for each in self.teachers):
            self._build_projectors()

    @property
    def teacher(self):
        """The one teacher as a layer; a list of several; None where the data holds its answers."""
        return self.teachers[0] if len(self.teachers) == 1 else self.teachers or None

    def _check_models(self):
        """Refuses at once what can be known before there is data."""
        if self.student.built:
            for name in self._student_layers:
                find_layer([self.student], name, "student_layer")
        if self.teachers and all(each.built for each in self.teachers):
            for name in self._teacher_layers:
                find_layer(self.teachers, name, "teacher_layer")
        known = output_keys(self.student)
        for term in self.terms:
            if term.on_logits:
                outputs = known if term.output is None else [self._key(term.output)]
                for each in self.teachers:
                    check_same_classes(each, self.student, term, outputs)
                count = len(self.teachers)
                if not count:
                    flags = self.teacher_from_logits
                    count = len(flags) if isinstance(flags, (list, tuple)) else 1
                for output in outputs:
                    self._kinds(term, output, count)

    def _key(self, output):
        """Returns the key, index or name of an output as the key that outputs are kept by."""
        known = output_keys(self.student)
        if output in known or not getattr(self.student, "outputs", None):
            return output
        names = list(self.output_names or [])
        if known == [None]:
            # One output: by its name, its place, or its key in a dict of one.
            sequential = isinstance(self.student, keras.Sequential)
            only = None if sequential else self.student.output
            names = [*names, 0, *(only if isinstance(only, dict) else ())]
            if output in names:
                return None
        elif output in names:
            return known[names.index(output)]
        names = dict.fromkeys([*(each for each in known if each is not None), *names])
        raise invalid("output", f"one of {', '.join(map(repr, names)) or 'none'}", output)

    def _kinds(self, term, output, count):
        """Returns whether each teacher, and the student, answers logits in what a term compares."""
        flags = self.teacher_from_logits
        if not isinstance(flags, (list, tuple)):
            flags = [flags] * count
        models = self.teachers if len(self.teachers) == count else [None] * count
        if len(flags) != count:
            expected = f"{count} entries, as there are teachers"
            raise invalid("teacher_from_logits", expected, self.teacher_from_logits)
        of_teachers = [
            from_logits(model, flag, term.activation, "teacher", output)
            for model, flag in zip(models, flags, strict=True)
        ]
        of_student = from_logits(
            self.student, self.student_from_logits, term.activation, "student", output
        )
        return of_teachers, of_student

    def _build_projectors(self):
        """Makes the projections that can be known before there is data, and counts as built then.

        Those of other models are made with the first batch: `get_build_config` tells them.
        """
        self.built = True
        for term, projector in zip(self.terms, self.projectors, strict=True):
            if projector is None:
                continue
            widths = [
                width_of([self.student], term.student_layer),
                width_of(self.teachers, term.teacher_layer),
            ]
            if None in widths:
                self.built = False
            elif widths[0] != widths[1]:
                projector.build_between(*widths)

    def build(self, input_shape=None):
        if isinstance(input_shape, Taught):
            input_shape = input_shape.inputs
        if not self.student.built:
            self.student.build(input_shape)
        self.built = True

    @property
    def output_names(self):
        return getattr(self.student, "output_names", None)

    def call(self, inputs, training=None):
        return self.student(Taught.split(inputs)[0], training=training)

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
        inputs, taught = Taught.split(x)
        regularization = sum(self._aggregate_additional_loss(loss) for loss in self.losses)
        hard = self._hard_loss(y, y_pred, sample_weight)
        samples = ops.shape(keras.tree.flatten(inputs)[0])[0]
        self._track(self._hard_tracker, hard, samples)
        if taught is None and not self.teachers:
            if training:
                raise ValueError(
                    "Received `teacher=None` and data without a teacher's answers, expected those "
                    "of `precompute(teacher, data).join(data)`, or a teacher."
                )
            return hard + regularization
        features = getattr(self._step, "features", None)
        if self._student_layers and not features:
            with self._recording_student():
                self.student(inputs, training=training)
                features = self._step.features
        if taught is not None and self.teachers and len(self.teachers) != len(taught["outputs"]):
            raise ValueError(
                f"Expected answers of {len(self.teachers)} teachers in the data, as the Distiller "
                f"has. Received: {len(taught['outputs'])}"
            )
        if taught is None:
            outputs, teacher_features = frozen_model.answers(
                self.teachers, inputs, self._teacher_layers
            )
        else:
            outputs, teacher_features = taught["outputs"], taught.get("features", {})
        outputs, teacher_features = keras.tree.map_structure(
            ops.stop_gradient, (outputs, teacher_features)
        )
        temperature = self._now(self.temperature, 0.1, None)
        soft = 0.0
        for index, term in enumerate(self.terms):
            value = 0.0
            for teacher, student, output in self._compared(
                term, outputs, teacher_features, y_pred, features
            ):
                value += self._value(
                    index, teacher, student, output, temperature, y, y_pred, sample_weight
                )
            self._track(self._term_trackers[index], value, samples)
            soft += term.weight * value
        alpha = self._now(self.alpha, 0.0, 1.0)
        return alpha * hard + (1.0 - alpha) * soft + regularization

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        results = super().compute_metrics(x, y, y_pred, sample_weight)
        if not self.teachers and Taught.split(x)[1] is None:
            for tracker in self._term_trackers:  # nothing was there to be compared
                results.pop(tracker.name, None)
        return results

    def _hard_loss(self, y, y_pred, sample_weight):
        if y is not None and self._compile_loss is not None:
            if isinstance(y_pred, (list, tuple)):  # by name: in the order of the outputs
                y, sample_weight = (
                    [values[name] for name in self.output_names]
                    if isinstance(values, dict)
                    else values
                    for values in (y, sample_weight)
                )
            return self._compile_loss(y, y_pred, sample_weight)
        if self.alpha == 0.0:
            return ops.zeros(())
        missing = "labels in the data" if y is None else "a `loss` in compile"
        raise ValueError(f"Expected {missing}, or alpha=0. Received: alpha={self.alpha}")

    def _track(self, tracker, value, samples):
        # The value is a replica's share of the batch's.
        replicas = self.distribute_strategy.num_replicas_in_sync
        tracker.update_state(value * replicas, sample_weight=samples)

    def _now(self, value, smallest, largest):
        if not callable(value):
            return value
        step = 0 if self.optimizer is None else self.optimizer.iterations
        dtype = keras.config.floatx()
        value = ops.maximum(ops.cast(value(ops.cast(step, dtype)), dtype), smallest)
        return value if largest is None else ops.minimum(value, largest)

    def _compared(self, term, outputs, teacher_features, y_pred, features):
        """Yields what a term compares: of the teachers, of the student, and of which output."""
        students, taught = outputs_by_key(y_pred), {}
        if term.teacher_layer is not None:
            taught[None] = [_named(teacher_features, term.teacher_layer, "teacher_layer")]
        else:
            each = [outputs_by_key(answer) for answer in outputs]
            taught = {key: [_named(one, key, "output") for one in each] for key in each[0]}
        if term.student_layer is not None:
            students = {None: _named(features, term.student_layer, "student_layer")}
        if term.output is not None:
            key = self._key(term.output)
            students = students if term.student_layer else {key: _named(students, key, "output")}
            if term.teacher_layer is None and list(taught) != [None]:
                taught = {key: _named(taught, key, "output")}
        if None in (*students, *taught) and len(students) == len(taught) == 1:
            ((key, student),) = students.items()
            yield next(iter(taught.values())), student, key
            return
        if set(students) != set(taught):
            raise ValueError(
                f"Expected the same outputs of teacher and student, or `output` to choose one for "
                f"{term.name}. Received: teacher {list(taught)}, student {list(students)}"
            )
        for key, student in students.items():
            yield taught[key], student, key

    def _value(self, index, teacher, student, output, temperature, y, y_pred, sample_weight):
        term, options = self.terms[index], {"mask": mask_of(student)}
        weights = self._normalized_weights(len(teacher))
        if term.on_logits:
            of_teachers, of_student = self._kinds(term, output, len(teacher))
            teacher = [
                _logits(term, each, kind) for each, kind in zip(teacher, of_teachers, strict=True)
            ]
            student = _logits(term, student, of_student)
            temperature = options["temperature"] = term.temperature or temperature
            if len(teacher) > 1:
                teacher = [term.mean_of(teacher, weights, temperature)]
        if len(teacher) > 1:
            teacher = [sum(w * t for w, t in zip(weights, teacher, strict=True))]
        (teacher,) = teacher
        projector = self.projectors[index]
        if projector is not None:
            student = projector(ops.cast(student, "float32"), width=teacher.shape[-1])
        if "labels" in term.uses:
            options["labels"] = self._of_output(y, output)
            if options["labels"] is None:
                raise ValueError(
                    f"{term.name} needs labels, expected y in the data. Received: none"
                )
        return term(teacher, student, self._of_output(sample_weight, output), **options)

    def _of_output(self, values, output):
        """Returns the labels or weights that belong to an output, or to all of them."""
        if not isinstance(values, (dict, list, tuple)):
            return values
        by_key = outputs_by_key(values)
        if isinstance(values, dict) and isinstance(output, int):
            output = self.output_names[output]
        return by_key.get(output)

    def _normalized_weights(self, count):
        weights = self.teacher_weights or [1.0] * count
        if count > 1 and len(weights) != count:
            raise invalid("teacher_weights", f"{count} numbers, as there are teachers", weights)
        return [weight / sum(weights) for weight in weights]

    # The teachers are layers of this model, so that they are saved with it; but they do not learn,
    # and what they would add to the loss is none of the student's business.

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
        several = len(self.teachers) > 1
        schedules = {"alpha": self.alpha, "temperature": self.temperature}
        return {
            "teacher": serialize(self.teachers if several else self.teacher),
            "student": serialize(self.student),
            **{k: serialize(v) if callable(v) else v for k, v in schedules.items()},
            "losses": [serialize(term) for term in self.terms],
            "teacher_weights": self.teacher_weights,
            "teacher_from_logits": self.teacher_from_logits,
            "student_from_logits": self.student_from_logits,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        restored = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("teacher", "student", "alpha", "temperature", "losses")
        }
        return cls(**{**config, **restored})


def _named(values, key, argument):
    if key not in values:
        raise invalid(argument, f"one of {', '.join(map(repr, values)) or 'none'}", key)
    return values[key]


def _logits(term, outputs, are_logits):
    outputs = ops.cast(outputs, "float32")
    return outputs if are_logits else term.logits(outputs)
