"""Bad inputs of reports: `FigureLogger`, and run folders of `pipelines.report`."""

import json

import tfpeft
from bad_cases import values
from bad_cases.case import Case, bad_arguments, run_script
from bad_cases.run_folders import BAD_JSON, copied, ended_prune
from bad_cases.scripts import SCRIPTS
from bad_cases.values import NAN


def logger():
    return tfpeft.FigureLogger("tensorboard", folder="logs")


def of_figure_logger():
    return [
        *bad_arguments(
            "FigureLogger",
            tfpeft.FigureLogger,
            lambda: {"to": "tensorboard", "folder": "logs"},
            {"to": (*values.CHOICE, "TensorBoard", None), "folder": values.PATH},
        ),
        Case(
            "FigureLogger('mlflow', folder='logs')",
            lambda: tfpeft.FigureLogger("mlflow", folder="logs"),
            ("folder",),
        ),
        *bad_arguments(
            "FigureLogger.log",
            lambda **arguments: logger().log(**arguments),
            lambda: {"figures": {"loss": 0.5}, "step": 1},
            {
                "figures": (None, 3, [], {}, {"loss": "a"}, {"loss": NAN}, {"loss": True}),
                "step": (None, -1, 0.5, NAN, "1", True),
            },
        ),
    ]


def of_report():
    """Run folders with a file that is damaged, or that is not there."""
    damaged = [
        *(("run.json", words, content) for words, content in BAD_JSON.items()),
        *(("report.json", words, content) for words, content in BAD_JSON.items()),
        ("run.json", "gone", None),
        ("report.json", "gone", None),
        ("report_samples.npz", "text", b"no arrays"),
        *(
            ("report.json", words, json.dumps(content).encode())
            for words, content in {
                "rows of a number": {"rows": 3},
                "rows without figures": {"rows": {"teacher": {}}},
                "layers of texts": {"rows": {}, "layers": ["a"]},
                "stages without a title": {"rows": {}, "stages": [{}]},
            }.items()
        ),
    ]
    found = []
    for file, words, content in damaged:

        def call(file=file, content=content):
            folder = copied(ended_prune(), {file: content})
            return run_script(SCRIPTS["report"], f"--run={folder}")

        found.append(Case(f"report with {file}: {words}", call, (file,), is_script=True))
    return found


def cases():
    return [*of_figure_logger(), *of_report()]
