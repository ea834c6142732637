"""The folder of a search: one process owns it, and workers join it."""

import contextlib
import pathlib

from tfpeft.automl.trials import workers
from tfpeft.core.files import ResumableFolder
from tfpeft.core.paths import folder_to_write

RECORD = "search.json"


class _SearchFolder(ResumableFolder):
    """A search may go on with more minutes, or be read with fewer."""

    def _may_change(self, setting):
        return setting == "minutes"


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
        yield path
        return
    with _SearchFolder(
        folder, RECORD, settings, kind="trials of a search", argument="`folder`"
    ) as opened:
        if opened.progress is None:
            opened.save()
        yield opened.path
