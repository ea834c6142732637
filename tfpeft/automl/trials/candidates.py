"""Candidates: points of a space, and whether they are inside the budget before any training."""

import json

import keras_tuner

from tfpeft.core.arguments import BudgetError, InputError, unexpected

_TRAINING_ONLY = ("alpha", "temperature", "learning_rate", "order")
"""Techniques that the file of a model does not show."""
_SMALLEST_TRIES = 20  # points of a function's space that are measured to find a small one


class Candidates:
    """The points of a space with its techniques.

    Args:
        subject: What is searched; see `subjects.py`.
        techniques: The `TechniqueSpace`.
        costs: The `Costs`.
        records: The `Records`, to which points over the budget are added.
    """

    def __init__(self, subject, techniques, costs, records):
        self.subject, self.techniques, self._costs = subject, techniques, costs
        self._records, self._known = records, {}

    def declare(self, hp):
        """Declares all choices; KerasTuner calls it with values for each condition."""
        settings = self.techniques.draw(hp)
        if not self.subject.is_trained:
            self.subject.build(hp, settings)

    def settings(self, hp):
        """Returns {technique: value}."""
        return self.techniques.draw(hp)

    def build(self, hp):
        """Returns a new model of the values of `hp`."""
        return self.subject.build(hp, self.settings(hp))

    def check(self, hp):
        """Returns whether a point is inside the budget, as far as is known before training.

        A point that is not is recorded, with the reason.
        """
        settings = self.settings(hp)
        key = self._key(hp, settings)
        if key not in self._known:
            status = "over_budget"
            try:
                model = self.subject.build(hp, settings)
                figures, violations = self._costs.of(model, settings)
            except InputError as error:
                status, figures, violations = "failed", {}, [str(error)]
            self._known[key] = not violations
            if violations:
                shown = {**own_values(hp.values), **settings}
                self._records.reject(shown, status, "; ".join(violations), figures)
        return self._known[key]

    def fitting(self, values, space):
        """Returns the values, or those of a smaller model near them that is inside the budget.

        The choices that make a model larger are lowered one after the other, by bisection.

        Args:
            values: {choice: value}.
            space: KerasTuner's `HyperParameters`, with the choices.

        Returns:
            {choice: value}; None if no such model is inside.
        """

        def is_inside(changed):
            return self.check(with_values(space, changed))

        if is_inside(values):
            return values
        for name, smaller in self._shrinking(space, values):
            found = _first_inside(values, name, smaller, is_inside)
            if found is not None:
                return found
            values = {**values, name: smaller[-1]}
        return None

    def _shrinking(self, space, values):
        """Yields (choice, its values that make a smaller model, the largest of these first).

        Choices without such values are left out.
        """
        options = {each.name: each.values for each in space.space if hasattr(each, "values")}
        for name, way in self.subject.shrinking.items():
            if name not in values or name not in options:
                continue
            is_less = way == "smaller"
            smaller = [
                v for v in options[name] if (v < values[name] if is_less else v > values[name])
            ]
            if smaller:
                yield name, sorted(smaller, reverse=is_less)

    def starts(self, space):
        """Returns the points where a search begins: in each kind of space two, as large as fits.

        The first has the default values; the second has few blocks, whose widths grow fast, and
        does not halve its inputs first, as people often choose for small images.
        """
        kinds = next((each.values for each in space.space if each.name == "space"), [None])
        defaults = [_default_values(space, kind) for kind in kinds]
        points = [*defaults, *(_shallow(values, space) for values in defaults)]
        found = [self.grown(values, space) for values in points]
        if not self.subject.shrinking:  # of a user's function: what is smaller is not known
            found += [_extremes(space, values)[0] for values in defaults]
        return [each for number, each in enumerate(found) if each not in found[:number]]

    def grown(self, values, space):
        """Returns the values with the first choice that makes a model larger at its largest.

        `fitting` then takes what the budget has room for: the best models are often near a limit.
        Without one, of a metric alone, the values stay.
        """
        if not self._costs.has_limits:
            return values
        options = {each.name: each.values for each in space.space if hasattr(each, "values")}
        for name, way in self.subject.shrinking.items():
            if name in values and name in options:
                largest = max if way == "smaller" else min
                return {**values, name: largest(options[name])}
        return values

    def start(self):
        """Returns `HyperParameters` with the default values of the techniques alone."""
        hp = keras_tuner.HyperParameters()
        self.techniques.draw(hp)
        return hp

    def check_reachable(self, space, seed):
        """Raises a BudgetError unless some point is inside the budget, with the smallest figures.

        Args:
            space: KerasTuner's `HyperParameters`, with the choices.
            seed: Of the points that are drawn where the smallest one is not known.
        """
        points = [  # not every model has the smallest kind of file
            self._smallest(space, start, kind)
            for kind in self.techniques.quantizations
            for start in self.starts(space)
        ]
        if not self.subject.shrinking:
            points += _extremes(space, self.starts(space)[0])
            points += [_drawn_values(space, seed + i) for i in range(_SMALLEST_TRIES)]
            points = [each for number, each in enumerate(points) if each not in points[:number]]
        found, failures = [], []
        for values in points:
            hp = with_values(space, values)
            settings = self.settings(hp)
            try:
                model = self.subject.build(hp, settings)
                figures, violations = self._costs.of(model, settings, stop=False)
            except InputError as error:
                failures.append(str(error))
                continue
            if not violations:
                return
            found.append((figures, violations))
        if not found:
            expected = "a space with a valid point, or more"
            raise unexpected(expected, f"{len(failures)} points, which failed: {failures[0]}")
        raise unreachable(found, None if self.subject.shrinking else len(points))

    def _smallest(self, space, values, quantization):
        """Returns the values of the smallest model near some values, with a quantization."""
        cheapest = {**self.techniques.cheapest(), "quantization": quantization}
        values = {**values, **{k: v for k, v in cheapest.items() if k in values}}
        for name, smaller in self._shrinking(space, values):
            values = {**values, name: smaller[-1]}
        return values

    def _key(self, hp, settings):
        file = {k: v for k, v in settings.items() if k not in _TRAINING_ONLY}
        if file["quantization"] == "quantize_aware":
            file["quantization"] = "int8"
        own = {k: v for k, v in own_values(hp.values).items() if k not in settings}
        return json.dumps([own, file], sort_keys=True)


