"""Trains a student on labels and on a teacher's softened outputs.

    python -m pipelines.distill --model=teacher.keras --student=0.5 --temperature=4

Writes distill.keras, its float32 model.tflite and the report to saved_models/NAME-distill/.
Without --model a teacher is trained first.
"""

from pipelines import common, compress


def main():
    return compress.compress("distill", ["distill"])


if __name__ == "__main__":
    common.run(main, [*compress.RUN_FLAGS, *common.DISTILL_FLAGS])
