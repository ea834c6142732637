"""Stores of precomputed outputs: in memory, or in a folder that survives a kill."""

import abc
import functools
import pathlib

import keras
import numpy as np

from tfpeft.core.arguments import InputError, invalid
from tfpeft.core.files import ResumableFolder

SHARD_SAMPLES = 4096
"""How many samples a kill loses at most."""
_CHECKSUMS = (np.dtype("uint32"), ())  # the type of a column of checksums, and its other sides


class Store(abc.ABC):
    """Outputs of a model for the samples of some data, in their order.

    Outputs are a structure of arrays. A store holds the leaves of that structure, and a checksum
    per sample, which proves that later data has the same samples.

    Attributes:
        samples: How many samples have outputs.
        structure: The structure of the outputs, with the index of each leaf in its place.
    """

    samples = 0
    structure = None

    @abc.abstractmethod
    def add(self, checksums, outputs):
        """Appends the outputs of a batch."""

    @abc.abstractmethod
    def close(self, samples):
        """Ends writing; `samples` is how many samples the data has."""

    @abc.abstractmethod
    def _slice(self, column, start, stop):
        """Returns rows of the checksums, column 0, or of a leaf, columns 1 and up."""

    @abc.abstractmethod
    def check_outputs(self, outputs):
        """Raises unless stored outputs of the first samples are those that the model returns."""

    def check_samples(self, start, checksums):
        """Raises unless the samples from `start` on have these checksums."""
        stop = start + len(checksums)
        if not np.array_equal(self._slice(0, start, stop), checksums):
            raise InputError(
                "Received an invalid value for `data`, expected the samples that `precompute` "
                "received, in the same order and of the same types. "
                f"Received others in samples {start} to {stop - 1}, of {self.samples}"
            )

    @property
    def dtypes(self):
        """The types of the leaves."""
        return [leaf.dtype for leaf in self.leaves(0, 1)]

    @property
    def shapes(self):
        """The shapes of the leaves of one sample."""
        return [leaf.shape[1:] for leaf in self.leaves(0, 1)]

    def leaves(self, start, stop):
        """Returns the leaves of the samples from `start` to `stop`."""
        count = len(keras.tree.flatten(self.structure))
        return [self._slice(1 + index, start, stop) for index in range(count)]

    def rows(self, start, stop):
        """Returns the outputs of the samples from `start` to `stop`."""
        return self.pack(self.leaves(start, stop))

    def pack(self, leaves):
        """Returns leaves in the structure of the outputs."""
        return keras.tree.map_structure(lambda index: leaves[index], _tuples(self.structure))


class MemoryStore(Store):
    """Outputs in arrays."""

    def __init__(self):
        self._pending = _Pending()
        self._columns = None

    def add(self, checksums, outputs):
        self.structure = self._pending.add(checksums, outputs)

    def close(self, samples):
        self._columns = self._pending.take()
        self.samples = samples

    def check_outputs(self, outputs):
        """A store in memory is new: nothing is stored when the first batch has run."""

    def _slice(self, column, start, stop):
        if self._columns is None:  # nothing is stored before the end
            return np.zeros(0, "uint32")
        return self._columns[column][start:stop]


