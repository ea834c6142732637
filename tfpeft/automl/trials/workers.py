"""The role of this process in a search, by the environment: alone, KerasTuner's chief or worker."""

import os
import threading
import time

from tfpeft.core.arguments import InputError, unexpected

_POLL = 0.2  # seconds
_PATIENCE = 900.0  # seconds that a worker waits for the chief's files
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
    """Waits until the chief has written a file.

    Raises:
        InputError: if it does not come.
    """
    began = time.monotonic()
    while not path.is_file():
        if time.monotonic() - began > _PATIENCE:
            raise InputError(
                f"A worker expected the chief of the search to write {path}. Received: nothing in "
                f"{_PATIENCE:.0f} seconds"
            )
        time.sleep(_POLL)


def serve(tuner, oracle, clock):
    """Lets workers run the trials of an oracle, until it has ended the search and they have left.

    A worker that was killed neither ends its trial nor leaves: the chief waits for it a minute
    after the time of the search, and goes on.

    Args:
        tuner: The `Tuner` of the chief.
        oracle: The oracle.
        clock: The `Clock`.
    """
    server = threading.Thread(target=tuner.search, daemon=True)
    server.start()
    saved = time.monotonic()
    while server.is_alive():
        if oracle.is_over and not oracle.ongoing_trials and not oracle.tuner_ids:
            return
        if clock.left < -_GRACE or (oracle.is_over and clock.left_for_trials < -2 * _GRACE):
            return
        if time.monotonic() - saved > 10:
            clock.save()
            saved = time.monotonic()
        time.sleep(_POLL)
