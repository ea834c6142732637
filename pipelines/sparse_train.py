"""Trains a model that is sparse from the first step on.

    python -m pipelines.sparse_train --model=model.keras --technique=rigl --sparsity=0.9
    python -m pipelines.sparse_train --model=model.keras --technique=proximal_l1 --l1=0.3

--model may be an untrained model; the report compares with it. Without it a model is trained first.
Writes sparse_train.keras (zeros verified), its float32 model.tflite and the report to
saved_models/NAME-sparse_train/. Zeros make the file smaller once it is compressed: see gzip.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("sparse_train", settings, ["sparse_train"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("sparse_train"),
    first=(
        "dataset",
        "model",
        "technique",
        "sparsity",
        "distribution",
        "exclude",
        "l1",
        "epochs",
        "learning_rate",
        "max_accuracy_drop",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
