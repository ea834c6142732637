"""The interface of a space of students, and how its ranges are checked and drawn from."""

import abc
import numbers
from collections.abc import Sequence

import keras

from tfpeft.automl.students.interface import Interface
from tfpeft.core.arguments import InputError, invalid


class Architecture(abc.ABC):
    """A space of students: a point of it is a Keras model.

    A subclass declares its choices in `build`, from KerasTuner's `HyperParameters`, and names those
    that make a model larger in `size_names`: where a drawn model is over the budget, the search
    makes these smaller, one after the other, before it draws another one.
    """

    name: str
    size_names: tuple[str, ...] = ()

    @abc.abstractmethod
    def build(self, hp, interface: Interface) -> keras.Model:
        """Returns the model of the values of `hp`; see the class."""

    def accepts(self, interface: Interface) -> bool:
        """Whether the space has models for these inputs."""
        return True

    def as_dict(self) -> dict:
        """Returns the class and its ranges, as plain JSON values."""
        return {"space": self.name, **{k: list(v) for k, v in vars(self).items()}}


def check_ranges(ranges, *, least=1):
    """Returns {name: a tuple of increasing integers}; raises unless each is a sequence of these."""
    found = {}
    for name, values in ranges.items():
        is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
        if not is_list or not all(is_integer(each) and each >= least for each in values):
            raise invalid(name, f"a list or tuple of integers of at least {least}", values)
        found[name] = tuple(sorted({int(each) for each in values}))
    return found


def check_numbers(name, values, low, high):
    """Returns a tuple of increasing numbers; raises unless `values` are numbers in [low, high]."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not is_list or not all(
        isinstance(each, numbers.Real) and not isinstance(each, bool) and low <= each <= high
        for each in values
    ):
        raise invalid(name, f"a list or tuple of numbers from {low:g} to {high:g}", values)
    return tuple(sorted({float(each) for each in values}))


def check_words(name, values, words):
    """Returns a tuple without repetitions; raises unless `values` are some of `words`."""
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not is_list or not all(isinstance(each, str) and each in words for each in values):
        raise invalid(name, f"a list or tuple of {', '.join(map(repr, words))}", values)
    return tuple(dict.fromkeys(values))


def is_integer(value):
    """Whether a value is an integer, and not True or False."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def choose(hp, name, values):
    """Returns the value of a choice; a search begins with the middle number, or the first word."""
    are_words = isinstance(values[0], str)
    value = hp.Choice(
        name,
        list(values),
        ordered=None if are_words else True,
        default=values[0] if are_words else values[len(values) // 2],
    )
    # KerasTuner sends numbers to workers as float32.
    return value if are_words else min(values, key=lambda each: abs(each - value))


def rounded(width):
    """Returns a width as a multiple of 4, of at least 4, as devices compute channels in fours."""
    return max(4, 4 * round(width / 4))


def normalized(hidden, *, activate=True):
    """Returns the batch-normalised values, behind a ReLU unless they are added to others."""
    # Statistics follow within a hundred steps, as the shortest trials have few.
    hidden = keras.layers.BatchNormalization(momentum=0.9)(hidden)
    return keras.layers.ReLU()(hidden) if activate else hidden


class Spaces:
    """The union of several spaces: which one is a choice as well.

    Args:
        spaces: `Architecture`s of different names.
    """

    def __init__(self, spaces):
        names = [space.name for space in spaces]
        if len(set(names)) < len(names):
            raise invalid("model_or_space", "spaces of different classes", names)
        self._spaces = {space.name: space for space in spaces}

    @property
    def size_names(self):
        """The choices that make a model larger, of several spaces behind the name of each."""
        if len(self._spaces) == 1:
            return next(iter(self._spaces.values())).size_names
        return tuple(
            f"{name}/{each}" for name, space in self._spaces.items() for each in space.size_names
        )

    def build(self, hp, interface):
        """Returns the model of the values of `hp`."""
        spaces = {n: s for n, s in self._spaces.items() if s.accepts(interface)}
        if not spaces:
            raise InputError(
                f"Received an invalid value for `model_or_space`, expected a space for inputs of "
                f"shape {interface.shape}. Received: {', '.join(self._spaces)}"
            )
        if len(self._spaces) == 1:
            (space,) = spaces.values()
            return space.build(hp, interface)
        names = list(spaces)
        chosen = hp.Choice("space", names, default=names[0])
        model = None
        for name, space in spaces.items():  # all declare their choices, and one builds
            with hp.conditional_scope("space", [name]), hp.name_scope(name):
                if name == chosen:
                    model = space.build(hp, interface)
        return model

    def as_dict(self):
        """Returns the spaces as plain JSON values."""
        return {"spaces": [space.as_dict() for space in self._spaces.values()]}