def own_values(values):
    """Returns the values of a trial without those that KerasTuner adds.

    It sends numbers to workers as float32, so that they are rounded.
    """
    own = {k: v for k, v in values.items() if not k.startswith("tuner/")}
    return {k: float(f"{v:.6g}") if isinstance(v, float) else v for k, v in own.items()}


def with_values(space, values):
    """Returns a copy of `HyperParameters` with these values, and the defaults of other choices."""
    hp = space.copy()
    hp.values = dict(values)
    hp.ensure_active_values()
    return hp


def _first_inside(values, name, smaller, is_inside):
    """Returns the values with the first of `smaller` for a choice that is inside; None without."""
    low, high = 0, len(smaller) - 1
    if not is_inside({**values, name: smaller[high]}):
        return None
    while low < high:
        middle = (low + high) // 2
        if is_inside({**values, name: smaller[middle]}):
            high = middle
        else:
            low = middle + 1
    return {**values, name: smaller[high]}


def _default_values(space, kind):
    """Returns the default of each choice that is active in a kind of space."""
    hp = space.copy()
    hp.values = {} if kind is None else {"space": kind}
    for each in space.space:
        if each.name not in hp.values and hp.is_active(each):
            hp.values[each.name] = each.default
    return hp.values


def _shallow(values, space):
    """Returns the values with the least depth and first stride, and the fastest growth."""
    options = {each.name: each.values for each in space.space if hasattr(each, "values")}
    chosen = {}
    for name in values.keys() & options.keys():
        choice = name.rpartition("/")[2]
        if choice.startswith("depth") or choice == "first_stride":
            chosen[name] = min(options[name])
        elif choice == "growth":
            chosen[name] = max(options[name])
    return {**values, **chosen}


def _extremes(space, values):
    """Returns values with all numbers at their least, all at their largest, and one by one.

    Args:
        space: `HyperParameters`.
        values: {choice: value}.
    """
    ends = {}
    for each in space.space:
        known = [getattr(each, name, None) for name in ("min_value", "max_value")]
        known = list(getattr(each, "values", ())) if None in known else known
        if each.name in values and known and not {type(v) for v in known} - {int, float}:
            ends[each.name] = min(known), max(known)
    one = [{**values, name: end} for name, pair in ends.items() for end in pair]
    return [{**values, **{name: pair[i] for name, pair in ends.items()}} for i in (0, 1)] + one


def _drawn_values(space, seed):
    hp = space.copy()
    hp.values = {}
    for i, each in enumerate(space.space):
        if hp.is_active(each):
            hp.values[each.name] = each.random_sample(1000 * seed + i)
    return hp.values


def unreachable(found, tried=None):
    """Returns the error of a budget that no point keeps, with the least value of each figure.

    Args:
        found: (figures, violations) of the smallest points.
        tried: How many points were tried, where the smallest ones are not known.
    """
    names = {name for figures, _ in found for name in figures}
    least = {}
    for name in sorted(names):
        known = [figures[name] for figures, _ in found if figures.get(name) is not None]
        if known:
            least[name] = min(known)
    shown = ", ".join(
        f"{name}={value:,.4g}" if isinstance(value, float) else f"{name}={value:,}"
        for name, value in least.items()
    )
    of = "" if tried is None else f" of {tried} points that were tried"
    closest = min(found, key=lambda each: len(each[1]))[1]
    return BudgetError(
        f"Received an invalid value for `budget`, expected limits that a model of the space can "
        f"keep, of which the smallest has {shown}{of}. Received: {'; '.join(closest)}"
    )
