"""Labels, weights, tasks and metrics of each output of a model."""

import keras

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.evaluation import user_metrics


def metrics_by_output(metrics, keys, subjects):
    """Returns {output: ({name: metric}, whether these are compiled ones)}."""
    if metrics is not None:
        if keys == [None]:
            return {None: (user_metrics.named_metrics(metrics), False)}
        is_by_output = isinstance(metrics, dict) and set(metrics) <= set(keys)
        return {
            key: (user_metrics.named_metrics(metrics.get(key) if is_by_output else metrics), False)
            for key in keys
        }
    compiled = next((each.metrics for each in subjects.values() if each.metrics), ())
    found = {}
    for key in keys:
        named = {}
        for structure in compiled:
            for metric in keras.tree.flatten(of_output(structure, key, keys)):
                try:
                    named |= user_metrics.named_metrics([metric])
                except InputError:
                    continue  # an object that only the model itself knows
        found[key] = (named, True)
    return found


def by_name(structure, names):
    """Returns a dict by positions of outputs in a list as one by their names."""
    if not isinstance(structure, dict) or names is None:
        return structure
    named = dict(enumerate(names))
    return {named.get(key, key): value for key, value in structure.items()}


def of_output(structure, key, keys):
    """Returns what a structure, as `compile` takes it, has for an output."""
    if isinstance(structure, dict):
        return structure.get(key, None) if len(keys) > 1 else list(structure.values())
    if isinstance(structure, (list, tuple)) and len(keys) > 1:
        return structure[keys.index(key)] if len(structure) == len(keys) else None
    return structure


def by_output(structure, keys, what):
    """Returns {output: array or None} of labels or weights as data has them."""
    if structure is None:
        return dict.fromkeys(keys)
    if keys == [None]:
        leaves = keras.tree.flatten(structure)
        return {None: leaves[0] if len(leaves) == 1 else structure}
    if isinstance(structure, dict) and set(structure) == set(keys):
        return structure
    if isinstance(structure, (list, tuple)) and len(structure) == len(keys):
        return dict(zip(keys, structure, strict=True))
    if what == "sample weights" and hasattr(structure, "shape"):
        return dict.fromkeys(keys, structure)  # of the samples, for all outputs
    expected = f"{what} of the outputs {', '.join(map(str, keys))}, in a dict or in their order"
    received = ", ".join(map(str, structure)) if isinstance(structure, dict) else _count(structure)
    raise InputError(f"Received invalid `data`, expected {expected}. Received: {received}")


def _count(structure):
    return "one array" if hasattr(structure, "shape") else f"{len(structure)} arrays"


def output_keys(outputs):
    """Returns the outputs, which all subjects must have."""
    found = {name: list(by_key) for name, by_key in outputs.items()}
    (first, keys), *others = found.items()
    for name, each in others:
        if set(each) != set(keys):
            listed = f"{first} with {keys}, {name} with {each}"
            raise unexpected("models and files of the same outputs", listed)
    return keys
