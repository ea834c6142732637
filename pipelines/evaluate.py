"""Measures models and files side by side on the test data of a dataset.

    python -m pipelines.evaluate --dataset=digits teacher.keras model.tflite

Quality, parameters, MACs, bytes, and latency on one thread, the files measured in turn.
"""

import pathlib

from absl import flags

import tfpeft
from pipelines import common

FLAGS = flags.FLAGS


def main(paths):
    if not paths:
        raise ValueError("Expected one or more .keras, .h5 or .tflite files. Received none")
    custom_objects = common.import_custom_objects(FLAGS.custom_objects)
    data = common.load_data()
    models = {}
    for path in paths:
        if not pathlib.Path(path).is_file():
            raise ValueError(f"Expected a .keras, .h5 or .tflite file. Received: {path}")
        models[path] = path
        if not path.endswith(".tflite"):
            models[path] = common.load_model(path, "model", custom_objects)
            data = data.for_model(models[path])
    comparison = tfpeft.compare(models, data.test)
    if FLAGS.format == "json":
        print(comparison.to_json())
    else:
        print(comparison.to_markdown() if FLAGS.format == "markdown" else comparison)
    return 0


if __name__ == "__main__":
    common.run(
        main, ["dataset", "data_dir", "image_size", "custom_objects", "format"], takes_files=True
    )
