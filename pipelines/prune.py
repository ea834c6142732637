"""Prunes a model while it is tuned: by magnitude, gradient or movement, gradually or in rounds.

    python -m pipelines.prune --model=model.keras --final_sparsity=0.8
    python -m pipelines.prune --model=model.keras --final_sparsity=0.95 --scope=global
    python -m pipelines.prune --model=model.keras --n_m=2,4 --exclude=head
    python -m pipelines.prune --model=model.keras --final_sparsity=0.9 --iterative --sensitivity

Writes prune.keras (zeros verified), its float32 model.tflite and the report to
saved_models/NAME-prune/. Zeros make the file smaller once it is compressed: see gzip.
"""

from pipelines import common, compress, sparsify


def main():
    return compress.compress("prune", ["prune"])


if __name__ == "__main__":
    common.run(main, [*compress.RUN_FLAGS, *sparsify.PRUNE_FLAGS])
