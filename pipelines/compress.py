"""Turns a model and its data into a small .tflite file, with a report of what that cost.

    python -m pipelines.compress                              # the embedded digits
    python -m pipelines.compress --dataset=fashion_mnist --data_dir=data --student=0.4
    python -m pipelines.compress --model=mine.keras --dataset=mine.npz --max_macs=0.5
    python -m pipelines.compress --model=mine.keras --dataset=mine.npz --stages=prune,quantize
    python -m pipelines.compress --model=mine.keras --dataset=mine.npz --stages=auto --goal=latency

A model that is given loses channels, then weights (stages prune_channels, prune); without --model
one is trained, and teaches a student of half its width (distill, prune).

Everything goes to saved_models/NAME/: a .keras file per stage, model.tflite, report.html (one page
for a browser), report.md, report.json, accuracy_size.png and model_card.md. Stopped at any moment
and started again with the same flags, it resumes with the stage that was not finished. Epochs are
chosen on validation data; the report is of test data.

Exit status: 0; 1 for bad input; 2 where the file is worse than --max_accuracy_drop allows, or with
--stages=auto larger than --max_size_bytes.
"""

from pipelines.common.flags import with_value
from pipelines.common.script import Script
from pipelines.stages import STAGES, automatic, compression


def main(settings):
    if automatic.is_asked_for(settings):
        settings, limit = automatic.settings_with_stages(settings, SCRIPT)
        if settings is None:  # nothing to gain, which is printed
            return 0
        return max(_run(settings), automatic.status_of(settings, limit))
    return _run(settings)


def _run(settings):
    stages = settings.stages or compression.default_stages(settings)
    settings = with_value(settings, "stages", stages)
    return compression.run("compress", settings, stages, own_flags=(compression.STAGES_FLAG,))


SCRIPT = Script(
    main,
    __doc__,
    groups={"stages": (compression.STAGES_FLAG, *automatic.FLAGS), **compression.groups(*STAGES)},
    first=(
        *("dataset", "model", "stages", "student", "max_macs", "alpha"),
        *("final_sparsity", "quantization", "epochs", "max_accuracy_drop"),
    ),
)


if __name__ == "__main__":
    SCRIPT.run()
