"""Whether an adapter can be merged: the outputs of a model with it, and with merged weights."""

import contextlib

import keras
import numpy as np

from tfpeft.core import clone
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.graph import flatten_layers
from tfpeft.core.same_outputs import (
    difference,
    in_float32,
    is_random,
    outputs_of,
    run,
    same_seeds,
    tolerance_of,
)

_SHAKE = 0.1
"""Standard deviation of what is added to an adapter's weights, which begin as the identity."""

_NAMED = 3
"""How many layers an error names."""


def merged_values(parts):
    """Returns [(variable of the model, its value with the adapter)] of parts of an adapter."""
    values = []
    for part in parts:
        for attribute, value in part.method.merged(part, part.layer).items():
            # Keras's `layer.kernel` is a tensor where Keras's own LoRA is enabled.
            variable = getattr(part.layer, f"_{attribute}", None)
            if not isinstance(variable, keras.Variable):
                variable = getattr(part.layer, attribute)
            values.append((variable, value))
    return values


def check_adapter(model, adapter, sample=None):
    """Raises unless a new adapter begins as the identity and, if it has `merged`, can be merged.

    The weights of the adapter are changed at random, for a moment. The model with the adapter must
    then have the outputs of the model with the merged weights. It has not where a layer's weights
    are used by more than its own `call`: tied tables, shared weights, Keras's own LoRA, integers.

    Args:
        model: The frozen model.
        adapter: An `Adapter` of its layers.
        sample: A `Run` of the model, or of the one that it is a copy of, where there is one.

    Raises:
        InputError: naming the layers.
    """
    sample = sample or run(model)
    if sample is None:
        _raise_if_any([part for part in adapter.parts if _reason(part.layer)])
        return
    try:
        merged = merged_values(adapter.parts)
    except InputError:  # a method that cannot be merged
        _check_identity(model, adapter, sample)
        return
    except Exception:  # of weights that are no floats
        _raise_if_any(_culprits(model, adapter, sample.batch))
    _raise_if_any(_changed_in_training(model, adapter, sample.batch))
    gap = _merge_gap(model, adapter, sample.batch, adapter.parts)
    if gap and (np.isinf(gap) or not is_random(model, sample)):
        _raise_if_any(_culprits(model, adapter, sample.batch))
    # A model with an adapter has the outputs of one with merged weights: these are the same ones.
    tolerance = tolerance_of(model)
    if any(difference([np.asarray(v)], [np.asarray(new)], tolerance) for v, new in merged):
        _check_identity(model, adapter, sample)


def _check_identity(model, adapter, sample):
    """Raises unless a model runs with a new adapter, and has the same outputs with it."""
    try:
        outputs, _ = outputs_of(_with(model, adapter), sample.batch)
    except Exception:  # a layer that is called in ways that its Keras class does not know
        _raise_if_any(_culprits(model, adapter, sample.batch))
    if not adapter.method.starts_as_identity:
        return
    gap = difference(sample.outputs, outputs, tolerance_of(model))
    if gap and not is_random(model, sample):
        raise unexpected(
            "an adapter that begins as the identity, or a method with `starts_as_identity = False`",
            f"{type(adapter.method).__name__}, with which outputs differ by up to {gap:.3g}",
        )


def adapted_run(model, adapter):
    """Returns the `Run` of a model with an adapter; None if no batch is known."""
    return run(model, _with(model, adapter))


def check_merged(model, adapter, merged, sample):
    """Raises unless a merged model has the outputs of the model with the adapter.

    Args:
        model: The frozen model.
        adapter: An `Adapter` of its layers.
        merged: The copy of the model with merged weights.
        sample: The `Run` of the model with the adapter, or None.

    Raises:
        InputError: naming the layers that differ.
    """
    if sample is None:
        return
    seeds = same_seeds(model, merged)
    with contextlib.suppress(Exception):  # of a copy that does not run
        received, _ = outputs_of(merged, sample.batch, state=seeds)
        if not difference(sample.outputs, received, tolerance_of(model, merged)):
            return
        again, _ = outputs_of(_with(model, adapter), sample.batch)
        if difference(sample.outputs, again, 0.1 * tolerance_of(model)):
            return
        with in_float32(model, merged):  # many layers may round by more than is tolerated
            expected, _ = outputs_of(_with(model, adapter), sample.batch)
            received, _ = outputs_of(merged, sample.batch, state=seeds)
            if not difference(expected, received, tolerance_of(model, merged)):
                return
    clone.copy_model(model)  # raises where the copy is to blame, and not the merging
    _raise_if_any(_culprits(model, adapter, sample.batch))


