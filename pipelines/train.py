"""Trains the default model on a dataset: a small CNN on images, an MLP on flat data.

    python -m pipelines.train --dataset=digits

Writes teacher.keras, its float32 model.tflite and the report to saved_models/NAME-train/.
"""

from pipelines.common.flags import DATA_FLAGS, TRAIN_FLAGS
from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("train", settings, [])


SCRIPT = Script(
    main,
    __doc__,
    groups={"data": DATA_FLAGS, "training": TRAIN_FLAGS},
    first=("dataset", "epochs", "batch_size", "learning_rate", "name", "seed"),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
