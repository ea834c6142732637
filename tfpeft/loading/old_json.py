"""JSON of Keras 2, which writes tuples, shapes and the ellipsis as objects."""

import json


def decode(text):
    """Returns what a text in JSON of Keras 2 stands for."""
    return json.loads(text.decode() if isinstance(text, bytes) else text, object_hook=_decoded)


def _decoded(item):
    kind = item.get("class_name")
    if kind == "__tuple__":
        return tuple(item["items"])
    if kind == "TensorShape":
        return list(item["items"]) if item["items"] is not None else None
    if kind == "__ellipsis__":
        return ...
    return item
