"""Whether two models have the same outputs on a batch, and which layer differs if not."""

import contextlib
import functools
import typing

import keras
import numpy as np

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.graph import flatten_layers
from tfpeft.core.hooks import intercepting
from tfpeft.core.sample_inputs import sample_inputs

_TOLERANCES = {"float16": 0.1, "bfloat16": 0.1}
_TOLERANCE = 1e-3


def outputs_of(call, batch, *, state=(), training=False):
    """Returns the flat outputs of a model's call as arrays, and the scope that it ran in.

    No variable changes: not a seed, a statistic or a state of a recurrent layer.

    Args:
        call: A model, or a function that is called as one.
        batch: Inputs.
        state: Pairs (variable, value) to be used in place of the values.
    """
    with keras.StatelessScope(state_mapping=list(state)) as scope:
        outputs = call(_tensors(batch), training=training)
    return [_array(each) for each in keras.tree.flatten(outputs)], scope


def _tensors(batch):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)


def _array(output):
    if isinstance(output, keras.KerasTensor) or not hasattr(output, "dtype"):
        return np.asarray(output)
    if keras.backend.standardize_dtype(output.dtype) == "bfloat16":
        output = keras.ops.cast(output, "float32")
    return keras.ops.convert_to_numpy(output)


class Run(typing.NamedTuple):
    """A call of a model in inference."""

    batch: typing.Any
    outputs: list


def run(model, call=None):
    """Returns the `Run` of a model on a batch made from its inputs; None if no batch is known.

    A layer that creates weights in its first call has them then.

    Args:
        model: A model.
        call: What is called instead of the model, and takes its inputs.
    """
    for batch in sample_inputs(model):
        with contextlib.suppress(Exception):  # whatever a custom layer raises of other inputs
            return Run(batch, outputs_of(call or model, batch)[0])
    return None


def tolerance_of(*models):
    """Returns the tolerated difference, as a fraction of the largest output, of rounding."""
    types = {layer.compute_dtype for model in models for layer in flatten_layers(model)}
    return max([_TOLERANCE, *(_TOLERANCES.get(each, 0.0) for each in types)])


@contextlib.contextmanager
def in_float32(*models):
    """A context in which layers of mixed precision compute in float32, as their variables are.

    Yields:
        Whether there are such layers.
    """
    layers = {id(layer): layer for model in models for layer in flatten_layers(model)}.values()
    mixed = [(layer, layer.dtype_policy) for layer in layers]
    mixed = [(layer, policy) for layer, policy in mixed if policy.name.startswith("mixed_")]
    try:
        for layer, _ in mixed:
            layer.dtype_policy = "float32"
        yield bool(mixed)
    finally:
        for layer, policy in mixed:
            layer.dtype_policy = policy


def difference(outputs, others, tolerance):
    """Returns the largest difference above the tolerance of two lists of arrays; 0.0 for none."""
    found = 0.0
    for a, b in zip(outputs, others, strict=True):
        if a.shape != b.shape or not np.issubdtype(a.dtype, np.number):
            found = found if np.array_equal(a, b) else np.inf
            continue
        # Rounding may change a number of a class: outputs of integers are compared exactly in
        # float32 alone.
        if not np.issubdtype(a.dtype, np.inexact) and tolerance > _TOLERANCE:
            continue
        a, b = a.astype("complex128"), b.astype("complex128")
        finite = np.isfinite(a) & np.isfinite(b)
        if not np.array_equal(np.isfinite(a), np.isfinite(b)):
            return np.inf
        gap = np.max(np.abs(a - b)[finite], initial=0.0)
        smallest = 1e-6 if tolerance <= _TOLERANCE else 1e-3  # float16 rounds small ones to zero
        if gap > tolerance * np.max(np.abs(a)[finite], initial=smallest):
            found = max(found, float(gap))
    return found


def check_same_outputs(model, new, sample):
    """Raises unless a copy has the outputs of its model, of which `sample` is a `Run`.

    Models that draw random numbers draw the same ones; of those that take them from elsewhere than
    Keras's seeds, only the shapes are compared.

    Raises:
        InputError: naming the first layer whose outputs differ.
    """
    batch, expected = sample
    seeds = same_seeds(model, new)
    try:
        received, _ = outputs_of(new, batch, state=seeds)
    except Exception as error:
        raise InputError(
            f"Cannot copy {model.name!r}, expected layers whose configuration has all that they "
            f"need. Received: a copy that does not run: {last_cause(error)}"
        ) from error
    if [each.shape for each in expected] != [each.shape for each in received]:
        raise _differs(model, new, batch, seeds, "in shape")
    tolerance = tolerance_of(model, new)
    gap = difference(expected, received, tolerance)
    if gap and not is_random(model, sample):
        raise _differs(model, new, batch, seeds, f"by up to {gap:.3g}")


def is_random(model, sample):
    """Whether a model has other outputs than in its `Run` when it is called again."""
    outputs, _ = outputs_of(model, sample.batch)
    return bool(difference(sample.outputs, outputs, 0.1 * tolerance_of(model)))


def same_seeds(model, new):
    """Returns pairs (variable of `new`, value in `model`) of the variables that are no weights."""
    pairs = []
    for old_layer, new_layer in zip(flatten_layers(model), flatten_layers(new), strict=False):
        old, seeds = (_no_weights(layer) for layer in (old_layer, new_layer))
        if [v.shape for v in old] == [v.shape for v in seeds]:
            pairs.extend(zip(seeds, old, strict=True))
    return pairs


def _no_weights(layer):
    weights = {id(weight) for weight in layer.weights}
    return [variable for variable in layer.variables if id(variable) not in weights]


def _differs(model, new, batch, seeds, how):
    layer = _first_different(model, new, batch, seeds)
    where = "whose outputs" if layer is None else f"in which the outputs of layer {layer}"
    return InputError(
        f"Cannot copy {model.name!r}, expected layers whose configuration and weights are all "
        f"that they compute with. Received: a copy {where} differ {how}"
    )


def _first_different(model, new, batch, seeds):
    """Returns the name and class of the first layer with other outputs; None if none is found."""
    recorded = [_record(model, batch, ()), _record(new, batch, seeds)]
    tolerance = tolerance_of(model, new)
    for (layer, outputs), (_, others) in zip(*recorded, strict=False):
        same = [each.shape for each in outputs] == [each.shape for each in others]
        if not same or difference(outputs, others, tolerance):
            return f"{layer.name!r} ({type(layer).__name__})"
    return None


def _record(model, batch, state):
    """Returns [(layer, outputs)] in the order in which the calls of layers end."""
    recorded = []

    def record(layer, call, *args, **kwargs):
        outputs = call(*args, **kwargs)
        recorded.append((layer, [_array(each) for each in keras.tree.flatten(outputs)]))
        return outputs

    layers = flatten_layers(model, include_self=False)
    functions = [functools.partial(record, layer) for layer in layers]
    with contextlib.suppress(Exception), intercepting(layers, functions):
        outputs_of(model, batch, state=state)
    return recorded
