"""What a search is about: architectures, a user's function, or a trained model to cut."""

import functools
import inspect

import keras

from tfpeft.automl.students.architecture import Architecture, Spaces
from tfpeft.channels.plan import Plan
from tfpeft.channels.selection import Order
from tfpeft.core import weight_files
from tfpeft.core.arguments import InputError, invalid, last_cause, unexpected
from tfpeft.core.clone import copy_model

_SCORED = 512  # samples that channels are scored with


class SpaceSubject:
    """Architectures, of which a point is an untrained model.

    Args:
        spaces: The `Spaces`.
        interface: The `Interface`.
    """

    is_trained = False

    def __init__(self, spaces, interface):
        self._spaces, self._interface = spaces, interface
        self.shrinking = {name: "smaller" for name in spaces.size_names}

    def build(self, hp, settings):
        """Returns a new model of the values of `hp`."""
        return self._spaces.build(hp, self._interface)

    def as_dict(self):
        """Returns what identifies it, as plain JSON values."""
        return {**self._spaces.as_dict(), **self._interface.as_dict()}


class FunctionSubject:
    """A user's function hp -> keras.Model."""

    is_trained = False
    shrinking = {}

    def __init__(self, function):
        self._function = function

    def build(self, hp, settings):
        """Returns a new model of the values of `hp`; raises for what is no model."""
        try:
            model = self._function(hp)
        except InputError:
            raise
        except Exception as error:
            received = f"{type(error).__name__}: {last_cause(error)}, for {hp.values}"
            expected = "a space whose function returns a keras.Model"
            raise unexpected(expected, received) from error
        if not isinstance(model, keras.Model):
            expected = "a function hp -> keras.Model"
            raise invalid("model_or_space", f"{expected}, whose outputs are models", model)
        return model

    def as_dict(self):
        """Returns what identifies it, as plain JSON values: its name and its text."""
        name = getattr(self._function, "__qualname__", type(self._function).__name__)
        try:
            return {"space": name, "source": inspect.getsource(self._function)}
        except (OSError, TypeError):  # of an object, or typed into a console
            return {"space": name}


class ModelSubject:
    """A trained model, of which a point has fewer channels.

    Args:
        model: The model; it stays as it is.
        data: A `Batch` of arrays, which channels are scored with.
        loss: The loss, as `compile` takes it.
    """

    is_trained = True
    shrinking = {"channel_ratio": "larger"}

    def __init__(self, model, data, loss):
        self.model = model
        self._copy = copy_model(model)
        self._copy.compile("sgd", loss)
        self._data = tuple(
            part if part is None else keras.tree.map_structure(lambda a: a[:_SCORED], part)
            for part in data
        )
        self.plan = self._order = None

    def prepare(self):
        """Finds the channels and scores them, once."""
        if self.plan is None:
            self.plan = Plan(self._copy)
            self.scores = self.scores_of(self.plan)
            self._order = self.order_of(self.plan, self.scores)

    @functools.cached_property
    def largest_ratio(self):
        """The largest fraction of channels that can go; 0.0 of a model of which none can."""
        try:
            self.prepare()
        except InputError:
            return 0.0
        return self._order.largest_ratio

    def scores_of(self, plan):
        """Returns the scores of the channels of a `Plan`."""
        return plan.scores(
            "taylor",
            tuple(part for part in self._data if part is not None),
            aggregate="mean",
            normalize=None,
            batch_size=64,
            seed=0,
        )

    @staticmethod
    def order_of(plan, scores):
        """Returns the order in which channels go, the least important first."""
        return Order(
            plan.families,
            scores,
            scope="global",
            round_to=1,
            min_channels=2,
            max_ratio=0.95,
            tags=plan.graph.tags.count,
        )

    def build(self, hp, settings):
        """Returns a new model with the weights that are left."""
        ratio = settings.get("channel_ratio", 0.0)
        if not ratio:
            return copy_model(self.model)
        self.prepare()
        if ratio > self._order.largest_ratio:
            raise invalid("channel_ratio", f"at most {self._order.largest_ratio:.3f}", ratio)
        removed = self._order.removed(self._order.count_of(ratio))
        return self.plan.without(removed)

    def as_dict(self):
        """Returns what identifies it, as plain JSON values."""
        return {"model": weight_files.fingerprint(self.model)}


def is_function(given):
    """Whether a value is a function of a user, and no layer, class or space."""
    is_other = isinstance(given, (type, keras.layers.Layer, Architecture))
    return callable(given) and not is_other and not type(given).__module__.startswith("tf_keras")


def subject_of(given, interface, data, loss):
    """Returns the subject of what a user gave.

    Args:
        given: A trained model, an `Architecture`, a list of these, or a function.
        interface: A function that returns the `Interface` of students.
        data: A `Batch` of arrays.
        loss: The loss.

    Raises:
        InputError: for anything else.
    """
    spaces = given if isinstance(given, (list, tuple)) else [given]
    if spaces and all(isinstance(each, Architecture) for each in spaces):
        return SpaceSubject(Spaces(spaces), interface())
    if isinstance(given, keras.Model):
        return ModelSubject(given, data, loss)
    if is_function(given):
        return FunctionSubject(given)
    expected = (
        "a trained keras.Model, a space such as SmallCNN(), a list of spaces, or a function "
        "hp -> keras.Model"
    )
    raise invalid("model_or_space", expected, given)
