"""The states of a sparse optimizer in a file: saved by name, loaded if they are its own."""


def save(store, variables, states):
    """Puts an optimizer's variables into a store: states by their names, others by number."""
    for key, variable in _by_key(variables, states).items():
        store[key] = variable.numpy()


def load(store, variables, states):
    """Assigns the variables that `save` has put into a store.

    Returns:
        None; or why nothing was loaded: a sentence for a warning.
    """
    expected, saved = _by_key(variables, states), set(store.keys())
    own = _kinds(expected)
    by_number = dict(zip(map(str, range(len(variables))), variables, strict=True))
    if saved == set(by_number):  # the form of version 0.1.0
        expected = by_number
    problem = None
    if saved != set(expected):
        problem = f"it has {_described(expected)} variables, and the file {_described(saved)}"
    else:
        for key, variable in expected.items():
            sides = tuple(variable.shape), tuple(store[key].shape)
            if sides[0] != sides[1]:
                problem = f"the shape of {key} is {sides[0]}, and that in the file {sides[1]}"
    if problem is not None:
        if not own:
            return f"{problem}. Those of the file are not used."
        return f"{problem}. These start anew: {', '.join(own)}."
    for key, variable in expected.items():
        variable.assign(store[key])
    return None


def _by_key(variables, states):
    names = {
        id(variable): f"{name}_{i}"
        for name, each in states.items()
        for i, variable in enumerate(each)
    }
    return {names.get(id(v), str(i)): v for i, v in enumerate(variables)}


def _kinds(keys):
    return sorted({key.rpartition("_")[0] for key in keys} - {""})


def _described(keys):
    kinds = _kinds(keys)
    return f"{len(keys)} ({', '.join(kinds)})" if kinds else f"{len(keys)}"
