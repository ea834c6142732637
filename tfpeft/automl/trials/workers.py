"""The role of this process in a search, by the environment: alone, KerasTuner's chief or worker."""

import os
import threading
import time

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.locks import is_in_use

_POLL = 0.2  # seconds
_PATIENCE = 900.0  # seconds that a worker waits for a chief of which nothing is seen
_LONGEST = 12 * 3600.0  # seconds that a worker waits for a chief that seems to be there
_ALONE = 60.0  # seconds after which a chief without workers says so
_GRACE = 60.0  # seconds after the end that the chief waits for the trial of a worker

ALONE, CHIEF, WORKER = "alone", "chief", "worker"


def role():
    """Returns the role that KERASTUNER_ORACLE_IP and KERASTUNER_TUNER_ID give this process.

    Raises:
        InputError: if some of KerasTuner's variables are set, and others are not.
    """
    if "KERASTUNER_ORACLE_IP" not in os.environ:
        return ALONE
    names = ("KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        expected = "the environment to name KERASTUNER_ORACLE_PORT and KERASTUNER_TUNER_ID, too"
        raise unexpected(expected, f"KERASTUNER_ORACLE_IP without {' and '.join(missing)}")
    return CHIEF if "chief" in os.environ["KERASTUNER_TUNER_ID"] else WORKER


def wait_for(path):
    """Waits until the chief has written a file, as long as the chief is there.

    Raises:
        InputError: if it does not come.
    """
    first = began = time.monotonic()
    while not path.is_file():
        # A chief that reads data, or trains a teacher, has the folder of its run. That of another
        # machine is not seen to end.
        is_there = any(is_in_use(folder) for folder in list(path.parents)[:2])
        if is_there and time.monotonic() - first < _LONGEST:
            began = time.monotonic()
        if time.monotonic() - began > _PATIENCE:
            raise InputError(
                f"A worker expected the chief of the search to write {path}. Received: nothing in "
                f"{_PATIENCE:.0f} seconds"
            )
        time.sleep(_POLL)


def serve(tuner, oracle, clock, show):
    """Lets workers run the trials of an oracle, until it has ended the search and they have left.

    A worker that was killed neither ends its trial nor leaves: the chief waits for it a minute
    after the time of the search, and goes on.

    Args:
        tuner: The `Tuner` of the chief.
        oracle: The oracle.
        clock: The `Clock`.
        show: A function that prints a line.
    """
    server = threading.Thread(target=tuner.search, daemon=True)
    server.start()
    began = time.monotonic()
    is_alone = True
    while server.is_alive():
        is_alone = is_alone and not oracle.tuner_ids
        if is_alone and time.monotonic() - began > _ALONE:
            ip, port = (os.environ.get(f"KERASTUNER_ORACLE_{name}") for name in ("IP", "PORT"))
            show(f"No worker has come to {ip}:{port} yet; the minutes of the search pass")
            is_alone = False
        if oracle.is_over and not oracle.ongoing_trials and not oracle.tuner_ids:
            return
        if clock.left < -_GRACE or (oracle.is_over and clock.left_for_trials < -2 * _GRACE):
            return
        clock.save_at_times()
        time.sleep(_POLL)