def _with(model, adapter, parts=None):
    def call(inputs, training):
        with adapter.attached(parts):
            return model(inputs, training=training)

    return call


def _changed_in_training(model, adapter, batch):
    """Returns the parts of layers whose weights a call in training changes."""
    scope = None
    if not any(map(_may_change, flatten_layers(model))):
        return []
    with contextlib.suppress(Exception):  # models that cannot be called so
        _, scope = outputs_of(model, batch, training=True)
    return [
        part
        for part in adapter.parts
        if scope and any(scope.get_current_value(v) is not None for v, _ in merged_values([part]))
    ]


def _may_change(layer):
    """Whether a layer may change weights in training: of Keras's, only one does."""
    is_of_keras = type(layer).__module__.startswith("keras.")
    return not is_of_keras or isinstance(layer, keras.layers.SpectralNormalization)


def _merge_gap(model, adapter, batch, parts):
    """Returns the difference that merging makes, with random weights in some parts; 0.0 if none.

    Only these parts take part. Infinite if the model does not run with them.
    """
    with in_float32(model) as was_mixed:
        gap = _gap(model, adapter, batch, parts)
    if np.isinf(gap) and was_mixed:  # a custom layer may need the type that it computes in
        gap = _gap(model, adapter, batch, parts)
    return gap


def _gap(model, adapter, batch, parts):
    tolerance = tolerance_of(model)
    rng = np.random.default_rng(0)
    # More where rounding is coarse.
    size = _SHAKE if tolerance < _SHAKE else 5 * _SHAKE
    state = [
        (weight, weight.numpy() + size * rng.normal(size=weight.shape))
        for part in parts
        for weight in part.trainable_weights
    ]
    try:
        expected, _ = outputs_of(_with(model, adapter, parts), batch, state=state)
        with keras.StatelessScope(state_mapping=state):
            merged = merged_values(parts)
        received, _ = outputs_of(model, batch, state=merged)
    except Exception:  # a layer that is called, or holds weights, as its Keras class does not
        return np.inf
    return difference(expected, received, tolerance)


def _culprits(model, adapter, batch):
    """Returns parts that cannot be merged, at most `_NAMED` + 1: all, if no one alone is to blame.

    By halves: each half with a gap is searched, so the calls grow with the logarithm of the parts.
    """
    found, left = [], [adapter.parts]
    while left and len(found) <= _NAMED:
        parts = left.pop()
        if not _merge_gap(model, adapter, batch, parts):
            continue
        if len(parts) == 1:
            found += parts
        else:
            half = len(parts) // 2
            left += [parts[half:], parts[:half]]
    return found or adapter.parts


def _raise_if_any(parts):
    if not parts:
        return
    names = ", ".join(repr(part.path_of_layer) for part in parts[:_NAMED])
    more = " and more" if len(parts) > _NAMED else ""
    reason = _reason(parts[0].layer) or (
        "with weights that something else uses or changes, or with a custom `call`"
    )
    raise unexpected(
        "target layers whose weights are used by the `call` of their Keras class alone, so that "
        f"{type(parts[0].method).__name__} can be merged",
        f"{names}{more}, {reason}; `target` can name other layers",
    )


def _reason(layer):
    if getattr(layer, "lora_enabled", False):
        return "with Keras's own LoRA, which is merged in a model that is saved and loaded"
    if getattr(layer, "quantization_mode", None):
        return f"with weights that are quantized ({layer.quantization_mode})"
    return None
