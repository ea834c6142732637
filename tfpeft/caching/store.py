"""Where answers of a model are kept: in memory, or in a folder that outlasts a kill."""

import functools
import json
import os
import pathlib
import shutil

import keras
import numpy as np

from tfpeft.core.arguments import invalid

_SHARD_SAMPLES = 4096  # what a kill costs at most
_PARTIAL = "tfpeft-partial."


class Memory:
    """Answers in arrays, one a leaf of their structure."""

    def __init__(self):
        self.samples = 0
        self.structure = None
        self._pending = []  # (checksums, leaves) of batches
        self._parts = []  # [checksums, *leaves] that belong together, in order

    def add(self, checksums, answers):
        leaves = keras.tree.flatten(answers)
        if self.structure is None:
            self.structure = keras.tree.pack_sequence_as(answers, list(range(len(leaves))))
        if self._pending and any(
            a.shape[1:] != b.shape[1:] for a, b in zip(self._pending[0][1:], leaves, strict=True)
        ):
            shapes = [leaf.shape[1:] for leaf in leaves]
            raise invalid("data", "inputs whose answers are of one shape for all samples", shapes)
        if len(checksums):
            self._pending.append([checksums, *leaves])

    def close(self, samples):
        self._parts.append([np.concatenate(each) for each in zip(*self._pending, strict=True)])
        self._pending = []
        self.samples = samples

    def check_answers(self, answers):
        """Raises unless the first samples were answered as they are now."""

    def check(self, start, checksums):
        """Raises unless the samples from `start` on have these checksums."""
        stop = start + len(checksums)
        if not np.array_equal(self._slice(0, start, stop), checksums):
            raise ValueError(
                "Received an invalid value for `data`, expected the samples that `precompute` has "
                "seen, in the same order and of the same types. "
                f"Received others in samples {start} to {stop - 1}, of {self.samples}"
            )

    @property
    def dtypes(self):
        return [leaf.dtype for leaf in self.leaves(0, 1)]

    @property
    def shapes(self):
        return [leaf.shape[1:] for leaf in self.leaves(0, 1)]

    def leaves(self, start, stop):
        count = len(keras.tree.flatten(self.structure))
        return [self._slice(i + 1, start, stop) for i in range(count)]

    def rows(self, start, stop):
        return self.structured(self.leaves(start, stop))

    def structured(self, leaves):
        return keras.tree.map_structure(lambda index: leaves[index], _tuples(self.structure))

    def _slice(self, leaf, start, stop):
        found, first = [], 0
        for index, count in enumerate(self._counts()):
            last = first + count
            if first < stop and last > start:
                found.append(self._part(index, leaf)[max(start - first, 0) : stop - first])
            first = last
        if not found:
            return self._part(0, leaf)[:0] if self._counts() else np.zeros(0, "uint32")
        return found[0] if len(found) == 1 else np.concatenate(found)

    def _counts(self):
        return [len(part[0]) for part in self._parts]

    def _part(self, index, leaf):
        return self._parts[index][leaf]


