"""The stage in which a student learns from teachers."""

import math

import keras

import tfpeft
from pipelines.common import models, objectives, samples, training
from pipelines.common.classifiers import check_loss
from pipelines.common.errors import invalid_flag
from pipelines.common.flags import Flag
from pipelines.stages.stage import Stage
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.export.tflite_file import TFLiteFile

ALPHA = Flag(
    "alpha",
    float,
    0.1,
    "Weight of the labels in the loss; 1 - alpha is the teacher's.",
    at_least=0.0,
    at_most=1.0,
)
TEMPERATURE = Flag("temperature", float, 4.0, "Softens the teacher's outputs.", above=0.0)
FLAGS = (
    Flag(
        "student",
        str,
        "0.5",
        "The model that learns: what --model may be; module:function, returning a model; or a width"
        " such as 0.5, the teacher's architecture with that fraction of its channels.",
    ),
    Flag(
        "teacher",
        str,
        (),
        "A model that teaches: .keras, .h5 or .tflite; given more than once, the mean of their "
        "outputs. By default the model itself.",
        repeated=True,
    ),
    Flag(
        "teacher_weights",
        list,
        (),
        "Weight of each --teacher; by default equal ones.",
        items=float,
        above=0.0,
    ),
    ALPHA,
    Flag(
        "alpha_end",
        float,
        None,
        "If given, --alpha moves evenly to this in the course of the stage.",
        at_least=0.0,
        at_most=1.0,
    ),
    TEMPERATURE,
    Flag(
        "temperature_end", float, None, "If given, --temperature moves evenly to this.", above=0.0
    ),
    Flag(
        "soft_loss",
        str,
        "soft_labels",
        "How outputs are compared: by their divergence, of sigmoids as well, or squared error of "
        "numbers; by that of the label and "
        "of the other classes apart, by their correlations, or not.",
        choices=("soft_labels", "decoupled", "dist", "none"),
    ),
    Flag(
        "feature_loss",
        str,
        "none",
        "How --teacher_layers and --student_layers are compared: by their values, by where they "
        "are active, by which samples are alike, by distances and angles between samples, or not.",
        choices=("matching", "attention", "similarity", "relational", "none"),
    ),
    Flag("teacher_layers", list, (), "Names or paths of layers, as many as --student_layers."),
    Flag("student_layers", list, (), "The layers of the student that learn from them."),
    Flag("feature_weight", float, 1.0, "Weight of each pair of layers in the loss.", above=0.0),
    Flag(
        "precompute",
        str,
        "memory",
        "Whether teachers run once, before the stage, and where their outputs are kept: in "
        "`folder`, the folder of the run, they outlast a kill. With `no`, and with --augment, they "
        "run in every step.",
        choices=("memory", "folder", "no"),
    ),
    Flag("float16", bool, False, "Whether outputs are kept in half the bytes, to 3 digits."),
)
_SOFT_LOSSES = {
    "soft_labels": [],  # by the task: see `Objective.soft_losses`
    "decoupled": [tfpeft.DecoupledKD],
    "dist": [tfpeft.DIST],
    "none": [],
}
_OF_CLASSES = ("decoupled", "dist")  # which are for classes that exclude each other
_FEATURE_LOSSES = {
    "matching": [tfpeft.FeatureMatching],
    "attention": [tfpeft.AttentionTransfer],
    "similarity": [tfpeft.SimilarityPreserving],
    "relational": [tfpeft.RelationalDistance, tfpeft.RelationalAngle],
    "none": [],
}


def check(settings):
    """Raises for flags that do not go together."""
    teacher_layers, student_layers = settings.teacher_layers, settings.student_layers
    needs_layers = settings.feature_loss != "none"
    if len(teacher_layers) != len(student_layers) or bool(teacher_layers) != needs_layers:
        raise InputError(
            "Received invalid values for --feature_loss, --teacher_layers and --student_layers, "
            "expected all three, with as many layers of the teacher as of the student, or none. "
            f"Received: --feature_loss={settings.feature_loss} "
            f"--teacher_layers={','.join(teacher_layers)} "
            f"--student_layers={','.join(student_layers)}"
        )
    if settings.soft_loss == "none" and not needs_layers:
        raise invalid_flag("soft_loss", "another value, or a --feature_loss", "none")
    _teacher_weights(settings)
    _width(settings.student)


def run(settings, inputs):
    """Returns the student, trained on labels and on the teachers."""
    student = make_student(settings, inputs)
    data, objective = inputs.data.for_model(student, "--student")
    shape, of_student = (_shape(each.train) for each in (inputs.data, data))
    if of_student != shape:
        received = f"--student={settings.student} with inputs of {of_student}"
        raise unexpected(f"a student with inputs of shape {shape}, as the model has", received)
    distiller, train = make_distiller(settings, inputs, inputs.model, student)
    training.fit(settings, distiller, inputs.data, objective, train=train)
    return student


def _shape(split):
    """Returns the shape (...) of a sample; {name: shape} for several inputs."""
    x = samples.first_inputs(split, 1)
    if isinstance(x, dict):
        return {name: array.shape[1:] for name, array in x.items()}
    return x.shape[1:]


