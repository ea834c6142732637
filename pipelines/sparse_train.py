"""Trains a model that is sparse from the first step on.

    python -m pipelines.sparse_train --model=model.keras --technique=rigl --sparsity=0.9
    python -m pipelines.sparse_train --model=model.keras --technique=proximal_l1 --l1=0.3

Writes sparse_train.keras (zeros verified), its float32 model.tflite and the report to
saved_models/NAME-sparse_train/. Zeros make the file smaller once it is compressed: see gzip.
"""

from pipelines import common, compress, sparsify


def main():
    return compress.compress("sparse_train", ["sparse_train"])


if __name__ == "__main__":
    common.run(main, [*compress.RUN_FLAGS, *sparsify.SPARSE_TRAIN_FLAGS])