class Folder(Memory):
    """Answers in a folder: about.json, and a folder of .npy files for each shard, all read-only.

    A shard is whole: written beside, then renamed. `_parts` are how many samples each one has.
    """

    def __init__(self, path, about):
        super().__init__()
        if not isinstance(path, (str, os.PathLike)) or pathlib.Path(path).is_file():
            raise invalid("path", "a folder", path)
        self.path = path = pathlib.Path(path)
        path.mkdir(parents=True, exist_ok=True)
        self._about = about
        self._mapped = functools.lru_cache(maxsize=64)(self._map)  # each is an open file
        names = {each.name for each in path.iterdir()}
        if "about.json" in names:
            self._read_about(path / "about.json")
        elif any(not name.startswith(_PARTIAL) for name in names):
            raise invalid("path", "an empty folder, or one of precomputed answers", str(path))
        for leftover in path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        while (path / _shard_name(len(self._parts))).is_dir():
            self._parts.append(len(self._map(len(self._parts), 0)))
            self.samples += self._parts[-1]

    def _read_about(self, path):
        try:
            before = json.loads(path.read_text())
            self.structure = before.pop("structure")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            expected = "an empty folder, or one of precomputed answers"
            raise invalid("path", f"{expected} (about.json is damaged)", str(self.path)) from error
        if before != self._about:
            changed = ", ".join(k for k in sorted(self._about) if before.get(k) != self._about[k])
            expected = f"an empty folder or one of the same {changed}"
            raise invalid("path", expected, str(self.path))

    def check_answers(self, answers):
        expected = self.leaves(0, len(keras.tree.flatten(answers)[0]))
        for stored, now in zip(expected, keras.tree.flatten(answers), strict=True):
            # Batches of other sizes round otherwise.
            stored, now = (np.asarray(each, "float64") for each in (stored, now))
            scale = np.max(np.abs(stored), initial=1e-3)
            if not np.allclose(stored, now, rtol=1e-2, atol=1e-2 * scale, equal_nan=True):
                expected = "an empty folder, or one of answers that the model still gives"
                raise invalid("path", expected, str(self.path))

    def add(self, checksums, answers):
        super().add(checksums, answers)
        if sum(len(each[0]) for each in self._pending) >= _SHARD_SAMPLES:
            self._write()

    def close(self, samples):
        if self._pending:
            self._write()
        if samples != self.samples:
            raise invalid("data", f"the {self.samples} samples in {self.path}", samples)

    def _write(self):
        if not self._parts:
            about = json.dumps({**self._about, "structure": self.structure}, indent=2)
            partial = self.path / f"{_PARTIAL}about.json"
            partial.write_text(about)
            os.replace(partial, self.path / "about.json")
        name = _shard_name(len(self._parts))
        partial = self.path / f"{_PARTIAL}{name}"
        partial.mkdir()
        for index, parts in enumerate(zip(*self._pending, strict=True)):
            np.save(partial / f"{index}.npy", np.concatenate(parts))
        os.replace(partial, self.path / name)
        self._parts.append(sum(len(each[0]) for each in self._pending))
        self.samples += self._parts[-1]
        self._pending = []

    def _counts(self):
        return self._parts

    def _part(self, index, leaf):
        return self._mapped(index, leaf)

    def _map(self, index, leaf):
        file = self.path / _shard_name(index) / f"{leaf}.npy"
        try:
            return np.load(file, mmap_mode="r")
        except (OSError, ValueError) as error:
            raise invalid("path", f"whole files ({file} is damaged)", str(self.path)) from error


def _tuples(structure):
    """The same without lists, which tf.data takes for tensors."""
    if isinstance(structure, dict):
        return {key: _tuples(value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tuple(map(_tuples, structure))
    return structure


def _shard_name(index):
    return f"{index:05d}"


class Conversion:
    """Turns answers into arrays of the types that are stored, as the first answers suit them.

    Outputs that are all in [0, 1] may be probabilities, and stay what they are: float16 cannot
    tell a sure one from 1.
    """

    def __init__(self, answers, float16):
        def halve(tensor, is_output):
            array = np.asarray(tensor, "float32") if tensor.dtype.is_floating else tensor.numpy()
            probabilities = is_output and np.all((array >= 0.0) & (array <= 1.0))
            return bool(float16 and tensor.dtype.is_floating and not probabilities)

        self.halves = [
            halve(tensor, is_output=key == "outputs")
            for key in sorted(answers)
            for tensor in keras.tree.flatten(answers[key])
        ]

    def __call__(self, answers):
        keys = sorted(answers)
        leaves = [leaf for key in keys for leaf in keras.tree.flatten(answers[key])]
        arrays = iter([_stored(x, half) for x, half in zip(leaves, self.halves, strict=True)])
        return {key: keras.tree.map_structure(lambda _: next(arrays), answers[key]) for key in keys}


def _stored(tensor, half):
    array = np.asarray(tensor)
    if array.dtype.name == "bfloat16":
        array = array.astype("float32")
    if not half:
        return array
    with np.errstate(over="ignore"):
        short = array.astype("float16")
    if not np.array_equal(np.isfinite(short), np.isfinite(array)):
        largest = float(np.max(np.abs(array[np.isfinite(array)])))
        raise invalid("float16", "answers of at most 65504, or False", largest)
    return short
