"""Files that are whole or not there, and folders in which an interrupted job resumes."""

import contextlib
import json
import os
import pathlib
import shutil

from tfpeft.core.arguments import InputError

PARTIAL = "tfpeft-partial."
"""How the name of a file begins while it is being written."""


@contextlib.contextmanager
def replacing(path):
    """Yields a path beside `path` to write a file or folder to, and renames it to `path`.

    If the body raises, its files are removed, and an older file or folder at `path` stays.

    Args:
        path: The file or folder to write; missing parent folders are created.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The ending stays last, as Keras and NumPy read the format from it.
    partial = path.with_name(f"{PARTIAL}{path.name}")
    remove(partial)
    try:
        yield partial
        if partial.is_dir() and path.is_dir():
            remove(path)  # a folder replaces an empty one only
        os.replace(partial, path)
    finally:
        remove(partial)


def remove(path):
    """Removes a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


class ResumableFolder:
    """A folder of whole files, and a record of the settings of the job that writes them.

    The record is a JSON file, `{**settings, **progress}`. A folder that is opened again with the
    same settings resumes; with other settings it raises, so that no folder holds parts of two
    jobs. Files that an interrupted job left half-written are removed.

    Args:
        path: The folder; it is created.
        record: Name of the JSON file.
        settings: A dict that JSON can hold; values may be dicts.
        kind: What the folder holds, in words, for errors: "precomputed outputs".
        argument: What names the folder in the user's call: "`path`" or "--output_dir".
        prefix: What stands before the name of a setting in errors: "--" of flags.

    Attributes:
        path: The folder, a `pathlib.Path`.
        progress: What the record holds beside the settings; None in a new folder.

    Raises:
        InputError: if `path` is a file, or the folder holds other files, another job's settings,
            or a record that cannot be read.
    """

    def __init__(self, path, record, settings, *, kind, argument, prefix=""):
        if not isinstance(path, (str, os.PathLike)) or pathlib.Path(path).is_file():
            raise InputError(f"Received an invalid {argument}, expected a folder. Received: {path}")
        self.path = pathlib.Path(path)
        self.record, self.kind, self.argument, self.prefix = record, kind, argument, prefix
        self.settings = json.loads(json.dumps(settings))
        self.progress = None
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(f"{PARTIAL}*"):
            remove(leftover)
        if (self.path / record).is_file():
            self._read()
        elif any(self.path.iterdir()):
            raise self._unusable("which holds other files")

    def _read(self):
        try:
            saved = json.loads((self.path / self.record).read_text())
            before = {key: saved.pop(key, None) for key in self.settings}
        except (ValueError, AttributeError, TypeError) as error:
            raise self._unusable(f"whose {self.record} is damaged") from error
        changed = [self.prefix + text for text in _differences(before, self.settings)]
        if changed:
            raise InputError(
                f"{self.path} ({self.argument}) holds other {self.kind}, expected the same "
                f"settings, or another folder. Received: {'; '.join(changed)}"
            )
        self.progress = saved

    def _unusable(self, why):
        return InputError(
            f"Received an invalid {self.argument}, expected an empty folder, or one of "
            f"{self.kind}. Received: {self.path}, {why}"
        )

    def __truediv__(self, name):
        return self.path / name

    def save(self, **progress):
        """Writes the record: the settings, and `progress`, values that JSON can hold."""
        self.progress = progress
        self.write(self.record, json.dumps({**self.settings, **progress}, indent=2))

    def write(self, name, content):
        """Writes the file `name`.

        Args:
            name: The file.
            content: A text, or a function that writes a file or a folder to the path it gets.
        """
        try:
            with replacing(self.path / name) as partial:
                if isinstance(content, str):
                    partial.write_text(content)
                else:
                    content(partial)
        except OSError as error:
            raise OSError(f"Cannot write {self.path / name} ({self.argument}): {error}") from error


def _differences(before, now):
    """Yields a text per setting that differs; settings in nested dicts go by their own names."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new)
        elif old != new:
            yield f"{key} was {old!r} and is {new!r}"
