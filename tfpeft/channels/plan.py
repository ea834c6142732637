"""A model whose channels can be removed: its graph, families, costs and scores."""

import keras
import numpy as np

from tfpeft.channels import importance as importance_module
from tfpeft.channels.costs import Costs
from tfpeft.channels.dependency_graph import PRODUCES, DependencyGraph
from tfpeft.channels.families import families_of
from tfpeft.channels.proof import check_same
from tfpeft.channels.report import ChannelReport
from tfpeft.channels.surgery import Kept, remove
from tfpeft.core.arguments import (
    NoMatchError,
    check_boolean,
    check_choice,
    check_exclude,
    invalid,
    unexpected,
)
from tfpeft.core.compiling import compile_like
from tfpeft.core.data import Data
from tfpeft.core.graph import is_graph
from tfpeft.core.layers import layers_by_path
from tfpeft.core.same_outputs import run
from tfpeft.sparsity.compiled import errors_of_data, read_labelled


class Plan:
    """A model, what depends on its channels, and what they cost.

    Args:
        model: The model.
        exclude, through_statistics: As of `prune_channels`.

    Attributes:
        model: The model.
        graph: Its `DependencyGraph`.
        families: The `Family`s of channels that can be removed.
        costs: The `Costs`.

    Raises:
        InputError: for a model without a graph.
        NoMatchError: if no channel can be removed, or a pattern matches nothing.
    """

    def __init__(self, model, *, exclude=(), through_statistics=False):
        check_exclude(exclude)
        check_boolean("through_statistics", through_statistics)
        if not isinstance(model, keras.Model) or not is_graph(model):
            expected = (
                "a built functional or Sequential model; a subclassed one whose `call` can be "
                "traced becomes one by `keras.Model(inputs, model.call(inputs))` with "
                "`inputs = keras.Input(...)`"
            )
            raise invalid("model", expected, model)
        self.model = model
        sample = run(model)
        self.batch = None if sample is None else sample.batch
        self.graph = DependencyGraph(
            model, batch=self.batch, exclude=exclude, through_statistics=through_statistics
        )
        unused = [pattern for pattern in exclude if pattern not in self.graph.used]
        if unused:
            raise invalid("exclude", "names or patterns of layers", unused, error=NoMatchError)
        self.families = families_of(self.graph)
        if not self.families:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.fixed().items())
            raise unexpected(
                "a model of which channels can be removed",
                reasons or f"{model.name!r}, which has no layers with channels",
                error=NoMatchError,
            )
        self.costs = Costs(self.graph, self.sample())

    def sample(self):
        """Returns a batch of one sample, of random inputs; None if none is known."""
        if self.batch is None:
            return None
        return keras.tree.map_structure(lambda array: np.asarray(array)[:1], self.batch)

    def scores(self, importance, data, *, aggregate, normalize, batch_size, seed):
        """Returns an array of scores for each family; see `importance.scores_of`.

        `data` is what a user gives, or a `core.data.Data` that is checked.
        """
        if not callable(importance):
            check_choice("importance", importance, importance_module.IMPORTANCES)
        read = None
        if importance in importance_module.NEEDS_DATA:
            if data is None:
                raise invalid("data", f"samples with labels for importance={importance!r}", data)
            if not self.model.compiled or self.model.loss is None:
                expected = f"a model compiled with a loss for importance={importance!r}"
                raise invalid("model", expected, self.model)
            read = data if isinstance(data, Data) else read_labelled(data, "data", self.model)
        with errors_of_data(read.name if read else "data"):
            scores = importance_module.scores_of(
                self.families,
                importance,
                aggregate=aggregate,
                normalize=normalize,
                model=self.model,
                data=read,
                batch_size=batch_size,
                seed=seed,
            )
        if all(np.all(np.isnan(each)) for each in scores):
            expected = "a model with BatchNormalization, for importance='bn_scale'"
            raise invalid("model", expected, self.model, error=NoMatchError)
        return scores

    def without(self, removed, biases=None):
        """Returns a new model without the channels of a mask over tags; `biases` as of `remove`."""
        return remove(self.graph, Kept(self.graph, np.flatnonzero(removed)), biases)

    def finish(self, new, removed, measured, *, verify=True):
        """Returns the new model, proved, compiled and with its report."""
        kept = Kept(self.graph, np.flatnonzero(removed))
        difference = None
        if verify and self.batch is None:
            raise invalid("verify", "False, as no inputs of the model are known", verify)
        if verify:
            difference = check_same(self.graph, kept, new, self.batch)
        if self.model.compiled:
            compile_like(new, self.model)
        new.channel_report = ChannelReport(
            widths=self._widths(kept),
            fixed=self.fixed(),
            macs=(self.costs.macs, self.costs.of("max_macs", removed)),
            params=(self.costs.params, self.costs.of("max_params", removed)),
            measured=measured,
            difference=difference,
        )
        return new

    def _widths(self, kept):
        """Returns {path of a layer: (channels before, after)}, of kernels that make channels."""
        widths = {}
        for name, each in self._made():
            tags = np.unique(each.tags)  # a unit of an LSTM has a slice for each gate
            widths[name] = len(tags), kept.count(tags)
        return widths

    def fixed(self):
        """Returns {path of a layer: reason} of layers that make channels, and none can go."""
        reasons = [
            (set(self.graph.tags.roots(tags).tolist()), set(tags.tolist()), f"{name} {why}")
            for tags, name, why in self.graph.reasons
        ]
        fixed = {}
        for name, each in self._made():
            if np.any(self.graph.tags.roots(each.tags) > 0):
                continue
            own = set(each.tags.tolist())
            direct = next((text for _, tags, text in reasons if tags & own), None)
            fixed[name] = direct or "joins channels that are fixed"
        return fixed

    def _made(self):
        """Yields (path, Slices) of the kernels that make channels."""
        paths = {}
        for path, layer in layers_by_path(self.model).items():
            paths.setdefault(id(layer), path)
            cell = getattr(layer, "cell", None)
            if cell is not None:
                paths.setdefault(id(cell), path)
        seen = set()
        for each in self.graph.slices:
            if each.role != PRODUCES or len(each.variable.shape) < 2:
                continue
            name = paths.get(id(each.layer), each.layer.name)
            if (name, each.axis, len(each.tags)) in seen or name in seen:
                continue
            seen.add(name)
            yield name, each
