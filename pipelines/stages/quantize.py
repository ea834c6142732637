"""The last stage: the model becomes a .tflite file, run and compared before it is kept."""

import tfpeft
from pipelines.common import exporting, objectives, samples
from pipelines.common.flags import Flag
from pipelines.stages.stage import Stage
from tfpeft.export.layer_errors import recording_layer_errors

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
    outputs = objectives.of(data, model).outputs
    names = () if outputs is None else exporting.labels(data.names, outputs.units)

    def write(path):
        with recording_layer_errors() as errors:
            tfpeft.export_tflite(
                model,
                path,
                representative_data=samples.representative(data.train),
                float_layers=settings.float_layers,
                labels=names or None,
                **exporting.arguments(settings),
            )
        inputs.facts["layer_snr_db"] = errors

    return write


def title(settings):
    """Returns what is printed when the stage begins."""
    return f"export, quantization {settings.quantization}"


STAGE = Stage("quantize", FLAGS, run, check=exporting.check, title=title, file="model.tflite")
