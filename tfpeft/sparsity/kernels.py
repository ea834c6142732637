"""Which variables are kernels that take part in a technique, and why the others do not."""

from tfpeft.core.arguments import NoMatchError, check_exclude, invalid
from tfpeft.core.layers import matching_patterns, path_of

# Variables of rank 2 and more that are no kernels: parts of their names, and whole names (of
# PReLU and RMSNormalization).
_PARTS_OF_OTHER_NAMES = (
    *("embedding", "bias", "gamma", "beta", "mean", "variance", "lora", "distiller_only"),
)
_OTHER_NAMES = ("alpha", "scale")


def skip_reasons(variables, exclude=()):
    """Returns, for each variable, why it does not take part; None if it does.

    Args:
        variables: The variables of a model.
        exclude: Names or patterns of layers or variables to leave out, as in `match_layers`.

    Raises:
        InputError: if `exclude` is no list of names.
        NoMatchError: if one of its patterns matches no variable.
    """
    check_exclude(exclude)
    unmatched, reasons = set(exclude), []
    for variable in variables:
        path = path_of(variable)
        patterns = matching_patterns(path, exclude)
        unmatched -= set(patterns)
        reasons.append(_skip_reason(path.split("/")[-1], len(variable.shape), sorted(patterns)))
    if unmatched:
        raise unmatched_exclude({path_of(v) for v in variables}, unmatched)
    return reasons


def unmatched_exclude(paths, unmatched):
    """Returns the error for patterns of `exclude` that match none of `paths`."""
    expected = f"names or patterns of layers among {sorted(paths)}"
    return invalid("exclude", expected, sorted(unmatched), error=NoMatchError)


def _skip_reason(name, rank, patterns):
    if rank < 2:
        return f"rank {rank}: no kernel"
    if name in _OTHER_NAMES or any(part in name for part in _PARTS_OF_OTHER_NAMES):
        return f"`{name}`: no kernel"
    return f"excluded by {patterns[0]!r}" if patterns else None


def select_kernels(variables, exclude=()):
    """Returns the variables that take part: see `skip_reasons`."""
    reasons = skip_reasons(variables, exclude)
    return [variable for variable, why in zip(variables, reasons, strict=True) if why is None]
