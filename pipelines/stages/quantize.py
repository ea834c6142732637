"""The last stage: the model becomes a .tflite file, run and compared before it is kept."""

import tfpeft
from pipelines.common import exporting
from pipelines.common.classifiers import outputs_of
from pipelines.common.flags import Flag
from pipelines.stages.stage import Stage

FLOAT_LAYERS = Flag(
    "float_layers",
    list,
    (),
    "Names or patterns of layers that int8 leaves in float32, in quantise-aware training as well.",
)
FLAGS = (*exporting.FLAGS, FLOAT_LAYERS)


def run(settings, inputs):
    """Returns a function that writes the file to a path."""
    data, model = inputs.data, inputs.model
    units = outputs_of(model, data.train[0]).units

    def write(path):
        tfpeft.export_tflite(
            model,
            path,
            representative_data=data.train[0],
            float_layers=settings.float_layers,
            labels=exporting.labels(data.names, units),
            **exporting.arguments(settings),
        )

    return write


def title(settings):
    """Returns what is printed when the stage begins."""
    return f"export, quantization {settings.quantization}"


STAGE = Stage("quantize", FLAGS, run, check=exporting.check, title=title, file="model.tflite")
