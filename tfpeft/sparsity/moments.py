"""What is inside any Keras optimizer: optimizers that it wraps, averages and moments of weights."""

# Not of the gradients: averages of the weights (`use_ema`), and gradients that still add up.
_NO_MOMENTS = ("average", "gradient_accumulator")


def wrapped(optimizer):
    """Returns `optimizer` and those inside it."""
    found = []
    while optimizer is not None:
        found.append(optimizer)
        optimizer = getattr(optimizer, "inner_optimizer", None)
    return found


def averages_of(optimizer, variables):
    """Returns the averages of variables that a built optimizer keeps (`use_ema`); None if none."""
    plain = wrapped(optimizer)[-1]
    if not getattr(plain, "use_ema", False):
        return None
    averages = plain._model_variables_moving_average
    return [averages[plain._get_variable_index(variable)] for variable in variables]


def moments_of(optimizer, variables):
    """Returns the moments of variables: a list for each kind, such as Adam's velocity.

    They are the lists of variables that an optimizer has, one for each variable that it trains
    and of its shape. Factored statistics, such as Adafactor's, have other shapes and are not
    among them.

    Args:
        optimizer: A built `keras.optimizers.Optimizer` that wraps no other.
        variables: Some of the variables that it trains.

    Raises:
        ValueError: for a variable that it was not built with, as Keras's `apply` does.
    """
    trained = optimizer._trainable_variables
    optimizer._check_variables_are_known(variables)
    indices = [optimizer._get_variable_index(variable) for variable in variables]
    return [
        [slots[i] for i in indices]
        for slots in vars(optimizer).values()
        if isinstance(slots, list) and _are_moments(slots, trained)
    ]


def _are_moments(slots, variables):
    if slots is variables or len(slots) != len(variables):
        return False
    return all(
        hasattr(slot, "path")
        and slot is not variable
        and tuple(slot.shape) == tuple(variable.shape)
        and not slot.path.endswith(_NO_MOMENTS)
        for slot, variable in zip(slots, variables, strict=True)
    )


def initial_value(optimizer, moments):
    """Returns what moments begin with: 0, but for the accumulators of Adagrad and Ftrl."""
    is_accumulator = moments[0].path.endswith("_accumulator")
    return getattr(optimizer, "initial_accumulator_value", 0.0) if is_accumulator else 0.0
