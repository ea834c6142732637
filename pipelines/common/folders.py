"""The folder of a run: whole files, and the flags that they belong to."""

import contextlib
import pathlib
import time

import keras

from pipelines.common import workers
from pipelines.common.compilation import KEPT
from pipelines.common.errors import invalid_flag
from tfpeft.core import model_files, weight_files
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.files import ResumableFolder, remove
from tfpeft.core.json_files import mismatch, read_json
from tfpeft.export.tflite_file import TFLiteFile

RECORD = "run.json"
# How models in the folder are given data; before 0.2.0 pixels were divided by 255.
_CONVENTION = {"pixels": "as stored"}
_STAGES = "stages"
# Where the folder is, how strict its reader is, whether code of files runs, and which devices the
# report is about, does not change the files that stages write.
_NOT_RECORDED = (
    "output_dir",
    "name",
    "max_accuracy_drop",
    "max_metric_loss",
    "allow_chance",
    "trust_code",
    "target",
)


def name_of_run(job, settings, named_after="dataset"):
    """Returns the name of the folder of a run: --name, or one of its data and job."""
    stem = pathlib.Path(getattr(settings, named_after)).stem.replace(":", ".")
    return settings.name or f"{stem}-{job}"


class RunFolder(ResumableFolder):
    """One folder per run. `run.json` holds the job and the flags that the run started with.

    Opened again with the same flags, the run resumes; with others it raises, so that no folder
    holds parts of two runs. Flags whose files are still to be written may change: those of an
    export that failed, for instance.

    Args:
        job: Name of the job, such as "compress".
        settings: Settings of the run.
        flags: The flags that the results depend on.
        named_after: The setting, such as "dataset", that names the folder without --name.
        files: Name of a flag -> names of all files that depend on it; by default any file may.
    """

    def __init__(self, job, settings, flags, *, named_after="dataset", files=None):
        name = name_of_run(job, settings, named_after)
        if pathlib.Path(name).is_absolute() or ".." in pathlib.Path(name).parts:
            raise invalid_flag("name", "the name of a folder in --output_dir", name)
        self._files = files or {}
        names = dict.fromkeys(flag.name for flag in flags if flag.name not in _NOT_RECORDED)
        self.flags = {name: getattr(settings, name) for name in names}
        super().__init__(
            workers.own_path(pathlib.Path(settings.output_dir) / name),
            RECORD,
            {"job": job, "flags": self.flags},
            kind="results of a script",
            argument="--output_dir and --name",
            prefix="--",
        )
        convention = _CONVENTION if named_after == "dataset" else {}
        if self.progress is None:
            self.save(**convention)
        elif {key: self.progress[key] for key in self.progress if key != _STAGES} != convention:
            self.close()
            raise self._unusable("of a version that scaled pixels: remove it, or name another")

    @property
    def kept(self):
        """{stage: {fact: value}} of `timed`, also of earlier processes."""
        kept = self.progress.get(_STAGES)
        return kept if mismatch(kept, {str: {str: object}}) is None else {}

    @contextlib.contextmanager
    def timed(self, stage, facts=None):
        """A context of a stage; its seconds, and its facts, are kept for the report.

        Args:
            stage: Name of the stage.
            facts: A dict that the body fills, of values that JSON can hold; None for none.
        """
        started = time.monotonic()
        yield
        kept = {"seconds": time.monotonic() - started, **(facts or {})}
        self.save(**{**self.progress, _STAGES: {**self.kept, stage: kept}})

    def _open(self, progress):
        """Also removes the record of a run that ended before its first stage did."""
        if self.names() <= {RECORD, KEPT}:
            self.discard(self.names())
        super()._open(progress)

    def _may_change(self, setting):
        files = self._files.get(setting)
        return files is not None and not any((self / file).exists() for file in files)

    def has(self, name, schema=object):
        """Returns whether the file `name` is there and whole.

        A file that is damaged is removed, and a line says so: the stage that wrote it runs again.

        Args:
            name: The file.
            schema: The form of a JSON file, for `mismatch`.
        """
        path = self / name
        if path.is_dir():
            raise unexpected("a file, or none", f"{path}, which is a folder: remove it")
        if not path.exists():
            return False
        try:
            _check(path, schema)
        except InputError as error:
            print(f"{path} is damaged, so what it holds is computed again: {error}", flush=True)
            remove(path)
            return False
        return True

    def discard(self, names):
        """Removes files of stages that have to run again."""
        for name in names:
            remove(self / name)

    def write(self, name, content):
        """Writes the file `name`: a text, a `keras.Model`, or what a function of a path writes."""
        super().write(name, content.save if isinstance(content, keras.Model) else content)


def _check(path, schema):
    """Raises an InputError for a damaged file."""
    if path.suffix == ".json":
        read_json(path, schema)
    elif path.suffix == ".tflite":
        TFLiteFile(path).signatures  # noqa: B018
    elif path.name.endswith((".weights.h5", ".safetensors")):
        weight_files.read(path)
    elif path.suffix in model_files.SUFFIXES:
        damage = model_files.damage_of(path, whole=True)
        if damage:
            raise InputError(damage)
