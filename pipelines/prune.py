"""Prunes a model while it is tuned: by magnitude, gradient or movement, gradually or in rounds.

    python -m pipelines.prune --model=model.keras --final_sparsity=0.8
    python -m pipelines.prune --model=model.keras --final_sparsity=0.95 --scope=global
    python -m pipelines.prune --model=model.keras --n_m=2,4 --exclude=head
    python -m pipelines.prune --model=model.keras --final_sparsity=0.9 --iterative --sensitivity

Writes prune.keras (zeros verified), its float32 model.tflite and the report to
saved_models/NAME-prune/. Zeros make the file smaller once it is compressed: see gzip.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("prune", settings, ["prune"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("prune"),
    first=(
        "dataset",
        "model",
        "final_sparsity",
        "criterion",
        "scope",
        "exclude",
        "n_m",
        "iterative",
        "epochs",
        "learning_rate",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
