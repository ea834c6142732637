"""Files of the chief, copied to the other workers through the collectives of a strategy."""

import io
import pathlib
import tarfile
import tempfile

import numpy as np
import tensorflow as tf

from tfpeft.core.files import remove

_CHUNK = 1 << 24  # numbers of 4 bytes in a message


def total(strategy, value):
    """Returns the sum of what all workers call this with, as a NumPy array or number."""
    return strategy.reduce("SUM", tf.constant(value), axis=None).numpy()


def send(strategy, path):
    """Sends what is at `path` on the chief, if anything, to all workers, which call `receive`."""
    with tempfile.TemporaryFile() as archive:
        if path.exists():
            with tarfile.open(fileobj=archive, mode="w") as tar:
                tar.add(path, arcname="content")
        length = total(strategy, np.int64(archive.seek(0, io.SEEK_END)))
        archive.seek(0)
        for size in _chunks(length):
            total(strategy, np.frombuffer(archive.read(4 * size), np.int32))


def receive(strategy, path):
    """Makes `path` a copy of what the chief sends; nothing is there if the chief has nothing."""
    with tempfile.TemporaryFile() as archive:
        for size in _chunks(total(strategy, np.int64(0))):
            archive.write(total(strategy, np.zeros(size, np.int32)).tobytes())
        remove(path)
        if archive.seek(0, io.SEEK_END) == 0:
            return
        archive.seek(0)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            with tarfile.open(fileobj=archive) as tar:
                tar.extractall(folder, filter="data")
            (pathlib.Path(folder) / "content").rename(path)


def _chunks(length):
    """Yields the sizes, in numbers of 4 bytes, in which `length` bytes of an archive are sent."""
    left = int(length) // 4  # an archive has blocks of 512 bytes
    while left:
        size = min(left, _CHUNK)
        yield size
        left -= size
