"""The stage in which a student learns from teachers, and its flags."""

import pathlib

import keras
from absl import flags

import tfpeft
from pipelines import common, stages
from pipelines.data import call
from tfpeft.evaluation.quality import are_logits
from tfpeft.export.tflite_file import TFLiteFile

FLAGS = common.FLAGS

flags.DEFINE_string(
    "student",
    "0.5",
    "The model that learns: a .keras or .h5 file; module:function, returning a model; or a width "
    "such as 0.5, the teacher's architecture with that part of its channels.",
)
flags.DEFINE_multi_string(
    "teacher",
    [],
    "A model that teaches: .keras, .h5 or .tflite; given more than once, the mean of what they "
    "answer. Default: the model itself.",
)
flags.DEFINE_list("teacher_weights", [], "Weight of each --teacher; default: equal ones.")
flags.DEFINE_float(
    "alpha",
    0.1,
    "Weight of the labels in the loss; 1 - alpha is the teacher's.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float(
    "alpha_end",
    None,
    "If given, --alpha moves evenly to this in the course of the stage.",
    lower_bound=0.0,
    upper_bound=1.0,
)
flags.DEFINE_float("temperature", 4.0, "Softens the teacher's answers; above 0.")
flags.DEFINE_float(
    "temperature_end", None, "If given, --temperature moves evenly to this; above 0."
)
flags.DEFINE_enum(
    "soft_loss",
    "soft_labels",
    ["soft_labels", "decoupled", "dist", "none"],
    "How answers are compared: by their divergence, by that of the label and of the other classes "
    "apart, by their correlations, or not.",
)
flags.DEFINE_enum(
    "feature_loss",
    "none",
    ["matching", "attention", "similarity", "relational", "none"],
    "How --teacher_layers and --student_layers are compared: by their values, by where they are "
    "active, by which samples are alike, by distances and angles between samples, or not.",
)
flags.DEFINE_list("teacher_layers", [], "Names or paths of layers, as many as --student_layers.")
flags.DEFINE_list("student_layers", [], "The layers of the student that learn from them.")
flags.DEFINE_float("feature_weight", 1.0, "Weight of each pair of layers in the loss; above 0.")
flags.DEFINE_enum(
    "precompute",
    "memory",
    ["memory", "folder", "no"],
    "Whether teachers run once, before the stage, and where their answers are kept: in `folder`, "
    "the folder of the run, they outlast a kill. With `no` they run in every step.",
)
flags.DEFINE_bool("float16", False, "Whether answers are kept in half the bytes, to 3 digits.")
DISTILL_FLAGS = ["student", "teacher", "teacher_weights", "alpha", "alpha_end", "temperature"]
DISTILL_FLAGS += ["temperature_end", "soft_loss", "feature_loss", "teacher_layers"]
DISTILL_FLAGS += ["student_layers", "feature_weight", "precompute", "float16"]

for name in ("temperature", "temperature_end", "feature_weight"):
    flags.register_validator(
        name, lambda value: value is None or value > 0.0, "expected a positive number"
    )


def student(teacher_model, custom_objects):
    """Returns what --student names: a file, a function, or a width of the teacher."""
    value = FLAGS.student
    if pathlib.Path(value).suffix in (".keras", ".h5"):
        return common.load_model(value, "student", custom_objects)
    if ":" in value:
        model = call(value, "student")
        if not isinstance(model, keras.Model):
            raise ValueError(
                f"Expected --student={value} to return a keras.Model. Received: {model!r}"
            )
        return model
    try:
        width = float(value)
    except ValueError:
        raise ValueError(
            "Received an invalid value for --student, expected a .keras or .h5 file, "
            f"module:function, or a width such as 0.5. Received: --student={value}"
        ) from None
    try:
        return tfpeft.scale_width(teacher_model, width)
    except ValueError as error:
        raise ValueError(f"Cannot make --student={value} of the teacher: {error}") from error


