"""Writes the report of a run again, from the run's folder alone: no data, no model, no network.

    python -m pipelines.report --run=saved_models/digits-compress
    python -m pipelines.report --run=saved_models/digits-compress --output=for_my_boss.html
    python -m pipelines.report --run=saved_models/digits-compress --model_card --output=README.md

report.html is one page that needs no other file: what was done, tables, charts, samples on which
the file differs from the teacher, and how to repeat the run. With --model_card, the card of a model
for the Hugging Face Hub is written instead: Markdown with metadata. Every run writes both itself.
"""

import pathlib

from pipelines.common import report_page
from pipelines.common.flags import Flag
from pipelines.common.script import Script
from tfpeft.core.arguments import unexpected
from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write

RUN = Flag("run", str, None, "Folder of a run that has ended, of any script.")
OUTPUT = Flag("output", str, None, "The file; by default report.html or model_card.md in --run.")
MODEL_CARD = Flag("model_card", bool, False, "Whether the model card is written, not the page.")


def main(settings):
    if settings.run is None:
        raise unexpected("the folder of a run that has ended", "no --run")
    name = "model_card.md" if settings.model_card else "report.html"
    text = report_page.page(name, settings.run)
    output = pathlib.Path(settings.output or pathlib.Path(settings.run) / name)
    with replacing(file_to_write(output, "--output"), "--output") as partial:
        partial.write_text(text, encoding="utf-8")
    print(f"{'Model card' if settings.model_card else 'Report'}: {output}")
    return 0


SCRIPT = Script(
    main,
    __doc__,
    trains=False,
    groups={"report": (RUN, OUTPUT, MODEL_CARD)},
    first=("run", "output", "model_card"),
)


if __name__ == "__main__":
    SCRIPT.run()