class FolderStore(Store):
    """Outputs in a folder: about.json, and a folder of .npy files per shard of samples.

    A shard is whole or does not exist. Opened again, the store has the samples of its shards, and
    appends to them.

    Args:
        path: The folder.
        settings: What the outputs depend on, a dict that JSON can hold: a folder of outputs of
            other settings raises.
    """

    def __init__(self, path, settings):
        self._folder = ResumableFolder(
            path,
            "about.json",
            settings,
            kind="precomputed outputs",
            argument="`path`",
            progress={"structure": {"outputs": (list, dict, int), "features": dict}},
        )
        self._pending = _Pending()
        self._read = functools.lru_cache(maxsize=64)(self._map)  # each one is an open file
        self._sizes = []
        if self._folder.progress is not None:
            self._resume(self._folder.progress["structure"])

    def _resume(self, structure):
        leaves = keras.tree.flatten(structure)
        if leaves != list(range(len(leaves))):
            raise self._damaged(self._folder / "about.json")
        self.structure = structure
        first = None
        while (self._folder / _shard_name(len(self._sizes))).is_dir():
            shard = len(self._sizes)
            columns = [self._map(shard, column) for column in range(1 + len(leaves))]
            forms = [(column.dtype, column.shape[1:]) for column in columns]
            first = first or forms
            for column, array in enumerate(columns):
                is_whole = array.ndim > 0 and len(array) == len(columns[0]) > 0
                if not is_whole or forms[column] != first[column] or first[0] != _CHECKSUMS:
                    raise self._damaged(self._folder / _shard_name(shard) / f"{column}.npy")
            self._sizes.append(len(columns[0]))
        self.samples = sum(self._sizes)

    def check_outputs(self, outputs):
        leaves = keras.tree.flatten(outputs)
        if not all(map(_are_alike, self.leaves(0, len(leaves[0])), leaves)):
            expected = "an empty folder, or one of outputs that the model still returns"
            raise invalid("path", expected, str(self._folder.path))

    def add(self, checksums, outputs):
        self.structure = self._pending.add(checksums, outputs)
        if self._pending.samples >= SHARD_SAMPLES:
            self._write()

    def close(self, samples):
        if self._pending.samples:
            self._write()
        self._folder.close()
        if samples != self.samples:
            raise invalid("data", f"the {self.samples} samples in {self._folder.path}", samples)

    def _write(self):
        if not self._sizes:
            self._folder.save(structure=self.structure)
        columns = self._pending.take()

        def write_files(shard: pathlib.Path):
            shard.mkdir()
            for index, column in enumerate(columns):
                np.save(shard / f"{index}.npy", column)

        self._folder.write(_shard_name(len(self._sizes)), write_files)
        self._sizes.append(len(columns[0]))
        self.samples += self._sizes[-1]

    def _slice(self, column, start, stop):
        found, first = [], 0
        for shard, size in enumerate(self._sizes):
            last = first + size
            if first < stop and last > start:
                found.append(self._read(shard, column)[max(start - first, 0) : stop - first])
            first = last
        if not found:
            return self._read(0, column)[:0] if self._sizes else np.zeros(0, "uint32")
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _map(self, shard, column):
        file = self._folder / _shard_name(shard) / f"{column}.npy"
        try:
            return np.load(file, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise self._damaged(file) from error

    def _damaged(self, file):
        expected = f"whole files ({file} is damaged: remove the folder that it is in)"
        return invalid("path", expected, str(self._folder.path))


class _Pending:
    """Outputs of batches that are not stored yet.

    Attributes:
        samples: How many samples they have.
    """

    def __init__(self):
        self.samples = 0
        self._structure = None
        self._batches = []  # [checksums, *leaves] per batch

    def add(self, checksums, outputs):
        """Appends a batch; returns the structure of the outputs, with indices as leaves."""
        leaves = keras.tree.flatten(outputs)
        if self._structure is None:
            self._structure = keras.tree.pack_sequence_as(outputs, list(range(len(leaves))))
        if self._batches and any(
            before.shape[1:] != leaf.shape[1:]
            for before, leaf in zip(self._batches[0][1:], leaves, strict=True)
        ):
            shapes = [leaf.shape[1:] for leaf in leaves]
            raise invalid("data", "inputs whose outputs have one shape for all samples", shapes)
        if len(checksums):
            self._batches.append([checksums, *leaves])
            self.samples += len(checksums)
        return self._structure

    def take(self):
        """Returns [checksums, *leaves] of all batches, and forgets them."""
        parts = list(zip(*self._batches, strict=True))[::-1]
        self._batches, self.samples = [], 0
        columns = []
        while parts:  # the batches of a column are freed when it is whole
            columns.append(np.concatenate(parts.pop()))
        return columns


def _are_alike(stored, current):
    """Whether arrays are equal but for what batches of other sizes round differently."""
    if stored.shape != current.shape or stored.dtype.kind != current.dtype.kind:
        return False
    stored, current = (np.asarray(array, "float64") for array in (stored, current))
    scale = np.max(np.abs(stored), initial=1e-3, where=np.isfinite(stored))
    return np.allclose(stored, current, rtol=1e-2, atol=1e-2 * scale, equal_nan=True)


def _tuples(structure):
    """Returns the structure with tuples for lists, which tf.data would stack."""
    if isinstance(structure, dict):
        return {key: _tuples(value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tuple(map(_tuples, structure))
    return structure


def _shard_name(index):
    return f"{index:05d}"
