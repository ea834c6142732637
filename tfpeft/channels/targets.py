"""Targets: a ratio of channels, and budgets, as numbers or as fractions of the model's own."""

import fractions
import math

from tfpeft.channels.costs import FileCosts
from tfpeft.channels.selection import smallest_count
from tfpeft.core.arguments import (
    BudgetError,
    InputError,
    check_sparsity,
    invalid,
    is_real,
    unexpected,
)

_MEASUREMENTS = 8
"""How many models are built at most to meet a budget that has to be measured."""


class TargetsMet(InputError):
    """Targets that a model meets as it is."""


class Budget:
    """One limit.

    Args:
        name: The argument: "max_macs", "max_params", "max_size_bytes" or "max_latency_ms".
        given: Its value.

    Attributes:
        name: The argument.
        is_measured: Whether the model has to be built to know what it costs.
    """

    def __init__(self, name, given):
        self.name = name
        self.is_measured = name in ("max_size_bytes", "max_latency_ms")
        self._given = given
        is_fraction = isinstance(given, fractions.Fraction)
        self._is_fraction = is_fraction or (
            name != "max_latency_ms" and isinstance(given, float) and 0 < given < 1
        )
        if not is_real(given) or not 0 < given < math.inf or (is_fraction and given >= 1):
            raise invalid(name, self._expected(), given)
        is_count = not self._is_fraction and name != "max_latency_ms"
        if is_count and (given == 1 or not float(given).is_integer()):
            raise invalid(name, self._expected(), given)

    def _expected(self):
        if self.name == "max_latency_ms":
            return "milliseconds above 0, or a fractions.Fraction in (0, 1) of the model's own"
        return "a fraction in (0, 1) of the model's own, or a whole number above 1"

    def limit(self, own):
        """Returns the number that is not exceeded, of a model that costs `own` now."""
        return float(self._given) * own if self._is_fraction else float(self._given)


class Targets:
    """A ratio and budgets that hold together; see `prune_channels` for the arguments.

    Raises:
        InputError: if one is not of its kind, or there is none.
    """

    def __init__(self, ratio, max_macs, max_params, max_size_bytes, max_latency_ms):
        given = {
            "max_macs": max_macs,
            "max_params": max_params,
            "max_size_bytes": max_size_bytes,
            "max_latency_ms": max_latency_ms,
        }
        given = {name: value for name, value in given.items() if value is not None}
        budgets = [Budget(name, value) for name, value in given.items()]
        if ratio is not None:
            check_sparsity("ratio", ratio)
        elif not budgets:
            raise unexpected("`ratio` or a budget, such as max_macs=0.5", "none")
        self.ratio = ratio
        if ratio is not None:
            given["ratio"] = ratio
        self._text = ", ".join(f"{name}={value}" for name, value in given.items())
        self._limits = {}
        self._counted = [each for each in budgets if not each.is_measured]
        self._measured = [each for each in budgets if each.is_measured]

    def part(self, plan, number, steps):
        """Returns the targets of one of several equal steps.

        Args:
            plan: The `Plan` of the model before the first step.
            number: The number of the step, from 1 to `steps`.
            steps: How many there are.
        """
        own = {"max_macs": plan.costs.macs, "max_params": plan.costs.params}
        if self._measured:
            names = [each.name for each in self._measured]
            with FileCosts(plan.model, plan.sample(), names) as costs:
                own |= {name: first for name, (first,) in costs.of().items()}
        limits = {
            budget.name: own[budget.name]
            - (own[budget.name] - budget.limit(own[budget.name])) * number / steps
            for budget in (*self._counted, *self._measured)
        }
        new = object.__new__(Targets)
        new._limits, new._counted, new._measured = limits, self._counted, self._measured
        new._text = self._text
        new.ratio = None if self.ratio is None else self.ratio * number / steps
        return new

    def reach(self, plan, order):
        """Removes as few channels as the targets allow, in an order.

        Returns:
            The new model, a mask over all tags of what is removed, and {cost: (before, after)} of
            what was measured.

        Raises:
            BudgetError: if a target cannot be reached.
            TargetsMet: if no channel has to be removed.
        """
        count = self._count_of_ratio(order)
        for budget in self._counted:
            count = self._within(budget, plan, order, count)
        if self._measured:
            return self._within_measured(plan, order, count)
        removed = order.removed(count)
        if not removed.any():
            raise self._met(
                f"{plan.costs.macs:,} multiply-accumulates and {plan.costs.params:,} parameters"
            )
        return plan.without(removed), removed, {}

    def _met(self, costs):
        """Returns the error for targets that the model meets as it is."""
        return unexpected(
            "a target for which a channel has to be removed",
            f"{self._text}, of a model of {costs}",
            error=TargetsMet,
        )

    def _count_of_ratio(self, order):
        if self.ratio is None:
            return 0
        if self.ratio > order.largest_ratio:
            raise invalid(
                "ratio",
                f"at most {math.floor(1000 * order.largest_ratio) / 1000}, the channels that can "
                "be removed (see `max_ratio_per_layer`, `min_channels` and `exclude`)",
                self.ratio,
                error=BudgetError,
            )
        return order.count_of(self.ratio)

    def _limit(self, budget, own):
        return self._limits.get(budget.name) or budget.limit(own)

    def _within(self, budget, plan, order, count):
        """Returns the smallest number of channels, from `count` on, with which a budget holds."""
        own = plan.costs.macs if budget.name == "max_macs" else plan.costs.params
        limit = self._limit(budget, own)

        def fits(number):
            return plan.costs.of(budget.name, order.removed(number)) <= limit

        if fits(count):
            return count
        found = smallest_count(fits, count, order.removable)
        if found is None:
            least = plan.costs.of(budget.name, order.removed(order.removable))
            raise _impossible(budget, limit, least, own)
        return found

    def _within_measured(self, plan, order, count):
        names = [budget.name for budget in self._measured]
        with FileCosts(plan.model, plan.sample(), names) as costs:
            best = self._bisect(plan, order, count, costs)
        if not best[1].any():
            before = {name: pair[0] for name, pair in best[2].items()}
            raise self._met(" and ".join(f"{name}={value:,g}" for name, value in before.items()))
        return best

    def _bisect(self, plan, order, count, costs):
        """Returns what `reach` does, for as few channels as `FileCosts` allow."""

        def measure(number):
            removed = order.removed(number)
            new = plan.without(removed)
            found = costs.of(new)
            exceeded = [
                (budget, self._limit(budget, own), after, own)
                for budget in self._measured
                for own, after in [found[budget.name]]
                if after > self._limit(budget, own)
            ]
            figures = {name.removeprefix("max_"): pair for name, pair in found.items()}
            return (new, removed, figures), exceeded

        low, high = count, order.removable
        best, exceeded = measure(high)
        if exceeded:
            raise _impossible(*exceeded[0])
        for _ in range(_MEASUREMENTS - 1):
            if high - low <= max(1, math.ceil(0.005 * order.size)):
                break
            middle = (low + high) // 2
            found, exceeded = measure(middle)
            if exceeded:
                low = middle + 1
            else:
                best, high = found, middle
        return best


def _impossible(budget, limit, least, own):
    expected = (
        f"at least {least:,.6g} ({least / own:.3f} of the model's {own:,.6g}), the least that can "
        "be reached with these `max_ratio_per_layer`, `min_channels`, `round_to` and `exclude`"
    )
    return invalid(budget.name, expected, limit, error=BudgetError)