def distill(student_model, teacher_model, data, folder):
    data.for_model(student_model)
    model, train = taught(teacher_model, student_model, data, folder)
    from_logits = stages.answers_logits(student_model, data)
    stages.fit(model, data, train=train, from_logits=from_logits)
    return student_model


def taught(model, student_model, data, folder):
    """Returns a Distiller of the student, by --teacher or `model`, and what it trains on."""
    teachers = [_load_teacher(path) for path in FLAGS.teacher] or [model]
    answers = [_answers(teacher, data.train[0][:256]) for teacher in teachers]
    terms = _terms()
    options = {
        "alpha": _annealed("alpha", data),
        "temperature": _annealed("temperature", data),
        "distillation_losses": terms,
        "teacher_weights": _weights(len(teachers)),
        "teacher_from_logits": [are_logits(each) for each in answers],
        "student_from_logits": stages.answers_logits(student_model, data),
    }
    distiller = tfpeft.Distiller(teachers, student_model, **options)
    if FLAGS.precompute == "no":
        return distiller, data.train
    answers = tfpeft.precompute(
        teachers,
        data.train,
        folder / "answers" if FLAGS.precompute == "folder" else None,
        features=sorted({term.teacher_layer for term in terms} - {None}),
        float16=FLAGS.float16,
    )
    return distiller, answers.join(data.train)


def _load_teacher(path):
    if pathlib.Path(path).suffix == ".tflite":
        TFLiteFile(path).signature()  # raises for a bad file
        return path
    custom_objects = common.import_custom_objects(FLAGS.custom_objects)
    return common.load_model(path, "teacher", custom_objects)


def _answers(teacher, x):
    return (
        TFLiteFile(teacher).predict(x)
        if isinstance(teacher, str)
        else teacher.predict(x, verbose=0)
    )


def _weights(count):
    if not FLAGS.teacher_weights:
        return None
    try:
        weights = [float(weight) for weight in FLAGS.teacher_weights]
    except ValueError:
        weights = []
    if len(weights) != count or min(weights) <= 0:
        raise ValueError(
            f"Received an invalid value for --teacher_weights, expected {count} positive numbers, "
            f"one a --teacher. Received: --teacher_weights={','.join(FLAGS.teacher_weights)}"
        )
    return weights if count > 1 else None


def _annealed(name, data):
    start, end = FLAGS[name].value, FLAGS[f"{name}_end"].value
    if end is None:
        return start
    return keras.optimizers.schedules.PolynomialDecay(start, stages.total_steps(data), end)


def check_flags():
    """Refuses what does not go together, before anything is trained."""
    pairs = FLAGS.teacher_layers, FLAGS.student_layers
    wants_layers = FLAGS.feature_loss != "none"
    if len(pairs[0]) != len(pairs[1]) or bool(pairs[0]) != wants_layers:
        raise ValueError(
            "Received invalid values for --feature_loss, --teacher_layers and --student_layers, "
            "expected all three, with as many layers of one as of the other, or none. Received: "
            f"--feature_loss={FLAGS.feature_loss} --teacher_layers={','.join(pairs[0])} "
            f"--student_layers={','.join(pairs[1])}"
        )
    if FLAGS.soft_loss == "none" and not wants_layers:
        raise ValueError("Received --soft_loss=none, expected a --feature_loss then")


def _terms():
    soft = {
        "soft_labels": [tfpeft.SoftLabels],
        "decoupled": [tfpeft.DecoupledKD],
        "dist": [tfpeft.DIST],
        "none": [],
    }[FLAGS.soft_loss]
    of_features = {
        "matching": [tfpeft.FeatureMatching],
        "attention": [tfpeft.AttentionTransfer],
        "similarity": [tfpeft.SimilarityPreserving],
        "relational": [tfpeft.RelationalDistance, tfpeft.RelationalAngle],
        "none": [],
    }[FLAGS.feature_loss]
    pairs = zip(FLAGS.teacher_layers, FLAGS.student_layers, strict=True)
    return [make() for make in soft] + [
        make(teacher_layer=teacher, student_layer=student_, weight=FLAGS.feature_weight)
        for teacher, student_ in pairs
        for make in of_features
    ]
