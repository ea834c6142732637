"""The folder of a run: whole files, and the flags that they belong to."""

import pathlib

import keras

from tfpeft.core.files import PARTIAL, ResumableFolder, remove

RECORD = "run.json"
# Where the folder is, and how strict its reader is, does not change what is in it.
_NOT_RECORDED = ("output_dir", "name", "max_accuracy_drop", "allow_chance")


class RunFolder(ResumableFolder):
    """One folder per run. `run.json` holds the job and the flags that the run started with.

    Opened again with the same flags, the run resumes; with others it raises, so that no folder
    holds parts of two runs.

    Args:
        job: Name of the job, such as "compress".
        settings: Settings of the run.
        flags: The flags that the results depend on.
        named_after: The setting, such as "dataset", that names the folder without --name.
    """

    def __init__(self, job, settings, flags, *, named_after="dataset"):
        stem = pathlib.Path(getattr(settings, named_after)).stem.replace(":", ".")
        path = pathlib.Path(settings.output_dir) / (settings.name or f"{stem}-{job}")
        names = dict.fromkeys(flag.name for flag in flags if flag.name not in _NOT_RECORDED)
        self.flags = {name: getattr(settings, name) for name in names}
        _forget_unstarted(path)
        super().__init__(
            path,
            RECORD,
            {"job": job, "flags": self.flags},
            kind="results of a script",
            argument="--output_dir and --name",
            prefix="--",
        )
        if self.progress is None:
            self.save()

    def write(self, name, content):
        """Writes the file `name`: a text, a `keras.Model`, or what a function of a path writes."""
        super().write(name, content.save if isinstance(content, keras.Model) else content)


def _forget_unstarted(path):
    """Removes the record of a run that ended before its first stage did."""
    if path.is_dir():
        names = {file.name for file in path.iterdir() if not file.name.startswith(PARTIAL)}
        if names == {RECORD}:
            remove(path / RECORD)
