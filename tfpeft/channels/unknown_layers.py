"""How channels pass through operations without rules: found out by running them.

Of the channels that reach an operation, those are changed whose number has bit b set, and then
those whose number has not, for each bit b. An output that follows one channel changes in one of
these two runs, for each bit, and the bits are the channel's number; one that changes in both mixes
channels. 2 log2(n) runs, as one batch.
"""

import keras
import numpy as np

_SIDE = 4
"""What stands for a free side."""


def follow(graph, call, inputs):
    """Returns the tags along each axis of each output of an operation without weights.

    What mixes channels, does not react to one, or gives something else when channels are missing
    is fixed.
    """
    tagged = [(i, axis) for i, x in enumerate(inputs) for axis in x.tagged_axes()]
    shapes = [tensor.shape for tensor in call.outputs]
    if not tagged:
        return [(None,) * len(shape) for shape in shapes]
    run = CallOnArrays(call, inputs)
    made = [[None] * len(shape) for shape in shapes]
    for i, axis in tagged:
        tags = inputs[i].axes[axis]
        places = _places(run, i, axis, len(tags))
        if places is None or not any(place is not None for place in places):
            return graph.stop(call, inputs, _why(call))
        for output, place in zip(made, places, strict=True):
            if place is None:
                continue
            along, followed = place
            if output[along] is None:
                output[along] = tags[followed]
            elif len(output[along]) == len(followed):
                graph.unite(output[along], tags[followed])
            else:
                return graph.stop(call, inputs, _why(call))
    if not _works_without(graph, run, inputs, made):
        return graph.stop(call, inputs, _why(call))
    return made


def _why(call):
    kind = type(call.operation).__name__
    return f"is a {kind} that mixes channels, or is written for their number"


class CallOnArrays:
    """A call of an operation with arrays in place of its tensors.

    Attributes:
        arrays: Random positive arrays of the shapes of the inputs, one sample each.
    """

    def __init__(self, call, inputs):
        self._call = call
        rng = np.random.default_rng(0)
        shapes = [
            [1 if i == 0 else side or _SIDE for i, side in enumerate(x.shape)] for x in inputs
        ]
        self.arrays = [rng.uniform(0.5, 1.5, shape) for shape in shapes]

    def __call__(self, arrays):
        """Returns the outputs as arrays; None if the operation does not run."""
        values = iter(arrays)

        def fill(each):
            if not isinstance(each, keras.KerasTensor):
                return each
            return keras.ops.convert_to_tensor(next(values), each.dtype)

        args, kwargs = keras.tree.map_structure(fill, (tuple(self._call.args), self._call.kwargs))
        try:
            with keras.StatelessScope():
                outputs = self._call.operation(*args, **kwargs)
            return [keras.ops.convert_to_numpy(each) for each in keras.tree.flatten(outputs)]
        except Exception:  # whatever a custom operation raises
            return None


def _places(run, index, axis, count):
    """Returns for each output (axis, number of the channel followed at each position), or None.

    None of all if an output follows no single channel.
    """
    bits = np.arange(max(1, (count - 1).bit_length()))
    is_set = (np.arange(count)[None] >> bits[:, None]) & 1  # bits, channels
    changed = np.concatenate([np.zeros((1, count), int), is_set, 1 - is_set])
    arrays = [np.repeat(each, len(changed), axis=0) for each in run.arrays]
    shape = [len(changed), *[1] * (arrays[index].ndim - 1)]
    shape[axis] = count
    arrays[index] = arrays[index] + changed.reshape(shape)
    outputs = run(arrays)
    if outputs is None:
        return None
    places = []
    for output in outputs:
        if output.ndim < 2 or len(output) != len(changed):
            return None
        # Not exactly: the place in a vector of the processor changes the rounding.
        reacts = ~np.isclose(output[1:], output[:1], rtol=1e-5, atol=1e-6)
        ones, zeros = reacts[: len(bits)], reacts[len(bits) :]
        if not reacts.any():
            places.append(None)
            continue
        if not np.all(ones ^ zeros):
            return None
        numbers = np.sum(ones << bits.reshape(-1, *[1] * (output.ndim - 1)), axis=0)
        place = _axis_of(numbers)
        if place is None:
            return None
        places.append(place)
    return places


def _axis_of(numbers):
    """Returns the one axis (with the batch) along which numbers vary, and the numbers."""
    varies = [a for a in range(numbers.ndim) if np.any(numbers != np.take(numbers, [0], a))]
    if len(varies) != 1:
        return None
    (axis,) = varies
    return axis + 1, np.moveaxis(numbers, axis, -1).reshape(-1, numbers.shape[axis])[0]


def _works_without(graph, run, inputs, made):
    """Whether the operation gives the same of what is left, when half of the channels are gone."""
    before = run(run.arrays)
    tags = np.concatenate([t for x in inputs for t in x.axes if t is not None])
    roots = np.unique(graph.tags.roots(tags))
    for seed in range(2):
        shuffled = np.random.default_rng(seed).permutation(roots)
        half = max(1, len(roots) // 2)
        for gone in (shuffled[:half], shuffled[half:]):
            if not _is_same(graph, run, inputs, made, before, gone):
                return False
    return True


def _is_same(graph, run, inputs, made, before, gone):
    def kept(array, axes):
        for axis, each in enumerate(axes):
            if each is not None:
                stays = ~np.isin(graph.tags.roots(each), gone)
                if not stays.any():
                    stays[:1] = True
                array = np.compress(stays, array, axis)
        return array

    arrays = [kept(array, x.axes) for array, x in zip(run.arrays, inputs, strict=True)]
    after = run(arrays)
    if before is None or after is None or len(before) != len(after):
        return False
    pairs = [(kept(b, axes), a) for b, a, axes in zip(before, after, made, strict=True)]
    return all(b.shape == a.shape and np.allclose(b, a, rtol=1e-5) for b, a in pairs)
