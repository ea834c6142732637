"""Files that are whole or not there, and folders in which an interrupted job resumes."""

import contextlib
import json
import os
import pathlib
import shutil

from tfpeft.core.arguments import InputError, shortened
from tfpeft.core.json_files import mismatch
from tfpeft.core.locks import LOCK, FolderLock
from tfpeft.core.paths import folder_to_write

PARTIAL = "tfpeft-partial."
"""How the name of a file begins while it is being written."""
_LONGEST = 60  # characters of a name that are kept then: file systems take 255 bytes
_LISTED = 5  # settings that an error names


@contextlib.contextmanager
def replacing(path, argument="`path`"):
    """Yields a path beside `path` to write a file or folder to, and renames it to `path`.

    If the body raises, its files are removed, and an older file or folder at `path` stays. A
    link stays as well: what it leads to is replaced.

    Args:
        path: The file or folder to write, as `core/paths.py` returns it; missing parent folders
            are created.
        argument: What names the path in the user's call, for errors.

    Raises:
        OSError: if the path cannot be written, also by the body.
    """
    path = pathlib.Path(path)
    target = pathlib.Path(os.path.realpath(path)) if path.is_symlink() else path
    # The ending stays last, as Keras and NumPy read the format from it.
    partial = target.with_name(f"{PARTIAL}{target.name[-_LONGEST:]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove(partial)
        try:
            yield partial
            _put(partial, target)
        finally:
            remove(partial)
    except OSError as error:
        reason = error.strerror or error
        raise type(error)(f"Cannot write {path} ({argument}): {reason}") from error


def _put(new, target):
    """Renames a file or folder to `target`; what was there goes last."""
    if not (new.is_dir() and target.is_dir()):
        os.replace(new, target)
        return
    # A folder replaces an empty one only.
    earlier = new.with_name(f"{PARTIAL}earlier.{target.name[-_LONGEST:]}")
    remove(earlier)
    os.replace(target, earlier)
    try:
        os.replace(new, target)
    except OSError:
        os.replace(earlier, target)
        raise
    remove(earlier)


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
    jobs. Files that an interrupted job left half-written are removed. From here to `close`, the
    end of a `with`, or the end of the object, no other process can open the folder.

    Args:
        path: The folder; it is created.
        record: Name of the JSON file.
        settings: A dict that JSON can hold; values may be dicts.
        kind: What the folder holds, in words, for errors: "precomputed outputs".
        argument: What names the folder in the user's call: "`path`" or "--output_dir".
        prefix: What stands before the name of a setting in errors: "--" of flags.
        progress: The form of what the record holds beside the settings, for `mismatch`.

    Attributes:
        path: The folder, a `pathlib.Path`.
        progress: What the record holds beside the settings; None in a new folder.

    Raises:
        InputError: if `path` is a file, or the folder is in use, holds other files, another job's
            settings, or a record that cannot be read.
    """

    def __init__(self, path, record, settings, *, kind, argument, prefix="", progress=object):
        self.path = folder_to_write(path, argument)
        self.record, self.kind, self.argument, self.prefix = record, kind, argument, prefix
        self.settings = json.loads(json.dumps(settings))
        self.progress = None
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FolderLock(self.path, argument)
        except OSError as error:
            reason = error.strerror or error
            raise type(error)(f"Cannot write {self.path} ({argument}): {reason}") from error
        try:
            self._open(progress)
        except BaseException:
            self.close()
            raise

    def _open(self, progress):
        """Removes what is half-written, and reads the record."""
        for leftover in self.path.glob(f"{PARTIAL}*"):
            remove(leftover)
        if (self.path / self.record).is_file():
            self._read(progress)
        elif self.names():
            raise self._unusable("which holds other files")

    def close(self):
        """Lets other processes use the folder."""
        self._lock.release()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def names(self):
        """Returns the names of the whole files and folders in it."""
        others = (LOCK, PARTIAL)
        return {file.name for file in self.path.iterdir() if not file.name.startswith(others)}

    def _read(self, progress):
        try:
            saved = json.loads((self.path / self.record).read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise self._damaged() from error
        if not isinstance(saved, dict):
            raise self._damaged()
        expected = [key for key, value in self.settings.items() if value is not None]
        missing = [key for key in expected if key not in saved]
        if missing:
            raise self._damaged(f", without {', '.join(missing)}")
        before = {key: saved.pop(key, None) for key in self.settings}
        changed = dict(differences(before, self.settings))
        fixed = [self.prefix + text for key, text in changed.items() if not self._may_change(key)]
        if fixed:
            more = f"; and {len(fixed) - _LISTED} more" if len(fixed) > _LISTED else ""
            raise InputError(
                f"{self.path} ({self.argument}) holds other {self.kind}, expected the same "
                f"settings, or another folder. Received: {'; '.join(fixed[:_LISTED])}{more}"
            )
        found = mismatch(saved, progress)
        if found:
            raise self._damaged(f", without {found}")
        self.progress = saved
        if changed:
            self.save(**saved)

    def _may_change(self, setting):
        """Returns whether nothing in the folder depends on a setting yet."""
        return False

    def _damaged(self, why=""):
        why = f"whose {self.record} is damaged{why}: remove the folder, or name another"
        return self._unusable(why)

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
        with replacing(self.path / name, self.argument) as partial:
            if isinstance(content, str):
                partial.write_text(content)
            else:
                content(partial)


def differences(before, now):
    """Yields (name, text) per setting that differs; those in nested dicts go by their own names."""
    for key in sorted({*before, *now}):
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from differences(old, new)
        elif old != new and (key in before or new):  # a new setting that asks for nothing
            yield key, f"{key} was {shortened(repr(old), 100)} and is {shortened(repr(new), 100)}"
