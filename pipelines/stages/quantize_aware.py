"""The stage that trains with the rounding of an integer file; zeros and clusters stay."""

import tfpeft
from pipelines.common import objectives, samples, training
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from pipelines.stages import keeping, quantize, sparsify
from pipelines.stages.distill import make_distiller
from pipelines.stages.stage import Stage
from tfpeft.core.arguments import NoMatchError
from tfpeft.core.clone import copy_model
from tfpeft.quantization.quantize_aware import RANGES

FLAGS = (
    Flag("weight_bits", int, 8, "Bits of kernels in quantise-aware training.", choices=(8, 4)),
    Flag(
        "activation_bits",
        int,
        8,
        "Bits of activations; 16 makes a file of --quantization=int16x8.",
        choices=(8, 16),
    ),
    Flag(
        "ranges",
        str,
        "moving_average",
        "Of activations: the moving average of batches, or learned by gradients.",
        choices=RANGES,
    ),
    Flag(
        "range_momentum",
        float,
        0.99,
        "Of the moving average of ranges.",
        above=0,
        at_most=1,
    ),
    Flag(
        "freeze_after",
        float,
        None,
        "When the ranges stop to move, as a fraction of the stage; by default they never do.",
        above=0,
        at_most=1,
    ),
    quantize.FLOAT_LAYERS,
    sparsify.INCLUDE,
)
_LEARNED_READS_NO = ("range_momentum", "freeze_after")


def check(settings):
    """Raises for flags that do not go together."""
    if (settings.weight_bits, settings.activation_bits) == (4, 16):
        raise invalid_flag("weight_bits", "8 with --activation_bits=16", 4)
    for name in _LEARNED_READS_NO:
        if settings.ranges == "learned" and name in settings.given:
            raise unread_flag(name, "--ranges=learned")


def quantization(settings):
    """Returns the quantization of the file that becomes of the model."""
    return "int8" if settings.activation_bits == 8 else "int16x8"


def run(settings, inputs):
    """Returns the quantise-aware model; its file needs no other calibration.

    A model that was distilled keeps its teacher.
    """
    model, data = _quantise_aware(settings, inputs), inputs.data
    for path, reason in model.in_float.items():
        print(f"In float32: {path}, {reason}", flush=True)
    kept = keeping.kept_of(model, settings.include)
    if str(kept):
        print(f"Kept: {kept}", flush=True)
    trained, train = model, None
    if inputs.teacher:
        trained, train = make_distiller(settings, inputs, inputs.teacher, model)
    objective = objectives.of(data, model)
    training.fit(settings, trained, data, objective, train=train, sparsify=kept.wrap)
    kept.check(model.model)
    return copy_model(model)  # not compiled


def _quantise_aware(settings, inputs):
    steps = training.total_steps(settings, inputs.data)
    fraction = settings.freeze_after
    try:
        return tfpeft.quantize_aware(
            inputs.model,
            weight_bits=settings.weight_bits,
            activation_bits=settings.activation_bits,
            ranges=settings.ranges,
            momentum=settings.range_momentum,
            freeze_after=None if fraction is None else max(1, round(fraction * steps)),
            exclude=settings.float_layers,
            representative_data=samples.representative(inputs.data.train),
        )
    except NoMatchError as error:
        layers = ",".join(settings.float_layers)
        raise NoMatchError(f"Cannot leave --float_layers={layers} in float32: {error}") from error


def title(settings):
    """Returns what is printed when the stage begins."""
    bits = f"{settings.weight_bits}-bit weights, {settings.activation_bits}-bit activations"
    return f"quantize_aware, {bits}"


STAGE = Stage("quantize_aware", FLAGS, run, check=check, title=title)
