"""What has to be set before TensorFlow is imported, and where the fixtures of all tests are."""

import os
import pathlib
import signal

_LONG = ("pipelines", "distribution", "test_contract.py", "test_examples.py")
"""Folders and files whose tests take longest."""

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# XLA's machine code runs a few steps only: to optimize it takes longer than to run it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true",
)

# What a shell runs in the background ignores Ctrl-C, and what `nohup` runs ignores SIGHUP; so would
# the scripts that tests stop.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_configure(config):
    # With `-n`, the first process hands out tests and runs none: TensorFlow is for its workers.
    if not config.getoption("numprocesses", None):
        config.pluginmanager.import_plugin("tests.tensorflow_fixtures")


def pytest_collection_modifyitems(items):
    """Begins with long files, so that none is left for one worker alone at the end."""
    here = pathlib.Path(__file__).parent
    items.sort(key=lambda item: item.path.relative_to(here).parts[0] not in _LONG)
