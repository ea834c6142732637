"""Forward hooks: record or replace a layer's call."""

import contextlib
import functools
import threading

import keras
import tensorflow as tf

from tfpeft.core.arguments import unexpected


@contextlib.contextmanager
def intercepting(layers, functions):
    """A context in which functions replace the `call` of layers.

    It works for nested and subclassed models alike, as Keras calls every layer through its `call`.
    The replicas of a strategy trace one model in threads that take turns: a function acts in the
    thread that attached it. The last context that ends restores the layer's own call. Of several
    functions on one layer, the one attached first is the outermost.

    Args:
        layers: The layers.
        functions: A function per layer, `f(call, *args, **kwargs)`, that returns the layer's
            outputs; `call` is the layer's own call, or the next function.
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


_attached = {}  # id of a layer -> (entries, the `call` in its __dict__ before)
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
        # By identity: one function may be attached to a layer twice.
        del entries[next(i for i, attached in enumerate(entries) if attached is entry)]
        if not entries:
            del _attached[id(layer)]
            del layer.__dict__["call"]
            if before is not None:
                layer.__dict__["call"] = before


@contextlib.contextmanager
def recording(layers):
    """Yields a dict {name: output}, filled when this thread calls the layers.

    No additional forward pass is needed. Of a layer with several outputs, it is the first one.

    Args:
        layers: {name: layer}.

    Raises:
        InputError: when a layer is called for the second time.
    """
    outputs = {}

    def record(name, layer, call, *args, **kwargs):
        output = call(*args, **kwargs)
        if name in outputs:
            raise unexpected(
                "layers that are called once, as features are the outputs of one call",
                f"{name}, which is called again",
            )
        first = keras.tree.flatten(output)[0]
        # The mask before other layers run, and on a new tensor: attention removes masks from its
        # inputs.
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


def logits_of(tensor):
    """Returns what Keras's softmax or sigmoid was given to make a tensor, or None."""
    return getattr(tensor, "_keras_logits", None)


def keep_notes(tensor, original):
    """Gives a tensor what Keras notes on another one that it stands for: logits and a mask."""
    for name in ("_keras_logits", "_keras_mask"):
        if hasattr(original, name):
            setattr(tensor, name, getattr(original, name))
    return tensor
