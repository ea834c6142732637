"""Trains the default model on a dataset: a small CNN on images, an MLP on flat data.

    python -m pipelines.train --dataset=digits

Writes teacher.keras, its float32 model.tflite and the report to saved_models/NAME-train/.
"""

from pipelines import common, compress


def main():
    return compress.compress("train", [])


if __name__ == "__main__":
    common.run(main, [*common.DATA_FLAGS, *common.TRAIN_FLAGS])
