"""Measures models and files side by side on the test data of a dataset.

    python -m pipelines.evaluate --dataset=digits teacher.keras model.tflite

Quality, parameters, MACs, bytes, and latency on one thread, the files measured in turn.
"""

from pipelines.common import classifiers, datasets, models, objectives, samples
from pipelines.common.compilation import compilation_of
from pipelines.common.flags import (
    ALLOW_CHANCE,
    CUSTOM_OBJECTS,
    DATA_FLAGS,
    FORMAT,
    METRICS,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    READ_FLAGS,
    TASK,
    TRAIN_FLAGS,
    TRUST_CODE,
    with_defaults,
)
from pipelines.common.request import request_of
from pipelines.common.script import Script
from tfpeft.core.arguments import unexpected
from tfpeft.core.graph import output_names
from tfpeft.core.paths import file_to_read
from tfpeft.export.tflite_file import TFLiteFile


def main(settings, paths):
    if not paths:
        raise unexpected("one or more .keras, .h5 or .tflite files", "none")
    custom_objects = models.import_custom_objects(settings.custom_objects)
    given = {path: open_model(path, custom_objects, settings.trust_code) for path in paths}
    names = next(filter(None, map(output_names, given.values())), None)
    opened = {
        path: models.with_names(each, names)
        if isinstance(each, TFLiteFile)
        else models.with_named_outputs(each)
        for path, each in given.items()
    }
    first = opened[paths[0]]
    compilation = (
        None if isinstance(first, TFLiteFile) else compilation_of(paths[0], custom_objects)
    )
    request = request_of(with_defaults(settings, OBJECTIVE_FLAGS), compilation)
    data = datasets.load_given(settings, first, request, paths[0])
    if settings.format == "table":  # others are read by programs
        print(data, flush=True)
    kinds, shape = [], None
    for path, model in opened.items():
        data, objective = data.for_model(model, path)
        x = samples.first_inputs(data.test, 1)
        if shape not in (None, getattr(x, "shape", None)):
            expected = f"models with inputs of one shape, {shape[1:]} as {paths[0]}"
            raise unexpected(expected, f"{path} with {x.shape[1:]}")
        shape = getattr(x, "shape", None)
        kinds.append(objective)
        if objective.outputs is not None:
            classifiers.check_loss(path, objective.outputs, path)
        objective.chance_of(model, data.test).check(path, settings.allow_chance)
    measured = {
        path: path if isinstance(model, TFLiteFile) else model for path, model in given.items()
    }
    comparison = objectives.compare(measured, data.test, kinds)
    if settings.format == "json":
        print(comparison.to_json())
    else:
        print(comparison.to_markdown() if settings.format == "markdown" else comparison)
    return 0


def open_model(path, custom_objects, trust_code):
    """Returns the Keras model or the `TFLiteFile` at a path, or the model of a name."""
    if path.endswith(".tflite"):
        return TFLiteFile(file_to_read(path, "`path`", "a .tflite file"))
    return models.load_as_saved(path, "`path`", custom_objects, trust_code=trust_code)


SCRIPT = Script(
    main,
    __doc__,
    trains=False,
    groups={
        "data": READ_FLAGS,
        "task": (TASK, METRICS),
        "models": (CUSTOM_OBJECTS, TRUST_CODE, ALLOW_CHANCE),
        "output": (FORMAT,),
    },
    first=("dataset", "task", "metrics", "pixel_range", "classes", "format", "custom_objects"),
    takes_files=True,
    others=(*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS, *TRAIN_FLAGS),
)


if __name__ == "__main__":
    SCRIPT.run()
