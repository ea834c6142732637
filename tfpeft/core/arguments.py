"""Arguments: the classes of errors, and one way to write "expected, received"."""

import numbers
import re

import numpy as np


class InputError(ValueError):
    """An argument, a file or data that tfpeft cannot use; the base of its other errors.

    The message names the argument, what was expected and what was received. Scripts print it as
    one line and exit with status 1; any other exception is a bug and keeps its traceback.

    Example:

    ```python
    import tfpeft

    try:
        tfpeft.constant_sparsity(1.5, begin=0.0, total_steps=100)
    except tfpeft.InputError as error:
        print(error)  # Received an invalid value for `target_sparsity`, expected a number in ...
    ```
    """

    # Keras puts errors in the call of a layer into an error of many lines, but for those that have
    # this attribute.
    _keras_call_info_injected = True

    def __init__(self, message=""):
        # And Keras makes a longer one where it infers shapes.
        super().__init__(message.rsplit("Error encountered:\n\n", 1)[-1])


class NoMatchError(InputError):
    """Names or patterns of layers that match nothing, or a model in which nothing takes part.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    try:
        tfpeft.add_adapters(model, tfpeft.LoRA(target="query"))
    except tfpeft.NoMatchError as error:
        print(error)  # ... expected names or patterns of layers ..., such as head. Received: ...
    ```
    """


class ExportError(InputError):
    """A model that cannot be written as a file, or a file whose outputs are not the model's.

    Example:

    ```python
    import keras, tfpeft

    inputs = keras.Input((8,))
    model = keras.Model(inputs, keras.ops.erfinv(inputs))
    try:
        tfpeft.export_tflite(model, "model.tflite")
    except tfpeft.ExportError as error:
        print(error)  # names the operators that TFLite lacks
    ```
    """


class BudgetError(InputError):
    """A target of size or quality that cannot be reached with this model and these data.

    Example:

    ```python
    import tfpeft

    print(issubclass(tfpeft.BudgetError, tfpeft.InputError))  # True
    ```
    """


def invalid(name, expected, received, *, error=InputError):
    """Returns the error for the argument `name`; `error` is its class."""
    return error(
        f"Received an invalid value for `{name}`, expected {expected}. "
        f"Received: {name}={_described(received)}"
    )


def _described(value):
    """Returns the representation of a value in one line; of Keras 2's objects, what they are."""
    if type(value).__module__.startswith("tf_keras."):
        return f"{type(value).__name__} of tf_keras (Keras 2); tfpeft takes those of Keras 3"
    return shortened(repr(value), 1000)


def shortened(text, length):
    """Returns a text in one line of at most `length` characters."""
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 3]}..."


def last_cause(error):
    """Returns the last cause that an exception of another library names, in one short line.

    Keras puts an exception into an exception, with the configuration of the model and the arguments
    of the call, over many lines and in colours. An `InputError` is returned as it is.
    """
    if isinstance(error, InputError):
        return str(error)
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    if text.startswith("Graph execution error"):  # the cause comes after a trace of the graph
        lines = [line.strip() for line in text.splitlines()]
        text = [line for line in lines if line and not line.startswith(("[[", "File "))][-1]
    text = text.rsplit("Exception encountered: ", 1)[-1]
    text = re.split(r"Full (?:object )?config: |\n\s*Arguments received by ", text)[0]
    layer = re.match(r"Exception encountered when calling (.*?)\.\w+\(\)\.\s", text)
    if layer:
        text = f"{layer[1]}: {text[layer.end() :].lstrip()}"
    text = re.sub(r"\{\{(?:function_)?node [^}]*\}\} ?", "", text)
    text = re.sub(r" \[Op:\w+\].*", "", text, flags=re.DOTALL)
    paragraph = text.strip().split("\n\n")[0].rstrip(".")
    return shortened(paragraph or type(error).__name__, 300)


def unexpected(expected, received, *, error=InputError):
    """Returns the error where no single argument is wrong: data, files, combinations."""
    return error(f"Expected {expected}. Received: {received}")


def is_real(value):
    """Whether a value is a real number; True and False are none."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_sparsity(name, sparsity):
    """Raises unless `sparsity` is a number in [0, 1)."""
    if not is_real(sparsity) or not 0.0 <= sparsity < 1.0:
        raise invalid(name, "a number in [0, 1)", sparsity)


def check_rate(name, rate):
    """Raises unless `rate` is a number in (0, 1]."""
    if not is_real(rate) or not 0.0 < rate <= 1.0:
        raise invalid(name, "a number in (0, 1]", rate)


def check_positive(name, value):
    """Raises unless `value` is a positive, finite number."""
    if not is_real(value) or not 0.0 < value < float("inf"):
        raise invalid(name, "a positive number", value)


def is_weight(value):
    """Whether a value is a finite number >= 0."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return is_number and 0.0 <= value < 3e38  # the largest float32


def are_class_weights(value):
    """Whether a value is {class number: weight}; the numbers are whole, also as floats."""
    return isinstance(value, dict) and all(
        isinstance(number, numbers.Real)
        and not isinstance(number, bool)
        and number >= 0
        and float(number).is_integer()
        and is_weight(weight)
        for number, weight in value.items()
    )


def check_positive_integer(name, value):
    """Raises unless `value` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 1:
        raise invalid(name, "an integer of at least 1", value)


def check_seed(name, seed):
    """Raises unless `seed` is an integer of at most 31 bits."""
    if isinstance(seed, bool) or not isinstance(seed, numbers.Integral) or abs(seed) >= 2**31:
        raise invalid(name, "an integer of at most 31 bits", seed)


def check_exclude(exclude, name="exclude"):
    """Raises unless `exclude`, or the argument `name`, is a list or tuple of names."""
    is_list = isinstance(exclude, (list, tuple))
    if not is_list or not all(isinstance(each, str) for each in exclude):
        raise invalid(name, "a list or tuple of names", exclude)


def check_boolean(name, value):
    """Raises unless `value` is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise invalid(name, "True or False", value)


def check_name(name):
    """Raises unless `name` is None, or a name that Keras takes."""
    if name is not None and (not isinstance(name, str) or not name or "/" in name):
        raise invalid("name", 'a name without "/", or None', name)


def check_choice(name, value, choices):
    """Raises unless `value` is one of `choices`."""
    # Not by `in`, as arrays compare entry by entry.
    if not any(isinstance(value, type(choice)) and value == choice for choice in choices):
        raise invalid(name, f"one of {', '.join(map(repr, choices))}", value)


def compatible_shapes(a, b):
    """Whether two shapes agree, unknown sides with any."""
    return len(a) == len(b) and all(
        None in pair or pair[0] == pair[1] for pair in zip(a, b, strict=True)
    )
