"""Locks of folders: one process at a time, and none that a process left behind."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

from tfpeft.core import locks
from tfpeft.core.arguments import InputError
from tfpeft.core.files import PARTIAL, ResumableFolder
from tfpeft.core.locks import LOCK, FolderLock


def holder(folder):
    return json.loads((folder / LOCK).read_text())


def write(folder, **changes):
    """Writes the lock of this process and thread, with changes."""
    content = {**locks._this_process(), **changes}
    (folder / LOCK).write_text(json.dumps(content))


def test_a_lock_names_its_process_and_is_removed(tmp_path):
    lock = FolderLock(tmp_path, "`path`")
    assert holder(tmp_path)["process"] == os.getpid()
    lock.release()
    lock.release()
    assert list(tmp_path.iterdir()) == []
    lock = FolderLock(tmp_path, "`path`")
    del lock
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_in_use_while_its_process_runs(tmp_path):
    assert not locks.is_in_use(tmp_path)
    lock = FolderLock(tmp_path, "`folder`")
    content = json.loads((tmp_path / LOCK).read_text())
    parent = {**content, "process": os.getppid(), "started": locks._started(os.getppid())}
    (tmp_path / LOCK).write_text(json.dumps(parent))
    assert locks.is_in_use(tmp_path)
    (tmp_path / LOCK).write_text(json.dumps({**parent, "started": "another boot 1"}))
    assert not locks.is_in_use(tmp_path)
    lock.release()


def test_a_process_that_ends_in_the_middle_can_remove_all_its_locks(tmp_path):
    held = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        held.append(FolderLock(tmp_path / name, "`path`"))
    locks.release_all()
    assert list(tmp_path.glob("*/*")) == []
    assert len(held) == 2


def test_another_thread_is_kept_out_until_the_release(tmp_path):
    lock, errors = FolderLock(tmp_path, "`path`"), []

    def enter():
        try:
            FolderLock(tmp_path, "`path`").release()
        except InputError as error:
            errors.append(str(error))

    for _ in range(2):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
        lock.release()
    assert len(errors) == 1
    assert f"{tmp_path} (`path`) is in use, expected one process at a time" in errors[0]
    assert f"Received: process {os.getpid()} on " in errors[0]
    assert "\n" not in errors[0]


def test_what_this_thread_left_behind_is_taken_over_and_not_given_back_twice(tmp_path):
    first = FolderLock(tmp_path, "`path`")
    second = FolderLock(tmp_path, "`path`")
    first.release()
    assert (tmp_path / LOCK).exists()
    second.release()
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_runs_keeps_others_out_and_one_that_was_killed_does_not(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        write(tmp_path, process=process.pid, started=locks._started(process.pid), command="them")
        with pytest.raises(InputError, match=f"process {process.pid} on .* since .*: them$"):
            FolderLock(tmp_path, "`path`")
        process.kill()
        while locks._started(process.pid) != "ended":  # it waits to be reaped
            time.sleep(0.01)
        FolderLock(tmp_path, "`path`").release()
    finally:
        process.kill()
        process.wait()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"started": "another process of this number"},
        {"process": 2**22 + 1},
        {"process": 10**30},
        {"process": -1},
        {"host": 3},
    ],
)
def test_stale_locks_are_taken_over(tmp_path, changes):
    write(tmp_path, **changes)
    os.utime(tmp_path / LOCK, (0, 0))
    FolderLock(tmp_path, "`path`").release()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", "3"])
def test_locks_that_a_kill_left_half_written(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    os.utime(tmp_path / LOCK, (0, 0))
    FolderLock(tmp_path, "`path`").release()
    assert list(tmp_path.iterdir()) == []


def test_another_host_keeps_its_lock_and_the_error_says_how_to_remove_it(tmp_path):
    write(tmp_path, host="elsewhere", process=1)
    with pytest.raises(InputError, match=f"on elsewhere .*if it no longer runs, remove .*{LOCK}$"):
        FolderLock(tmp_path, "`path`")
    assert holder(tmp_path)["host"] == "elsewhere"


def test_a_folder_in_which_nothing_can_be_written_needs_no_lock(tmp_path, monkeypatch):
    def denied(*arguments):
        raise PermissionError(13, "denied")

    monkeypatch.setattr(os, "open", denied)
    lock = FolderLock(tmp_path, "`path`")
    assert list(tmp_path.iterdir()) == []
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_stays_as_it_is(tmp_path):
    def resumable(seed):
        return ResumableFolder(tmp_path, "run.json", {"seed": seed}, kind="a", argument="`path`")

    with resumable(1) as folder:
        folder.save()
        (tmp_path / f"{PARTIAL}model.keras").write_text("in progress")
        write(tmp_path, host="elsewhere")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        for seed in (1, 2):
            with pytest.raises(InputError, match="in use"):
                resumable(seed)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    (tmp_path / LOCK).unlink()
    with pytest.raises(InputError, match="seed was 1 and is 2"):
        resumable(2)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]
