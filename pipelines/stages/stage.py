"""The interface of a stage: its flags, its check and its run."""

import dataclasses
import typing

import keras

from pipelines.common.folders import RunFolder
from pipelines.common.splits import Data


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a stage works on.

    Attributes:
        data: The `Data` of the run, in the input shape of the model.
        folder: The `RunFolder`, for files beside the stage's own.
        model: The result of the stage before; for the first stage, what --model names, or None.
        teacher: The model that an earlier stage distilled `model` from, the first one of several;
            None without such a stage.
        custom_objects: Name -> class or function of --custom_objects.
        facts: What the stage keeps for the report beside its file, values that JSON can hold.
    """

    data: Data
    folder: RunFolder
    model: keras.Model | None = None
    teacher: keras.Model | None = None
    custom_objects: dict = dataclasses.field(default_factory=dict)
    facts: dict = dataclasses.field(default_factory=dict)


def _accept(settings):
    """Accepts all settings."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A step of a run.

    Settings have an attribute for each flag of the stage, and for those that every run has
    (`compression.RUN_FLAGS`). They are a plain object, so that a stage runs without a command
    line: `stage.run(settings_of([*RUN_FLAGS, *stage.flags], {"epochs": 1}), inputs)`.

    Attributes:
        name: The name in --stages, and of the row in the report.
        flags: The flags that the stage reads, beside those that every run has.
        run: A function `(settings, inputs) -> content` of the stage's file: a `keras.Model`, or a
            function that writes to a path.
        check: A function of the settings that raises for flags which do not go together; it is
            called before anything is read or trained.
        title: A function of the settings that returns what is printed when the stage begins; by
            default its name.
        file: Name of the file that the stage writes; by default NAME.keras.
        folders: Names of the folders from which the stage resumes.
        from_scratch: Whether the model that it starts from may be untrained.
        distils: Whether its model learns from the one before, which then teaches in later stages.
    """

    name: str
    flags: tuple
    run: typing.Callable
    check: typing.Callable = _accept
    title: typing.Callable | None = None
    file: str = ""
    folders: tuple = ()
    from_scratch: bool = False
    distils: bool = False

    def __post_init__(self):
        if not self.file:
            object.__setattr__(self, "file", f"{self.name}.keras")

    def heading(self, settings):
        """Returns what is printed when the stage begins."""
        return self.title(settings) if self.title else self.name
