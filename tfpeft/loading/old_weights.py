"""Weights of .h5 files of Keras 1 and 2, put into the layers of the model that was made.

An .h5 file lists the weights of each layer: those that were trainable when it was saved, then the
others, also of all layers inside a model. Layers are matched by name.
"""

from tfpeft.core.arguments import unexpected
from tfpeft.loading.weight_layouts import GATES, converted


def assign_h5(made, group, keras_version):
    """Assigns the weights of an .h5 file.

    Args:
        made: The `Made` of the model.
        group: "model_weights" of the open file.
        keras_version: Of the file.

    Raises:
        InputError: naming the layers whose weights the file lacks, or has in other shapes.
    """
    backend = _text(group.attrs.get("backend", b""))
    saved = {name: _arrays(group[name]) for name in _attribute(group, "layer_names")}
    layers = {each.name: each for each in made.inside if leaves_of([each])}
    missing = [name for name in layers if not saved.get(name)]
    if missing:
        # Some files have the layers' weights under other names, in the order of the layers.
        with_weights = [arrays for arrays in saved.values() if arrays]
        if len(with_weights) != len(layers):
            raise unexpected("weights of each layer", f"none of {', '.join(missing)}")
        saved = dict(zip(layers, with_weights, strict=True))
    problems = []
    for name, each in layers.items():
        why = _assign([each], saved[name], keras_version, backend)
        if why:
            problems.append(f"{name} ({each.class_name}): {why}")
    if problems:
        raise unexpected("weights that fit the layers", "; ".join(problems))


def assign_in_order(made, arrays):
    """Assigns a list of all weights, layer after layer, as `model.weights` of Keras 2 has them.

    Raises:
        InputError: if there are more or fewer, or others.
    """
    slots = [slot for leaf in leaves_of([made]) for slot in leaf_weights(leaf)]
    unique = list({id(variable): variable for variable in slots}.values())
    if [tuple(v.shape) for v in unique] != [array.shape for array in arrays]:
        raise unexpected(f"{len(unique)} weights of the layers' shapes", f"{len(arrays)} others")
    for variable, array in zip(unique, arrays, strict=True):
        variable.assign(array)
    _finish([made])


def leaf_weights(leaf):
    """Returns the variables of a layer in the order of Keras 2."""
    return [*leaf.layer.trainable_weights, *leaf.layer.non_trainable_weights]


def leaves_of(made):
    """Returns the layers with weights, those inside models too."""
    found = []
    for each in made:
        if each.inside is not None:
            found += leaves_of(each.inside)
        elif each.layer is not None and each.layer.weights:
            found.append(each)
    return found


def _assign(made, arrays, keras_version, backend):
    """Assigns the weights of a layer or model; returns what does not fit, in words, or None."""
    leaves = list({id(leaf.layer): leaf for leaf in leaves_of(made)}.values())
    parts = {id(leaf.layer): [] for leaf in leaves}
    left = list(arrays)
    if len(leaves) == 1:  # all are of this layer, those that `renorm` adds, too
        parts[id(leaves[0].layer)], left = left, []
    trainable, others = _saved_order(made, keras_version, set())
    for leaf, count in trainable + others:
        parts[id(leaf.layer)] += left[:count]
        left = left[count:]
    if left:
        return f"{len(arrays)} weights in the file, {len(arrays) - len(left)} in the model"
    for leaf in leaves:
        values = converted(leaf.layer, parts[id(leaf.layer)], keras_version, backend)
        variables = leaf_weights(leaf)
        shapes = [tuple(variable.shape) for variable in variables]
        if shapes != [value.shape for value in values]:
            inside = f"{leaf.name}: " if len(leaves) > 1 else ""
            return f"{inside}shapes {[value.shape for value in values]}, expected {shapes}"
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
    _finish(made)
    return None


def _saved_order(made, keras_version, seen):
    """Returns the trainable and the other weights of a file: pairs of a layer and their number.

    A model that was frozen as a whole lists those of its layers that are trainable first, too.
    """
    trainable, others = [], []
    for each in made:
        if each.inside is not None:
            first, second = _saved_order(each.inside, keras_version, seen)
            first, second = ([], first + second) if each.is_frozen else (first, second)
        elif each.layer is None or not each.layer.weights or id(each.layer) in seen:
            continue
        else:
            seen.add(id(each.layer))
            count = len(each.layer.trainable_weights)
            first, second = [(each, count)], [(each, len(each.layer.weights) - count)]
            if count == 3 and keras_version.startswith("1") and each.class_name in GATES:
                first = [(each, 3 * len(GATES[each.class_name]))]
        trainable += first
        others += second
    return trainable, others


def _finish(made):
    """Lets layers compute what they derive from their weights, as `Normalization` does."""
    for leaf in leaves_of(made):
        if hasattr(leaf.layer, "finalize_state"):
            leaf.layer.finalize_state()


def _attribute(group, name):
    """Returns a list of texts, which Keras divides into several attributes if it is long."""
    if name in group.attrs:
        return [_text(each) for each in group.attrs[name]]
    texts = []
    while f"{name}{len(texts)}" in group.attrs:
        texts.append([_text(each) for each in group.attrs[f"{name}{len(texts)}"]])
    return [text for part in texts for text in part]


def _arrays(group):
    return [group[name][()] for name in _attribute(group, "weight_names")]


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
