"""The last stage: the model becomes a .tflite file, run and compared before it is kept."""

import tfpeft
from pipelines.common.flags import ALLOW_DEVIATION, QUANTIZATION, Flag
from pipelines.stages.stage import Stage

FLOAT_LAYERS = Flag(
    "float_layers", list, (), "Names or patterns of layers that int8 leaves in float32."
)
FLAGS = (QUANTIZATION, FLOAT_LAYERS, ALLOW_DEVIATION)


def run(settings, inputs):
    """Returns a function that writes the file to a path."""

    def write(path):
        tfpeft.export_tflite(
            inputs.model,
            path,
            quantization=settings.quantization,
            representative_data=inputs.data.train[0],
            float_layers=settings.float_layers,
            allow_deviation=settings.allow_deviation,
        )

    return write


def title(settings):
    """Returns what is printed when the stage begins."""
    return f"export, quantization {settings.quantization}"


STAGE = Stage("quantize", FLAGS, run, title=title, file="model.tflite")
