"""Outputs of models by key or name: those of teacher and student, and the labels for them."""

import dataclasses

import keras

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.graph import output_structure, outputs_by_key


@dataclasses.dataclass(frozen=True)
class OutputNames:
    """What the outputs of a model are called.

    Attributes:
        keys: Their keys, or indices of a list; (None,) of one output.
        names: {name: key}, the names of layers, by which outputs of a list are known as well.
    """

    keys: tuple
    names: dict

    @classmethod
    def of(cls, model, outputs=None):
        """Returns those of a model, or of `outputs` that it returned; None if not known."""
        structure = output_structure(model) if outputs is None else outputs
        if structure is None:
            return None
        keys = tuple(outputs_by_key(structure))
        declared = list(getattr(model, "output_names", None) or [])
        if keys == (None,):
            own = structure if isinstance(structure, dict) else ()
            return cls(keys, dict.fromkeys([*own, *declared[:1]]))
        is_list = not isinstance(structure, dict) and len(declared) == len(keys)
        return cls(keys, dict(zip(declared, keys, strict=True)) if is_list else {})

    @property
    def known(self):
        """Keys and names, for errors."""
        return list(dict.fromkeys([*(key for key in self.keys if key is not None), *self.names]))

    @property
    def listed(self):
        """Their names, or keys, in one text."""
        found = [*self.names] or [key for key in self.keys if key is not None]
        return ", ".join(map(str, found))

    def knows(self, output):
        """Whether there is an output of this key, index or name."""
        is_only = self.keys == (None,) and type(output) is int and output == 0
        return is_only or output in self.keys or output in self.names

    def find(self, output):
        """Returns the key of an output that `knows` knows."""
        return output if output in self.keys else self.names.get(output)


def match_outputs(teacher, student):
    """Returns {key of the student's output: key of the teacher's}; None if they do not match.

    Outputs are matched by key or name; lists without common names by position.
    """
    if len(teacher.keys) == len(student.keys) == 1:
        return {student.keys[0]: teacher.keys[0]}
    if len(teacher.keys) != len(student.keys):
        return None
    own, others = _by_name(student), _by_name(teacher)
    if set(own) == set(others):
        return {key: others[name] for name, key in own.items()}
    are_lists = teacher.keys == student.keys
    moved = [name for name in set(own) & set(others) if own[name] != others[name]]
    return dict(zip(student.keys, teacher.keys, strict=True)) if are_lists and not moved else None


def _by_name(outputs):
    return outputs.names or {key: key for key in outputs.keys}


def match_labels(values, outputs, known, what):
    """Returns labels or sample weights in the structure of outputs; None where there are none.

    Args:
        values: A dict by key or name of the outputs, a list in the order of a list of outputs, or
            one array for one output.
        outputs: What the model returned.
        known: Their `OutputNames`.
        what: "labels" or "sample weights", for the error. Sample weights may be for all outputs.

    Raises:
        InputError: for unknown names, a list for a dict of outputs, and another count.
    """
    is_nested = isinstance(values, (dict, list, tuple))
    if values is None or (not is_nested and what == "sample weights"):
        return values
    if isinstance(values, dict):
        if all(map(known.knows, values)):
            by_key = {known.find(name): value for name, value in values.items()}
            if isinstance(outputs, dict):
                return {key: by_key.get(known.find(key)) for key in outputs}
            if isinstance(outputs, (list, tuple)):
                return [by_key.get(known.find(index)) for index in range(len(outputs))]
            return by_key[None]
        is_only = not known.names and known.keys == (None,)
        if len(values) == 1 and is_only and not isinstance(outputs, (dict, list, tuple)):
            return next(iter(values.values()))
        received = ", ".join(map(str, values))
    elif is_nested:
        if isinstance(outputs, (list, tuple)) and len(values) == len(outputs):
            return list(values)
        if len(values) == len(keras.tree.flatten(outputs)) == 1:
            return _like(outputs, values[0])
        received = f"a list of {len(values)}"
    elif len(keras.tree.flatten(outputs)) == 1:
        return _like(outputs, values)
    else:
        received = "one array"
    if isinstance(outputs, (list, tuple)) and len(outputs) > 1:
        expected = f"a list of {len(outputs)}, or a dict"
    else:
        expected = "a dict" if isinstance(outputs, dict) else "one array, or a dict"
    names = f" by the names {known.listed}" if known.listed else ""
    raise unexpected(f"{what} for each output: {expected}{names}", received)


def _like(outputs, value):
    """Returns the only value in the structure of outputs."""
    return keras.tree.map_structure(lambda _: value, outputs)


def by_output(argument, value, known):
    """Returns an argument of `compile` for a model of several outputs, by the keys of outputs.

    Args:
        argument: "loss", "loss_weights", "metrics" or "weighted_metrics".
        value: A dict by key or name, a list of one per output, or one for all outputs.
        known: The `OutputNames` of the model.

    Returns:
        A list or dict by key, with None for outputs without a value; or `value`, if it is for all.

    Raises:
        InputError: for unknown names, and a list of another length.
    """
    is_list = isinstance(value, (list, tuple))
    if known is None or value is None or known.keys == (None,):
        if known is not None and isinstance(value, dict) and not all(map(known.knows, value)):
            names = known.listed or "of the output"
            raise invalid(argument, f"a dict by the name {names}", list(value))
        return value
    if isinstance(value, dict):
        if not all(map(known.knows, value)):
            raise invalid(argument, f"a dict by the names {known.listed}", list(value))
        by_key = {known.find(name): each for name, each in value.items()}
        if known.names:
            return [by_key.get(key) for key in known.keys]
        return by_key
    if is_list and len(value) != len(known.keys):
        received = f"a list of {len(value)}"
        expected = f"one per output, {len(known.keys)}, or a dict by the names {known.listed}"
        raise invalid(argument, expected, received)
    if is_list and isinstance(known.keys[0], str):
        raise invalid(argument, f"a dict by the names {known.listed}", value)
    return value
