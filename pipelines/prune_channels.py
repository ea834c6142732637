"""Removes the channels that matter least, and tunes what is left by distillation from the model.

    python -m pipelines.prune_channels --model=model.keras --max_macs=0.5
    python -m pipelines.prune_channels --model=model.keras --max_latency_ms=50% --round_to=8
    python -m pipelines.prune_channels --model=model.keras --max_macs=0.25 --steps=4 --epochs=50

A budget with "%" is a fraction of the model's own. Without --ratio and budgets, half of the
multiply-accumulates are left. Without --model one is trained first. Writes prune_channels.keras,
its float32 model.tflite, the channels of each layer (channels.md, channels.png) and the report to
saved_models/NAME-prune_channels/.
"""

from pipelines.common.script import Script
from pipelines.stages import compression


def main(settings):
    return compression.run("prune_channels", settings, ["prune_channels"])


SCRIPT = Script(
    main,
    __doc__,
    groups=compression.groups("prune_channels"),
    first=(
        "dataset",
        "model",
        "max_macs",
        "max_latency_ms",
        "ratio",
        "importance",
        "exclude",
        "steps",
        "epochs",
        "learning_rate",
    ),
    others=compression.ALL_FLAGS,
)


if __name__ == "__main__":
    SCRIPT.run()
