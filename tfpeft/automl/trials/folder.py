"""The folder of a search: one process owns it, and workers join it."""

import contextlib
import json
import pathlib

from tfpeft.automl.trials import workers
from tfpeft.core.arguments import InputError
from tfpeft.core.files import ResumableFolder, differences
from tfpeft.core.json_files import read_json
from tfpeft.core.paths import folder_to_write

RECORD = "search.json"


class _SearchFolder(ResumableFolder):
    """A search may go on with more minutes, or be read with fewer."""

    def _may_change(self, setting):
        return setting == "minutes"


def _check_worker(path, settings):
    """Raises unless a worker was called as the chief of the search in `path`, but for minutes.

    Its teacher's outputs are those of the chief's samples, by their numbers.
    """
    saved, own = read_json(path / RECORD, {}), json.loads(json.dumps(settings))
    changed = dict(differences({key: saved.get(key) for key in own}, own))
    changed.pop("minutes", None)
    if changed:
        raise InputError(
            f"{path} (`folder`) is of a chief with other settings, expected the same ones. "
            f"Received: {'; '.join(changed.values())}"
        )


@contextlib.contextmanager
def opened_folder(folder, settings, role):
    """Yields the path of a search's folder.

    Args:
        folder: The folder, new, empty, or of the same search.
        settings: What the search depends on, as plain JSON values; a folder of others raises.
        role: Of `workers.role()`: a worker waits until the chief has made the folder.
    """
    if role == workers.WORKER:
        path = pathlib.Path(folder_to_write(folder, "`folder`"))
        workers.wait_for(path / RECORD)
        _check_worker(path, settings)
        yield path
        return
    with _SearchFolder(
        folder, RECORD, settings, kind="trials of a search", argument="`folder`"
    ) as opened:
        if opened.progress is None:
            opened.save()
        yield opened.path
