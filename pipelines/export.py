"""Writes a model as a .tflite file, run and compared with the model before it is kept.

    python -m pipelines.export --model=model.keras --dataset=digits --quantization=int8

Writes model.tflite and the report to saved_models/NAME-export/. The dataset calibrates int8
(training data) and measures the file (test data).
"""

from pipelines.common.flags import DATA_FLAGS, MODEL_FLAGS
from pipelines.common.script import Script
from pipelines.stages import compression, quantize
from tfpeft.core.arguments import unexpected


def main(settings):
    if settings.model is None:
        raise unexpected("a model to export, a .keras or .h5 file", "no --model")
    return compression.run("export", settings, ["quantize"])


SCRIPT = Script(
    main,
    __doc__,
    groups={
        "data": DATA_FLAGS,
        "model": MODEL_FLAGS,
        "export": (*quantize.FLAGS, *compression.RESULT_FLAGS),
    },
    first=(
        *("model", "dataset", "quantization", "file_batch_size", "input_type", "output_type"),
        *("target", "max_accuracy_drop", "custom_objects", "name"),
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
