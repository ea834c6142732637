r"""Trains a student on labels and on a teacher's softened outputs.

    python -m pipelines.distill --model=teacher.keras --student=0.5 --temperature=4
    python -m pipelines.distill --model=a.keras --teacher=a.keras --teacher=b.tflite
    python -m pipelines.distill --model=teacher.keras --feature_loss=matching \
        --teacher_layers=conv_3 --student_layers=conv_3 --alpha=0.9 --alpha_end=0.1

--model is what the report compares with and, unless --teacher names others, what teaches; without
it a model is trained first. Writes distill.keras, its float32 model.tflite and the report to
saved_models/NAME-distill/.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("distill", settings, ["distill"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("distill"),
    first=(
        "dataset",
        "model",
        "teacher",
        "student",
        "alpha",
        "temperature",
        "soft_loss",
        "feature_loss",
        "epochs",
        "learning_rate",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
