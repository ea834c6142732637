"""Measures models and files side by side on the test data of a dataset.

    python -m pipelines.evaluate --dataset=digits teacher.keras model.tflite

Quality, parameters, MACs, bytes, and latency on one thread, the files measured in turn.
"""

import pathlib

import tfpeft
from pipelines.common import datasets, models
from pipelines.common.flags import (
    CUSTOM_OBJECTS,
    DATA_DIR,
    DATA_FLAGS,
    DATASET,
    FORMAT,
    IMAGE_SIZE,
    MODEL_FLAGS,
    TRAIN_FLAGS,
)
from pipelines.common.script import Script
from tfpeft.core.arguments import unexpected


def main(settings, paths):
    if not paths:
        raise unexpected("one or more .keras, .h5 or .tflite files", "none")
    custom_objects = models.import_custom_objects(settings.custom_objects)
    data = datasets.load(
        settings.dataset, data_dir=settings.data_dir, image_size=settings.image_size
    )
    measured = {}
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise unexpected("a .keras, .h5 or .tflite file", path)
        measured[path] = path
        if not path.endswith(".tflite"):
            measured[path] = models.load_model(path, "model", custom_objects)
            data = data.for_model(measured[path])
    comparison = tfpeft.compare(measured, data.test)
    if settings.format == "json":
        print(comparison.to_json())
    else:
        print(comparison.to_markdown() if settings.format == "markdown" else comparison)
    return 0


SCRIPT = Script(
    main,
    __doc__,
    groups={
        "data": (DATASET, DATA_DIR, IMAGE_SIZE),
        "models": (CUSTOM_OBJECTS,),
        "output": (FORMAT,),
    },
    first=("dataset", "format", "data_dir", "custom_objects"),
    takes_files=True,
    others=(*DATA_FLAGS, *MODEL_FLAGS, *TRAIN_FLAGS),
)


if __name__ == "__main__":
    SCRIPT.run()
