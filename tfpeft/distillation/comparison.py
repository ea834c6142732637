"""What a distillation loss compares: which outputs or features, of which teachers, as what."""

import typing

from keras import ops

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.graph import output_keys, output_structure, outputs_by_key
from tfpeft.core.hooks import mask_of
from tfpeft.distillation.output_kinds import are_logits, check_same_classes


class Outputs(typing.NamedTuple):
    """What models return for a batch.

    `outputs` is the structure of the student's outputs, or a list of those of the teachers;
    `features` is {name of a layer: its output}.
    """

    outputs: typing.Any
    features: dict


class Pair(typing.NamedTuple):
    """Tensors that a distillation loss compares: a list of the teachers', and the student's.

    `output` is the key or index of the output that they belong to, None for the only output and
    for features.
    """

    teachers: list
    student: typing.Any
    output: typing.Any


class TeacherStudentPairs:
    """Pairs what teachers and student return, and converts it as a distillation loss needs it.

    Args:
        teachers: Layers; empty if the data holds the teachers' outputs.
        student: The model that is trained.
        teacher_weights: Weights of several teachers; None for equal ones.
        teacher_from_logits: Whether teachers return logits: True, False or None to recognize it,
            or a list of these.
        student_from_logits: The same of the student.
    """

    def __init__(
        self, teachers, student, *, teacher_weights, teacher_from_logits, student_from_logits
    ):
        self._teachers, self._student = teachers, student
        self._teacher_weights = teacher_weights
        self._teacher_from_logits = teacher_from_logits
        self._student_from_logits = student_from_logits

    def check(self, loss):
        """Raises early if the models' outputs do not suit a loss, as far as they are known."""
        if not loss.on_logits:
            return
        outputs = output_keys(self._student)
        if loss.output is not None:
            outputs = [self._output_key(loss.output)]
        for teacher in self._teachers:
            check_same_classes(teacher, self._student, loss, outputs)
        flags = self._teacher_from_logits
        count = len(self._teachers) or (len(flags) if isinstance(flags, (list, tuple)) else 1)
        for output in outputs:
            self._are_logits(loss, output, count)

    def _output_key(self, output):
        """Returns the key of an output that is named by key, index or layer name."""
        known = output_keys(self._student)
        if output in known or not getattr(self._student, "outputs", None):
            return output
        names = list(getattr(self._student, "output_names", None) or [])
        if known == [None]:
            # One output: by its name, its index, or its key in a dict of one.
            structure = output_structure(self._student)
            names = [*names, 0, *(structure if isinstance(structure, dict) else ())]
            if output in names:
                return None
        elif output in names:
            return known[names.index(output)]
        names = dict.fromkeys([*(key for key in known if key is not None), *names])
        raise _unknown("output", names, output)

    def value(self, loss, projector, teacher, student, y, sample_weight, temperature):
        """Returns the value of a distillation loss for a batch, before its weight.

        Args:
            loss: A `DistillationLoss`.
            projector: The `Projector` of the student's features, or None.
            teacher, student: The `Outputs` of the teachers and of the student.
            y, sample_weight: Labels and weights of the batch in the structure of the outputs, for
                all outputs, or None.
            temperature: T, for a loss on logits that has none itself.

        Raises:
            InputError: if an output, a feature or labels are missing, or if teacher and student
                have different outputs and the loss does not choose an output.
        """
        return sum(
            self._value(loss, projector, pair, y, sample_weight, temperature)
            for pair in self._pairs(loss, teacher, student)
        )

    def _value(self, loss, projector, pair, y, sample_weight, temperature):
        options = {"mask": mask_of(pair.student)}
        if loss.on_logits:
            temperature = options["temperature"] = loss.temperature or temperature
        teacher, student = self._tensors(loss, pair, temperature)
        if projector is not None:
            student = projector(ops.cast(student, "float32"), width=teacher.shape[-1])
        if "labels" in loss.uses:
            options["labels"] = self._of_output(y, pair.output)
            if options["labels"] is None:
                raise unexpected(f"y in the data, as {loss.name} needs labels", "none")
        return loss(teacher, student, self._of_output(sample_weight, pair.output), **options)

    def _pairs(self, loss, teacher, student):
        """Yields a `Pair` per output, or of features."""
        of_teachers = self._of_teachers(loss, teacher)
        of_student = self._of_student(loss, student)
        if None in (*of_student, *of_teachers) and len(of_student) == len(of_teachers) == 1:
            ((output, tensor),) = of_student.items()
            yield Pair(next(iter(of_teachers.values())), tensor, output)
            return
        if set(of_student) != set(of_teachers):
            raise unexpected(
                f"the same outputs of teacher and student, or `output` of {loss.name} to choose "
                "an output",
                f"teacher {list(of_teachers)}, student {list(of_student)}",
            )
        for output, tensor in of_student.items():
            yield Pair(of_teachers[output], tensor, output)

    def _of_teachers(self, loss, teacher):
        """Returns {output: [tensor per teacher]}."""
        if loss.teacher_layer is not None:
            return {None: [_get(teacher.features, loss.teacher_layer, "teacher_layer")]}
        models = [outputs_by_key(outputs) for outputs in teacher.outputs]
        by_key = {key: [_get(model, key, "output") for model in models] for key in models[0]}
        if loss.output is None or list(by_key) == [None]:
            return by_key
        key = self._output_key(loss.output)
        return {key: _get(by_key, key, "output")}

    def _of_student(self, loss, student):
        """Returns {output: tensor}."""
        if loss.student_layer is not None:
            return {None: _get(student.features, loss.student_layer, "student_layer")}
        by_key = outputs_by_key(student.outputs)
        if loss.output is None:
            return by_key
        key = self._output_key(loss.output)
        return {key: _get(by_key, key, "output")}

    def _tensors(self, loss, pair, temperature):
        """Returns the tensor of the teachers, combined, and that of the student.

        For a loss on logits both are logits, and several teachers count by the mean of their
        softened probabilities; for other losses by the mean of their tensors.
        """
        teachers, student, output = pair
        weights = self._normalized_weights(len(teachers))
        if loss.on_logits:
            teacher_flags, student_flag = self._are_logits(loss, output, len(teachers))
            flagged = zip(teachers, teacher_flags, strict=True)
            teachers = [_as_logits(loss, tensor, flag) for tensor, flag in flagged]
            student = _as_logits(loss, student, student_flag)
            if len(teachers) > 1:
                teachers = [loss.mean_of(teachers, weights, temperature)]
        if len(teachers) > 1:
            teachers = [sum(w * tensor for w, tensor in zip(weights, teachers, strict=True))]
        return teachers[0], student

    def _of_output(self, values, output):
        """Returns the labels or sample weights of an output; values without keys are for all."""
        if not isinstance(values, (dict, list, tuple)):
            return values
        by_key = outputs_by_key(values)
        if isinstance(values, dict) and isinstance(output, int):
            output = self._student.output_names[output]
        return by_key.get(output)

    def _are_logits(self, loss, output, count):
        """Returns whether an output is logits: a list for the `count` teachers, and the student."""
        flags = self._teacher_from_logits
        if not isinstance(flags, (list, tuple)):
            flags = [flags] * count
        models = self._teachers if len(self._teachers) == count else [None] * count
        if len(flags) != count:
            expected = f"{count} entries, the number of teachers"
            raise invalid("teacher_from_logits", expected, self._teacher_from_logits)
        of_teachers = [
            are_logits(model, flag, loss.activation, "teacher", output)
            for model, flag in zip(models, flags, strict=True)
        ]
        of_student = are_logits(
            self._student, self._student_from_logits, loss.activation, "student", output
        )
        return of_teachers, of_student

    def _normalized_weights(self, count):
        weights = self._teacher_weights or [1.0] * count
        if count > 1 and len(weights) != count:
            raise invalid("teacher_weights", f"{count} numbers, the number of teachers", weights)
        return [weight / sum(weights) for weight in weights]


def _get(values, key, argument):
    if key not in values:
        raise _unknown(argument, values, key)
    return values[key]


def _unknown(argument, names, received):
    return invalid(argument, f"one of {', '.join(map(repr, names)) or 'none'}", received)


def _as_logits(loss, outputs, is_logits):
    outputs = ops.cast(outputs, "float32")
    return outputs if is_logits else loss.logits(outputs)
