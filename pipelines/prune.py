"""Prunes a model by magnitude while it is tuned.

    python -m pipelines.prune --model=model.keras --final_sparsity=0.8

Writes prune.keras (zeros verified), its float32 model.tflite and the report to
saved_models/NAME-prune/. Zeros make the file smaller once it is compressed: see gzip.
"""

from pipelines import common, compress


def main():
    return compress.compress("prune", ["prune"])


if __name__ == "__main__":
    common.run(main, [*compress.RUN_FLAGS, *common.PRUNE_FLAGS])
