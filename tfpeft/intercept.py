"""Stands between a layer and its `call`, in one thread and for a while."""

import contextlib
import functools
import threading


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
