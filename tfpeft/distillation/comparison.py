"""What a distillation loss compares: which outputs or features, of which teachers, as what."""

import typing

from keras import ops

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.graph import outputs_by_key
from tfpeft.core.hooks import logits_of, mask_of
from tfpeft.distillation.output_kinds import are_logits, check_same_classes
from tfpeft.distillation.output_matching import OutputNames, match_outputs


class Outputs(typing.NamedTuple):
    """What models return for a batch.

    `outputs` is the structure of the student's outputs, or a list of those of the teachers;
    `features` is {name of a layer: its output}.
    """

    outputs: typing.Any
    features: dict


class Pair(typing.NamedTuple):
    """Tensors that a distillation loss compares: a list of the teachers', and the student's.

    `output` is the key or index of the student's output, None for the only output and for
    features; `teacher_outputs` has those of the teachers.
    """

    teachers: list
    student: typing.Any
    output: typing.Any
    teacher_outputs: list


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
        student = OutputNames.of(self._student)
        if student is None or loss.student_layer is not None:
            return
        teachers = [OutputNames.of(teacher) for teacher in self._teachers]
        if loss.teacher_layer is not None:
            teachers = []
        known = [pair for pair in zip(self._teachers, teachers, strict=False) if pair[1]]
        chosen = self._chosen(loss, [names for _, names in known], student)
        if not loss.on_logits:
            return
        for output, teacher_outputs in chosen:
            for (teacher, _), teacher_output in zip(known, teacher_outputs, strict=True):
                check_same_classes(teacher, self._student, loss, teacher_output, output)
        flags = self._teacher_from_logits
        count = len(self._teachers) or (len(flags) if isinstance(flags, (list, tuple)) else 1)
        for output, teacher_outputs in chosen:
            if len(known) < count:  # of others the outputs are not known yet
                teacher_outputs = [output] * count
            self._are_logits(loss, output, teacher_outputs)

    def _chosen(self, loss, teachers, student):
        """Returns (output of the student, [that of each teacher]) for the outputs of a loss.

        Args:
            loss: A `DistillationLoss`.
            teachers, student: Their `OutputNames`.
        """
        matches = [match_outputs(teacher, student) for teacher in teachers]
        if loss.output is None:
            for teacher, match in zip(teachers, matches, strict=True):
                if match is None:
                    both = [name for name in student.known if teacher.knows(name)]
                    hint = f"one of {', '.join(map(repr, both))}" if both else "those of one model"
                    raise unexpected(
                        f"the same outputs of teacher and student, or `output` of {loss.name}, "
                        f"{hint}",
                        f"teacher {_listed(teacher)}, student {_listed(student)}",
                    )
            return [(output, [match[output] for match in matches]) for output in student.keys]
        if not any(names.knows(loss.output) for names in (student, *teachers)):
            names = dict.fromkeys(name for each in (student, *teachers) for name in each.known)
            raise _unknown("output", names, loss.output)
        output = self._found(loss.output, student, "student")
        found = [
            match[output]
            if match is not None and student.knows(loss.output)
            else self._found(loss.output, teacher, "teacher")
            for teacher, match in zip(teachers, matches, strict=True)
        ]
        return [(output, found)]

    def _found(self, output, names, role):
        """Returns the key of an output; a model of one output has no other."""
        if names.keys == (None,):
            return None
        if not names.knows(output):
            known = ", ".join(map(repr, names.known))
            raise invalid("output", f"an output of the {role} as well, one of {known}", output)
        return names.find(output)

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
        of_teachers = [outputs_by_key(outputs) for outputs in teacher.outputs]
        of_student = outputs_by_key(student.outputs)
        models = self._teachers if len(self._teachers) == len(of_teachers) else [None]
        names = OutputNames.of(self._student, student.outputs)
        teachers = [
            OutputNames.of(models[index % len(models)], outputs)
            for index, outputs in enumerate(teacher.outputs)
        ]
        feature_of_teacher = feature_of_student = None
        if loss.teacher_layer is not None:
            feature_of_teacher = _get(teacher.features, loss.teacher_layer, "teacher_layer")
            teachers = []
        if loss.student_layer is not None:
            feature_of_student = _get(student.features, loss.student_layer, "student_layer")
            names = OutputNames((None,), {})
        if feature_of_teacher is not None and loss.output is None and len(names.keys) > 1:
            raise unexpected(
                f"`student_layer` or `output` of {loss.name}, which has a `teacher_layer`",
                f"a student of the outputs {_listed(names)}",
            )
        if feature_of_teacher is not None and feature_of_student is not None:
            yield Pair([feature_of_teacher], feature_of_student, None, [None])
            return
        for output, found in self._chosen(loss, teachers, names):
            tensors = [_tensor(each[key]) for each, key in zip(of_teachers, found, strict=False)]
            if feature_of_teacher is not None:
                tensors = [feature_of_teacher]
            own = feature_of_student
            own = _tensor(of_student[output]) if own is None else own
            yield Pair(tensors, own, output, found)

    def _tensors(self, loss, pair, temperature):
        """Returns the tensor of the teachers, combined, and that of the student.

        For a loss on logits both are logits, and several teachers count by the mean of their
        softened probabilities; for other losses by the mean of their tensors.
        """
        teachers, student, output, teacher_outputs = pair
        weights = self._normalized_weights(len(teachers))
        if loss.on_logits:
            teacher_flags, student_flag = self._are_logits(loss, output, teacher_outputs)
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
        return outputs_by_key(values).get(output)

    def _are_logits(self, loss, output, teacher_outputs):
        """Returns whether an output is logits: a list for the teachers, and the student."""
        count = len(teacher_outputs)
        flags = self._teacher_from_logits
        if not isinstance(flags, (list, tuple)):
            flags = [flags] * count
        models = self._teachers if len(self._teachers) == count else [None] * count
        if len(flags) != count:
            expected = f"{count} entries, the number of teachers"
            raise invalid("teacher_from_logits", expected, self._teacher_from_logits)
        of_teachers = [
            are_logits(model, flag, loss.activation, "teacher", of_teacher)
            for model, flag, of_teacher in zip(models, flags, teacher_outputs, strict=True)
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


def _tensor(output):
    """Returns an output; raises for a structure in it."""
    if not hasattr(output, "shape"):
        expected = "models of one output, or a flat dict or list of outputs"
        raise unexpected(expected, f"a {type(output).__name__} among the outputs")
    return output


def _listed(names):
    return names.known if names.known else "one output"


def _unknown(argument, names, received):
    return invalid(argument, f"one of {', '.join(map(repr, names)) or 'none'}", received)


def _as_logits(loss, outputs, is_logits):
    noted = None if is_logits else logits_of(outputs)
    if noted is not None:  # exact, where probabilities are rounded to 0 or 1
        return ops.cast(noted, "float32")
    outputs = ops.cast(outputs, "float32")
    return outputs if is_logits else loss.logits(outputs)