def make_student(settings, inputs):
    """Returns what --student names: a file, a function, or a width of the teacher."""
    value = settings.student
    if models.is_model(value):
        student = models.load_model(
            value, "student", inputs.custom_objects, trust_code=settings.trust_code
        )
        received = f"--student={value}"
        objective = objectives.of(inputs.data, student, received)
        if objective.outputs is not None:
            check_loss(value, objective.outputs, received)
        return student
    if ":" in value:
        model = models.call_function(value, "student")
        if not isinstance(model, keras.Model):
            raise unexpected(f"--student={value} to return a keras.Model", repr(model))
        return models.with_named_outputs(model)
    try:
        return tfpeft.scale_width(inputs.model, _width(value))
    except ValueError as error:  # a width that a layer cannot have is an error of Keras
        raise InputError(f"Cannot make --student={value} of the teacher: {error}") from error


def _width(value):
    """Returns the width that --student is; None for a file or a function."""
    if models.is_model(value) or ":" in value:
        return None
    try:
        width = float(value)
    except ValueError:
        width = math.nan
    if not 0 < width < math.inf:
        expected = "a .keras or .h5 file, module:function, or a width such as 0.5"
        raise invalid_flag("student", expected, value)
    return width


def make_distiller(settings, inputs, model, student):
    """Returns a Distiller of the student, by --teacher or `model`, and what it trains on."""
    data = inputs.data
    teachers = [model]
    if settings.teacher:
        teachers = [_load_teacher(settings, inputs, path) for path in settings.teacher]
    objective = objectives.of(data, student, "the student")
    losses = _distillation_losses(settings, objective)
    from_logits = [_from_logits(settings, "a teacher", each, data) for each in teachers]
    teachers = [str(each.path) if isinstance(each, TFLiteFile) else each for each in teachers]
    distiller = tfpeft.Distiller(
        teachers,
        student,
        alpha=_annealed(settings, "alpha", data),
        temperature=_annealed(settings, "temperature", data),
        distillation_losses=losses,
        teacher_weights=_teacher_weights(settings),
        teacher_from_logits=from_logits,
        student_from_logits=_from_logits(settings, "the student", student, data),
    )
    varies = isinstance(data.train, samples.Stream) and data.train.varies
    if varies and "precompute" in settings.given and settings.precompute != "no":
        expected = "no with --augment, as teachers must see what the student sees"
        raise invalid_flag("precompute", expected, settings.precompute)
    if varies or settings.precompute == "no":
        return distiller, data.train
    train = samples.as_data(data.train, settings.batch_size)
    precomputed = tfpeft.precompute(
        teachers,
        train,
        inputs.folder / "outputs" if settings.precompute == "folder" else None,
        features=sorted({loss.teacher_layer for loss in losses} - {None}),
        float16=settings.float16,
    )
    return distiller, precomputed.join(train)


def _from_logits(settings, role, model, data):
    """Returns whether outputs are logits; raises for those that no --soft_loss compares."""
    objective = objectives.of(data, model, role)
    outputs = objective.outputs
    if settings.soft_loss in _OF_CLASSES and (outputs is None or not outputs.is_softmax):
        raise unexpected(
            f"outputs of a softmax or its logits, which --soft_loss={settings.soft_loss} compares",
            f"{role} with {objective}; --soft_loss=soft_labels compares all others",
        )
    return objective.from_logits


def _load_teacher(settings, inputs, path):
    """Returns the model of --teacher, whose outputs must be those of the data."""
    received = f"--teacher={path}"
    trust = settings.trust_code
    teacher = models.load_teacher(path, inputs.custom_objects, trust_code=trust)
    objective = objectives.of(inputs.data, teacher, received)
    outputs = objective.outputs
    if outputs is not None and outputs.classes != inputs.data.classes:
        expected = f"a teacher of {inputs.data.classes} classes, as --dataset has"
        raise unexpected(expected, f"{received} with {outputs}")
    objective.chance_of(teacher, inputs.data.train).check(received, settings.allow_chance)
    return teacher


def _teacher_weights(settings):
    """Returns a weight per teacher; None for one teacher, and for equal weights."""
    if not settings.teacher_weights:
        return None
    count = len(settings.teacher) or 1
    weights = [float(weight) for weight in settings.teacher_weights]
    if len(weights) != count:
        expected = f"{count} positive numbers, one per --teacher"
        raise invalid_flag("teacher_weights", expected, settings.teacher_weights)
    return weights if count > 1 else None


def _annealed(settings, name, data):
    """Returns a number, or a schedule that moves to the one of --NAME_end."""
    start, end = getattr(settings, name), getattr(settings, f"{name}_end")
    if end is None:
        return start
    steps = training.total_steps(settings, data)
    return keras.optimizers.schedules.PolynomialDecay(start, steps, end)


def _distillation_losses(settings, objective):
    """Returns the losses that the flags name, for a student with this `Objective`."""
    losses = [make() for make in _SOFT_LOSSES[settings.soft_loss]]
    if settings.soft_loss == "soft_labels":
        losses = objective.soft_losses()
    pairs = zip(settings.teacher_layers, settings.student_layers, strict=True)
    for teacher_layer, student_layer in pairs:
        for make in _FEATURE_LOSSES[settings.feature_loss]:
            loss = make(
                teacher_layer=teacher_layer,
                student_layer=student_layer,
                weight=settings.feature_weight,
            )
            losses.append(loss)
    return losses


STAGE = Stage("distill", FLAGS, run, check=check, folders=("outputs",), distils=True)
