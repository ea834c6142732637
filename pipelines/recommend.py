"""Recommends techniques for a model and what hurts, by short trials on this very model.

    python -m pipelines.recommend --model=mine.keras --dataset=mine.npz --goal=latency
    python -m pipelines.recommend --model=mine.keras --dataset=mine.npz --goal=memory --target=tflm
    python -m pipelines.recommend --model=bert_tiny_en_uncased --goal=tasks \\
        --tasks=sentiment=reviews.csv:text:label --tasks=topic=news.csv:body:section

It measures the model, tries what can help the goal on the device, and prints a ranked list: the
gain and the change of the metric with their intervals, and the command that does it in full.
saved_models/NAME/ gets report.html, report.md, report.json and trials/. Stopped at any moment and
started again with the same flags, it goes on with the trials that were not finished; more --minutes
try more.
"""

from pipelines.common import recommending
from pipelines.common.flags import (
    BATCH_SIZE,
    DATA_FLAGS,
    LEARNING_RATE,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
)
from pipelines.common.folders import RunFolder
from pipelines.common.script import Script

GROUPS = {
    "goal": recommending.FLAGS,
    "data": DATA_FLAGS,
    "task": OBJECTIVE_FLAGS,
    "model": MODEL_FLAGS,
    "training": (BATCH_SIZE, LEARNING_RATE),
}


def main(settings):
    recommending.check(settings)
    named_after = "model" if settings.goal == "tasks" else "dataset"
    with RunFolder(
        "recommend", settings, recommending.RUN_FLAGS, named_after=named_after
    ) as folder:
        found = recommending.recommend(settings, folder)
        recommending.write_report(folder, found, settings)
        print(f"\n{found}\n\nReport: {folder / 'report.md'}")
    return 0


SCRIPT = Script(
    main,
    __doc__,
    groups=GROUPS,
    first=(
        *("model", "dataset", "goal", "target", "minutes", "max_metric_loss"),
        *("techniques", "tasks", "name"),
    ),
    trains=False,
)


if __name__ == "__main__":
    SCRIPT.run()
