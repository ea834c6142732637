"""Locks of folders: one process at a time writes to a folder."""

import datetime
import errno
import json
import os
import pathlib
import secrets
import socket
import sys
import threading
import time
import weakref

from tfpeft.core.arguments import InputError
from tfpeft.core.json_files import mismatch

LOCK = "tfpeft-lock.json"
"""Name of the file that says which process uses a folder."""
_held = weakref.WeakSet()
_WRITTEN_WITHIN = 5.0  # seconds after which a lock without content was left by a kill
_READ_ONLY = (errno.EACCES, errno.EPERM, errno.EROFS)


class FolderLock:
    """Makes this thread of this process the only one that uses a folder, until `release`.

    The lock is a file, so that it works on file systems without locks of their own. It names the
    host, the process and when that process started. The lock of a process of this host that has
    ended, whatever ended it, is taken over, and so is one that this thread left behind when it
    was interrupted. A process of another host cannot be seen from here: its lock stays, and the
    error names the file to remove. In a folder that is read-only there is no lock, as nothing
    can be written either.

    Args:
        folder: The folder, a `pathlib.Path`.
        argument: What names the folder in the user's call.

    Raises:
        InputError: if another process, or another thread of this one, uses the folder.
    """

    def __init__(self, folder, argument):
        self._file = pathlib.Path(os.path.abspath(folder)) / LOCK
        self._argument = argument
        content = json.dumps(_this_process(), indent=2)
        while not self._create(content):
            self._discard_stale()

    def release(self):
        """Removes the lock; another time it does nothing."""
        self._release()

    def _create(self, content):
        """Writes the lock; returns whether there was none."""
        try:
            descriptor = os.open(self._file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _READ_ONLY:
                raise
            self._release = lambda: None
            return True
        self._release = weakref.finalize(self, _remove, self._file, content, os.getpid())
        _held.add(self)
        with os.fdopen(descriptor, "w") as file:
            file.write(content)
        return True

    def _discard_stale(self):
        """Removes the lock of a process that has ended; raises for one that runs."""
        try:
            content = self._file.read_text()
            age = time.time() - self._file.stat().st_mtime
        except FileNotFoundError:
            return
        holder = _parsed(content)
        if holder is None and age < _WRITTEN_WITHIN:  # another process is about to write it
            time.sleep(0.1)
            return
        if holder is not None and _may_run(holder):
            raise self._in_use(holder)
        # Renamed first: of two processes that find a stale lock, one gets it.
        aside = self._file.with_name(f"{LOCK}.{os.getpid()}")
        try:
            os.rename(self._file, aside)
        except FileNotFoundError:
            return
        if aside.read_text() == content:
            aside.unlink()
        else:  # another process took the stale lock over in between
            os.rename(aside, self._file)

    def _in_use(self, holder):
        removal = ""
        if holder["host"] != socket.gethostname():
            removal = f"; if it no longer runs, remove {self._file}"
        return InputError(
            f"{self._file.parent} ({self._argument}) is in use, expected one process at a time. "
            f"Received: process {holder['process']} on {holder['host']} uses it since "
            f"{holder['since']}: {holder['command']}{removal}"
        )


_HOLDER = {
    **dict.fromkeys(("host", "since", "command", "key"), str),
    **dict.fromkeys(("process", "thread"), int),
    "started": (str, None),
}


def release_all():
    """Removes the locks of this process, which is about to end without another line of Python."""
    for lock in list(_held):
        lock.release()


def is_in_use(folder):
    """Whether a process that runs, as far as can be seen from here, has the lock of a folder."""
    try:
        holder = _parsed((pathlib.Path(folder) / LOCK).read_text())
    except OSError:
        return False
    return holder is not None and _may_run(holder)


def _this_process():
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "thread": threading.get_ident(),
        "started": _started(os.getpid()),
        "since": datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": " ".join(" ".join(sys.argv).split())[:200],
        "key": secrets.token_hex(4),
    }


def _parsed(content):
    """Returns the holder that a lock names; None for other content."""
    try:
        holder = json.loads(content)
    except ValueError:
        return None
    is_holder = not mismatch(holder, _HOLDER) and holder["process"] > 0
    return holder if is_holder else None


def _may_run(holder):
    """Whether the process of a lock runs, as far as can be seen from here."""
    if holder["host"] != socket.gethostname() or os.name != "posix":
        return True
    try:
        os.kill(holder["process"], 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # of another user
        pass
    started = _started(holder["process"])
    if holder["process"] == os.getpid() and started == holder["started"]:
        others = {thread.ident for thread in threading.enumerate()} - {threading.get_ident()}
        return holder["thread"] in others
    return None in (started, holder["started"]) or started == holder["started"]


def _started(process):
    """Returns a text that no other process of this number has; None where that is unknown."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        text = pathlib.Path(f"/proc/{process}/stat").read_text()
        # The name of the program, in brackets, may hold spaces and brackets.
        state, *fields = text.rpartition(")")[2].split()
    except OSError:
        return None
    return "ended" if state in "ZX" else f"{boot} {fields[18]}"


def _remove(file, content, process):
    """Removes a lock with this content; a forked child leaves its parent's."""
    try:
        if os.getpid() == process and file.read_text() in (content, ""):
            file.unlink()
    except OSError:
        pass
