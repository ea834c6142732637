"""Which variables are kernels that take part in a technique, and why the others do not."""

import fnmatch
import re

from tfpeft.core.arguments import NoMatchError, check_exclude, invalid
from tfpeft.core.kernel_axes import is_class_of_keras, is_kernel
from tfpeft.core.layers import matching_patterns, owners_of, path_of

# Names of variables that no layer holds, in custom loops: of kernels, and those that TensorFlow
# and Keras give to variables without a name.
_NAME_WITHOUT_LAYER = re.compile(r"(.*_)?kernel|variable(_\d+)?", re.IGNORECASE)


def skip_reasons(variables, exclude=(), include=()):
    """Returns, for each variable, why it does not take part; None if it does.

    A variable takes part if it is a kernel of a layer of Keras or KerasHub, or if `include` names
    it; see `SparseOptimizer`.

    Args:
        variables: The variables of a model.
        exclude: Names or patterns of layers or variables to leave out, as in `match_layers`.
        include: Names or patterns of layers or variables that take part as well.

    Raises:
        InputError: if `exclude` or `include` is no list of names.
        NoMatchError: if one of their patterns matches no variable; of `include`, no trainable one
            of rank 2 or more.
    """
    check_exclude(exclude)
    check_exclude(include, name="include")
    unmatched, without_effect, reasons = set(exclude), set(include), []
    for variable, owners in zip(variables, owners_of(variables), strict=True):
        path = path_of(variable)
        excluding = matching_patterns(path, exclude)
        unmatched -= set(excluding)
        reason = _never(variable)
        if reason is None:
            if not _including_patterns(path, owners, include):
                reason = _no_kernel(path, owners)
            if reason is None:
                without_effect -= set(matching_patterns(path, include))
        if reason is None and excluding:
            reason = f"excluded by {sorted(excluding)[0]!r}"
        reasons.append(reason)
    if unmatched:
        raise unmatched_patterns("exclude", map(path_of, variables), unmatched)
    if without_effect:
        suited = [path_of(v) for v in variables if _never(v) is None]
        raise unmatched_patterns("include", suited, without_effect)
    return reasons


def unmatched_patterns(argument, paths, unmatched):
    """Returns the error for patterns of an argument that match none of `paths`."""
    expected = f"names or patterns of layers among {sorted(set(paths))}"
    return invalid(argument, expected, sorted(unmatched), error=NoMatchError)


def _never(variable):
    """Returns why a variable can never take part, or None."""
    rank = len(variable.shape)
    if rank < 2:
        return f"rank {rank}: no kernel"
    return None if variable.trainable else "not trainable"


def _including_patterns(path, owners, include):
    """Returns the patterns of `include` that take a variable in.

    A block that is named brings its own weights and those of the custom layers inside it, but not
    the embeddings and biases of Keras's layers inside it: these have to be named themselves.
    """
    if any(is_class_of_keras(type(layer)) for layer in owners):
        layer = path.rpartition("/")[0]
        return direct_patterns(path, include) + direct_patterns(layer, include)
    return matching_patterns(path, include)


def direct_patterns(path, patterns):
    """Returns the patterns that match a path or its last name, not a name before."""
    names = (path, path.split("/")[-1])
    return [each for each in patterns if any(fnmatch.fnmatchcase(name, each) for name in names)]


def _no_kernel(path, owners):
    name = path.split("/")[-1].split(":")[0]
    if not owners:
        is_one = _NAME_WITHOUT_LAYER.fullmatch(name)
        return None if is_one else f"`{name}` of no layer: no kernel, if `include` does not name it"
    if any(is_kernel(layer, name) for layer in owners):
        return None
    return f"`{name}` of {type(owners[0]).__name__}: no kernel, if `include` does not name it"


def select_kernels(variables, exclude=(), include=()):
    """Returns the variables that take part: see `skip_reasons`."""
    reasons = skip_reasons(variables, exclude, include)
    return [variable for variable, why in zip(variables, reasons, strict=True) if why is None]
