"""The last stage: the model becomes a .tflite file, run and compared before it is kept."""

import tfpeft
from pipelines.common.flags import QUANTIZATION
from pipelines.stages.stage import Stage

FLAGS = (QUANTIZATION,)


def run(settings, inputs):
    """Returns a function that writes the file to a path."""

    def write(path):
        tfpeft.export_tflite(
            inputs.model,
            path,
            quantization=settings.quantization,
            representative_data=inputs.data.train[0],
        )

    return write


def title(settings):
    """Returns what is printed when the stage begins."""
    return f"export, quantization {settings.quantization}"


STAGE = Stage("quantize", FLAGS, run, title=title, file="model.tflite")
