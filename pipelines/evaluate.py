"""Measures models and files side by side on the test data of a dataset.

    python -m pipelines.evaluate --dataset=digits teacher.keras model.tflite

Quality, parameters, MACs, bytes, and latency on one thread, the files measured in turn.
"""

import pathlib

import tfpeft
from pipelines.common import classifiers, datasets, models
from pipelines.common.flags import (
    ALLOW_CHANCE,
    CUSTOM_OBJECTS,
    DATA_FLAGS,
    FORMAT,
    MODEL_FLAGS,
    READ_FLAGS,
    TRAIN_FLAGS,
)
from pipelines.common.script import Script
from tfpeft.core.arguments import unexpected
from tfpeft.export.tflite_file import TFLiteFile


def main(settings, paths):
    if not paths:
        raise unexpected("one or more .keras, .h5 or .tflite files", "none")
    custom_objects = models.import_custom_objects(settings.custom_objects)
    opened = {path: open_model(path, custom_objects) for path in paths}
    data = datasets.load_given(settings, models.input_shape(opened[paths[0]]))
    if settings.format == "table":  # others are read by programs
        print(data, flush=True)
    kinds = []
    for path, model in opened.items():
        before = data.test[0].shape
        data, outputs = data.for_model(model, path)
        if kinds and data.test[0].shape != before:
            expected = f"models with inputs of one shape, {before[1:]} as {paths[0]}"
            raise unexpected(expected, f"{path} with {data.test[0].shape[1:]}")
        kinds.append(outputs)
        classifiers.check_loss(path, outputs, path)
        chance = classifiers.chance_of(model, data.test, outputs)
        chance.check(path, settings.allow_chance)
    measured = {
        path: path if isinstance(model, TFLiteFile) else model for path, model in opened.items()
    }
    comparison = tfpeft.compare(measured, data.test, from_logits=classifiers.from_logits(kinds))
    if settings.format == "json":
        print(comparison.to_json())
    else:
        print(comparison.to_markdown() if settings.format == "markdown" else comparison)
    return 0


def open_model(path, custom_objects):
    """Returns the Keras model or the `TFLiteFile` at a path."""
    if not pathlib.Path(path).is_file():
        raise unexpected("a .keras, .h5 or .tflite file", path)
    if path.endswith(".tflite"):
        return TFLiteFile(path)
    return models.load_model(path, "model", custom_objects)


SCRIPT = Script(
    main,
    __doc__,
    trains=False,
    groups={
        "data": READ_FLAGS,
        "models": (CUSTOM_OBJECTS, ALLOW_CHANCE),
        "output": (FORMAT,),
    },
    first=("dataset", "pixel_range", "classes", "format", "custom_objects"),
    takes_files=True,
    others=(*DATA_FLAGS, *MODEL_FLAGS, *TRAIN_FLAGS),
)


if __name__ == "__main__":
    SCRIPT.run()
