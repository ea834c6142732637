"""Writes a model as a .tflite file, run and compared with the model before it is kept.

    python -m pipelines.export --model=model.keras --dataset=digits --quantization=int8

Writes model.tflite and the report to saved_models/NAME-export/. The dataset calibrates int8
(training data) and measures the file (test data).
"""

from pipelines import common, compress


def main():
    if common.FLAGS.model is None:
        raise ValueError("Expected a model to export, a .keras or .h5 file. Received no --model")
    return compress.compress("export", ["quantize"])


if __name__ == "__main__":
    common.run(
        main, [*common.DATA_FLAGS, *common.MODEL_FLAGS, *common.EXPORT_FLAGS, "max_accuracy_drop"]
    )
