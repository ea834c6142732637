"""Stands between a layer and its `call`, in one thread and for a while."""

import contextlib
import functools
import threading

import keras
import tensorflow as tf


@contextlib.contextmanager
def intercepting(layers, functions):
    """Replaces the `call` of layers on the instances while it lasts.

    It works for nested and subclassed models alike, as every layer is called through its `call`.
    The replicas of a strategy trace one model in threads that take turns: each thread has its own
    functions, and the last one to leave puts things back. What was attached first is outermost.

    Args:
        layers: The layers.
        functions: As many functions `f(call, *args, **kwargs)` that return the layer's outputs.
    """
    entries = [(threading.get_ident(), function) for function in functions]
    pairs = list(zip(layers, entries, strict=True))
    for layer, entry in pairs:
        _attach(layer, entry)
    try:
        yield
    finally:
        for layer, entry in pairs:
            _detach(layer, entry)


_attached = {}  # id of a layer -> (entries, what was in the layer's __dict__ before)
_lock = threading.Lock()


def _attach(layer, entry):
    with _lock:
        entries, _ = _attached.setdefault(id(layer), ([], layer.__dict__.get("call")))
        entries.append(entry)
        if len(entries) > 1:
            return
    original = layer.call

    def call(*args, **kwargs):
        chain = original
        for thread, function in reversed(list(entries)):
            if thread == threading.get_ident():
                chain = functools.partial(function, chain)
        return chain(*args, **kwargs)

    layer.__dict__["call"] = functools.wraps(original)(call)


def _detach(layer, entry):
    with _lock:
        entries, before = _attached[id(layer)]
        # By identity: one function may stand on a layer twice.
        del entries[next(i for i, each in enumerate(entries) if each is entry)]
        if not entries:
            del _attached[id(layer)]
            del layer.__dict__["call"]
            if before is not None:
                layer.__dict__["call"] = before


@contextlib.contextmanager
def recording(layers):
    """Yields a dict that gets the output of each layer as this thread calls it.

    Features come from the forward pass that is made anyway; of several outputs the first one
    counts.

    Args:
        layers: name -> layer.

    Raises:
        ValueError: if one of them is called more than once.
    """
    outputs = {}

    def record(name, layer, call, *args, **kwargs):
        output = call(*args, **kwargs)
        if name in outputs:
            raise ValueError(
                f"Expected layers that are called once, as features have to be those of one place. "
                f"Received: {name}, which is called again"
            )
        first = keras.tree.flatten(output)[0]
        # The mask at once, and on a tensor of its own: attention takes masks off its inputs.
        outputs[name] = tf.identity(first)
        outputs[name]._keras_mask = _mask_of_output(layer, args, output, first)
        return output

    functions = [functools.partial(record, name, layer) for name, layer in layers.items()]
    with intercepting(layers.values(), functions):
        yield outputs


def _mask_of_output(layer, args, output, first):
    """Returns the mask that Keras will give to the first output of a call."""
    if mask_of(first) is not None or not layer.supports_masking or not args:
        return mask_of(first)
    inputs = keras.tree.map_structure(mask_of, args[0])
    if all(mask is None for mask in keras.tree.flatten(inputs)) and not _makes_masks(layer):
        return None
    masks = layer.compute_mask(args[0], inputs)
    return masks[0] if isinstance(masks, (list, tuple)) and masks else masks


def _makes_masks(layer):
    return isinstance(layer, (keras.layers.Embedding, keras.layers.Masking, keras.Model))


def mask_of(tensor):
    """Returns the Keras mask of a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)
