"""The arguments `labels` and `input_scaling` of an export, matched to a model's tensors."""

import keras
import numpy as np

from tfpeft.core.arguments import invalid, shortened
from tfpeft.export.conversion import named_outputs, signatures
from tfpeft.export.tflite_signature import file_names


def match_labels(model, labels, inputs, sample):
    """Returns {signature: {output: labels}}.

    Args:
        model: The model.
        labels: As `export_tflite` takes them.
        inputs: `ModelInput`s in the structure that the model is called with.
        sample: Arrays (1, ...) in their order.
    """
    if labels is None:
        return {}
    x = keras.tree.pack_sequence_as(inputs, sample)
    widths = {
        name: {key: value.shape[-1] for key, value in named_outputs(m(x, training=False)).items()}
        for name, m in signatures(model).items()
    }
    if len(widths) == 1:
        ((signature, of_outputs),) = widths.items()
        return {signature: _of_outputs(labels, of_outputs)}
    if not isinstance(labels, dict) or not set(labels) <= set(widths):
        raise invalid("labels", f"a dict of {', '.join(widths)}", labels)
    return {name: _of_outputs(labels[name], widths[name]) for name in labels}


def _of_outputs(labels, widths):
    """Returns {output: labels} of the outputs of one signature, of {output: how many}."""
    if not isinstance(labels, dict):
        if len(widths) > 1:
            raise invalid("labels", f"a dict of lists of {', '.join(widths)}", labels)
        labels = dict.fromkeys(widths, labels)
    if not set(labels) <= set(widths):
        raise invalid("labels", f"names of outputs: {', '.join(widths)}", list(labels))
    for name, values in labels.items():
        is_list = isinstance(values, (list, tuple))
        if not is_list or not all(isinstance(v, str) and v and "\n" not in v for v in values):
            expected = "a list of texts of one line, one of each class"
            raise invalid("labels", expected, values)
        if len(values) != widths[name]:
            expected = f"{widths[name]} labels, as {name} has so many classes"
            raise invalid("labels", expected, f"{len(values)}: {shortened(str(values), 80)}")
    return {name: tuple(values) for name, values in labels.items()}


def match_scaling(scaling, inputs):
    """Returns {input as the file names it: (means, standard deviations)}.

    Args:
        scaling: As `export_tflite` takes it.
        inputs: `ModelInput`s in the structure that the model is called with.
    """
    if scaling is None:
        return {}
    leaves = keras.tree.flatten(inputs)
    names = [leaf.name for leaf in leaves]
    if not isinstance(scaling, dict):
        if len(leaves) > 1:
            raise invalid("input_scaling", f"a dict of {', '.join(names)}", scaling)
        scaling = {names[0]: scaling}
    found = {}
    for leaf, name in zip(leaves, file_names(names), strict=True):
        if leaf.name in scaling:
            width = leaf.shape[-1] if leaf.shape else 1
            found[name] = _mean_and_std(scaling[leaf.name], width)
    if len(found) < len(scaling):
        raise invalid("input_scaling", f"names of inputs: {', '.join(names)}", list(scaling))
    return found


def _mean_and_std(pair, width):
    expected = "a pair (mean, std), each a number or a list of one per channel, with std above 0"
    try:
        mean, std = (np.atleast_1d(np.asarray(value, "float32")) for value in pair)
    except (TypeError, ValueError):
        raise invalid("input_scaling", expected, pair) from None
    is_whole = all(
        v.ndim == 1 and len(v) in (1, width) and np.isfinite(v).all() for v in (mean, std)
    )
    if not is_whole or (std <= 0).any():
        raise invalid("input_scaling", expected, pair)
    return mean, std
