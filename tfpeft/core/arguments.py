"""How a bad argument is reported: by its name, what was expected and what came."""

import numbers


def invalid(name, expected, received):
    """Returns the error for an argument."""
    return ValueError(
        f"Received an invalid value for `{name}`, expected {expected}. "
        f"Received: {name}={received!r}"
    )


def check_sparsity(name, sparsity):
    """Raises unless `sparsity` is a number in [0, 1)."""
    if not isinstance(sparsity, numbers.Real) or not 0.0 <= sparsity < 1.0:
        raise invalid(name, "a number in [0, 1)", sparsity)


def check_rate(name, rate):
    """Raises unless `rate` is a number in (0, 1]."""
    if not isinstance(rate, numbers.Real) or not 0.0 < rate <= 1.0:
        raise invalid(name, "a number in (0, 1]", rate)


def check_positive(name, value):
    """Raises unless `value` is a positive, finite number."""
    if not isinstance(value, numbers.Real) or not 0.0 < value < float("inf"):
        raise invalid(name, "a positive number", value)


def check_positive_integer(name, value):
    """Raises unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise invalid(name, "an integer of at least 1", value)


def check_seed(name, seed):
    """Raises unless `seed` is an integer of at most 31 bits."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or abs(seed) >= 2**31:
        raise invalid(name, "an integer of at most 31 bits", seed)


def check_exclude(exclude):
    """Raises unless `exclude` is a list or tuple of names."""
    is_list = isinstance(exclude, (list, tuple))
    if not is_list or not all(isinstance(each, str) for each in exclude):
        raise invalid("exclude", "a list or tuple of names", exclude)


def check_choice(name, value, choices):
    """Raises unless `value` is one of `choices`."""
    if value not in choices:
        raise invalid(name, f"one of {', '.join(map(repr, choices))}", value)


def compatible_shapes(a, b):
    """Whether two shapes agree, unknown sides with any."""
    return len(a) == len(b) and all(
        None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True)
    )
