"""Where a model rounds: which kernels, and behind which operations an activation."""

import collections
import dataclasses

import keras
import numpy as np

from tfpeft.core.arguments import NoMatchError, invalid
from tfpeft.core.graph import LayerGraph, calls, flatten_layers, is_graph, origin
from tfpeft.core.layers import layers_by_path, matching_patterns
from tfpeft.quantization import layer_kinds as kinds

_STEPS = 16
"""A column of a table that gets fewer of the 256 steps is lost."""
_ALIKE = 256 / _STEPS


@dataclasses.dataclass
class Placement:
    """What is rounded in and behind one layer or operation.

    Attributes:
        path: Its path in the model.
        operation: The layer or operation.
        kernels: Whether its kernels are rounded.
        inputs: Whether what it reads is rounded, which no operation in the graph makes.
        between: Whether values between its two kernels are rounded.
        partial: Whether the results of a part of the tensors that it merges are rounded.
        before_activation: Whether what its own activation reads is rounded.
        gate: Whether it is a SiLU, whose sigmoid is rounded.
        output: Whether its output is rounded.
        fixed: The range of its output where TFLite fixes it, or None.
        follows: The place whose range its output has, as a file has one for both; or None.
        reads: Of each of its inputs: the place that rounds it, a fixed range, or None if it is not
            known. Empty where an operation is called more than once.
        writes: The place that rounds its result, past what is fused, or a fixed range; or None.
    """

    path: str
    operation: object
    kernels: bool = False
    inputs: bool = False
    between: bool = False
    partial: bool = False
    before_activation: bool = False
    gate: bool = False
    output: bool = False
    fixed: tuple | None = None
    follows: str | None = None
    reads: list = dataclasses.field(default_factory=list)
    writes: object = None

    def places(self):
        """Returns the names of the activations whose range is to be found."""
        names = ("inputs", "between", "partial", "before_activation", "output")
        found = [name for name in names if getattr(self, name)]
        has_range = self.fixed is None and self.follows is None
        return [name for name in found if name != "output" or has_range]

    def grid(self):
        """Returns the place whose range its output has, or its fixed range."""
        return self.fixed or self.place("output")

    def place(self, name):
        """Returns the place whose range one of its activations has."""
        return self.follows if name == "output" and self.follows else f"{self.path}/{name}"


@dataclasses.dataclass
class Plan:
    """All placements of a model.

    Attributes:
        placements: A list of `Placement`s.
        rounded_inputs: Whether each input of the model is rounded.
        in_float: {path: why it stays in float32}.
        folded: {layer with a kernel: the BatchNormalization behind it, which a file folds in}.
    """

    placements: list
    rounded_inputs: list
    in_float: dict
    folded: dict


def plan_of(model, exclude=(), rounded_inputs=None):
    """Returns the `Plan` of a model.

    - Behind a convolution, a Dense layer or an addition, a ReLU is part of the operator, and so is
      BatchNormalization behind a kernel: the activation is rounded behind them only.
    - Pooling, reshaping, padding keep the range of what they read; what goes to a concatenation
      has the range of the concatenation.
    - Softmax, sigmoid and tanh read rounded values, and TFLite fixes the range of their outputs.

    Args:
        model: A built model.
        exclude: Names or patterns of layers that stay in float32.
        rounded_inputs: Whether each input is rounded, as it was decided before, since that
            depends on the statistics of Normalization; None to decide it.

    Raises:
        NoMatchError: for entries of `exclude` that match no layer; if no kernel is rounded.
    """
    planner = _Planner(exclude, rounded_inputs)
    if is_graph(model):
        planner.add_graph(model)
        rounded_inputs = planner.rounded_inputs(model)
    else:
        planner.add_layers(model, "")
        rounded_inputs = [not any(map(kinds.reads_numbers_of_rows, flatten_layers(model)))]
    unmatched = set(exclude) - planner.matched
    if unmatched:
        paths = [path for path in layers_by_path(model)][:10]
        expected = f"names or patterns of layers, such as {', '.join(paths)}"
        raise invalid("exclude", expected, sorted(unmatched), error=NoMatchError)
    if not any(placement.kernels for placement in planner.placements):
        expected = "a model with a convolution, Dense or Embedding layer to quantize"
        found = "; ".join(f"{path}: {why}" for path, why in planner.in_float.items())
        received = f"{model.name!r}{f', in which {found}' if found else ', without any'}"
        raise NoMatchError(
            f"Received an invalid `model`, expected {expected}. Received: {received}"
        )
    return Plan(planner.placements, rounded_inputs, planner.in_float, planner.folded)


class _Planner:
    def __init__(self, exclude, rounded_inputs):
        self._exclude, self._decided = exclude, rounded_inputs
        self.matched, self.placements, self.in_float, self.folded = set(), [], {}, {}

    def add_graph(self, model):
        """Adds what a functional model has, nested models included."""
        self._graph = LayerGraph(model)
        self._names, self._calls, self._reads = {}, {}, collections.Counter()
        self._read(model, "")
        for operation in self._graph.producers:
            reader = self._only_reader(operation) if self._is_linear_kernel(operation) else None
            if self._folds(operation, reader):
                self.folded[operation] = reader
        for operation in self._graph.producers:
            if not isinstance(operation, keras.layers.InputLayer):
                self._add(operation)
        by_operation = {each.operation: each for each in self.placements}
        for operation, placement in by_operation.items():
            if operation in self._graph.producers and placement.output and not placement.fixed:
                self._follow(operation, placement, by_operation)
        for operation, placement in by_operation.items():
            if operation in self._graph.producers and len(self._calls[operation]) == 1:
                sources = self._graph.producers[operation]
                placement.reads = [self._read_place(each, by_operation) for each in sources]
                placement.writes = self._written_place(operation, by_operation)

    def _read_place(self, source, by_operation):
        rounded = self._rounded(source, by_operation)
        if isinstance(rounded, keras.layers.InputLayer):
            return f"input_{self._graph.inputs.index(rounded)}"
        return None if rounded is None else by_operation[rounded].grid()

    def _written_place(self, operation, by_operation):
        placement = by_operation.get(operation)
        if placement is None or placement.before_activation:
            return None if placement is None else placement.place("before_activation")
        if placement.output:
            return placement.grid()
        if operation in self.folded:
            return self._written_place(self.folded[operation], by_operation)
        readers = self._sole_readers(operation)
        return self._written_place(readers[0], by_operation) if len(readers) == 1 else None

    def _follow(self, operation, placement, by_operation):
        """Gives an output the range of the concatenation that it goes to, or of what it averages.

        In the order of the graph, so that what is averaged has its range.
        """
        joined = self._last_concatenation(operation)
        if joined is not None and joined in by_operation:
            placement.follows = f"{self._names[joined]}/output"
        elif kinds.averages_values(operation):
            source = self._source(operation, by_operation)
            if isinstance(source, keras.layers.InputLayer):
                index = self._graph.inputs.index(source)
                placement.follows = f"input_{index}"
            elif source is not None:
                placement.fixed = by_operation[source].fixed
                placement.follows = by_operation[source].place("output")

    def _last_concatenation(self, operation):
        """Returns the last of the concatenations that values of an operation reach unchanged."""
        for reader in self._graph.consumers.get(operation, {}):
            if kinds.is_concatenation(reader):
                return self._last_concatenation(reader) or reader
            if kinds.moves_values(reader):
                found = self._last_concatenation(reader)
                if found is not None:
                    return found
        return None

    def _source(self, operation, by_operation):
        """Returns the operation whose rounded output an operation reads; None if there is none."""
        (source, *others) = self._graph.producers[operation]
        return None if others else self._rounded(source, by_operation)

    def _rounded(self, source, by_operation):
        """Returns the operation that rounds the values of another, past what moves them."""
        is_rounded = source in by_operation and by_operation[source].output
        if is_rounded or (source in self._graph.inputs and self._rounds_input(source)):
            return source
        return self._source(source, by_operation) if kinds.moves_values(source) else None

    def _read(self, model, prefix):
        for call in calls(model):
            path = f"{prefix}{call.operation.name}"
            self._names.setdefault(call.operation, path)
            self._calls.setdefault(call.operation, []).append(call)
            for tensor in call.inputs:
                self._reads[origin(tensor).operation, call.operation] += 1
            if is_graph(call.operation) and len(self._calls[call.operation]) == 1:
                self._read(call.operation, f"{path}/")

    def add_layers(self, layer, path):
        """Adds the layers inside a layer without a graph, each on its own."""
        for inner in flatten_layers(layer, include_self=False, recursive=False):
            self._add_alone(inner, f"{path}/{inner.name}" if path else inner.name)

    def rounded_inputs(self, model):
        """Returns whether each input of a functional model is rounded."""
        return [self._rounds_input(source) for source in self._graph.inputs]

    def _rounds_input(self, source):
        if not str(source.dtype).startswith("float") or self._is_of_integers(source):
            return False
        readers = self._graph.consumers.get(source, {})
        unlike = [reader for reader in readers if isinstance(reader, keras.layers.Normalization)]
        if self._decided is None:
            unlike = [reader for reader in unlike if _is_of_unlike_columns(reader)]
        elif self._decided[self._graph.inputs.index(source)]:
            unlike = []
        for reader in unlike:
            self.in_float[self._names[reader]] = "its columns are too unlike for 8 bits"
        return not unlike

    def _is_of_integers(self, operation):
        """Whether values are read as integers, such as the numbers of rows of an Embedding."""
        for reader in self._graph.consumers.get(operation, {}):
            if kinds.reads_numbers_of_rows(reader) or kinds.makes_integers(reader):
                return True
            if kinds.moves_values(reader) and self._is_of_integers(reader):
                return True
        return False

    def _add(self, operation):
        """Adds an operation of the graph."""
        path = self._names[operation]
        outputs = self._calls[operation][0].outputs
        is_float = len(outputs) == 1 and "float" in keras.backend.standardize_dtype(
            outputs[0].dtype
        )
        placement = self._alone(operation, path)
        inputs = self._calls[operation][0].inputs
        is_rounded = placement.path not in self.in_float
        placement.partial = is_rounded and kinds.merges_in_parts(operation, inputs)
        is_kept = kinds.moves_values(operation) and not kinds.averages_values(operation)
        is_kept = is_kept or not is_float
        if is_kept or (placement.output and self._is_rounded_later(operation, placement)):
            placement.output = False
        self._keep(placement)
        self._enter(operation, path)

    def _add_alone(self, layer, path):
        placement = self._alone(layer, path)
        if kinds.moves_values(layer) or isinstance(layer, keras.layers.InputLayer):
            placement.output = False
        self._keep(placement)
        self._enter(layer, path)

    def _keep(self, placement):
        changes_call = (*kinds.ATTENTION, keras.layers.BatchNormalization)
        is_changed = isinstance(placement.operation, changes_call)
        rounds = placement.output or placement.inputs or placement.partial
        is_changed = is_changed or kinds.is_addition(placement.operation)
        if placement.kernels or rounds or is_changed:
            self.placements.append(placement)

    def _enter(self, layer, path):
        """Adds the layers inside an attention or a custom layer."""
        if not isinstance(layer, keras.layers.Layer) or path in self.in_float:
            return
        if isinstance(layer, kinds.WITH_KERNELS):
            return
        first = len(self.placements)
        self.add_layers(layer, path)
        if isinstance(layer, kinds.ATTENTION):
            for placement in self.placements[first:]:
                name = placement.path.rpartition("/")[2]
                is_softmax = isinstance(placement.operation, keras.layers.Softmax)
                placement.inputs = is_softmax or name == "attention_output"

    def _alone(self, operation, path):
        """Returns the `Placement` of an operation, whatever comes behind it."""
        placement = Placement(path, operation)
        why = kinds.why_float(operation)
        excluded = matching_patterns(path, self._exclude)
        self.matched |= set(excluded)
        if excluded:
            why = f"excluded by {excluded[0]!r}"
        if why is not None:
            self.in_float[path] = why
        kinds_without = (*kinds.ATTENTION, keras.layers.Embedding)
        placement.output = not isinstance(operation, kinds_without)
        if why is not None:
            return placement
        if isinstance(operation, kinds.WITH_KERNELS):
            placement.kernels = True
            is_plain = kinds.computes_as_keras(operation)
            placement.between = isinstance(operation, kinds.SEPARABLE) and is_plain
            activation = kinds.own_activation(operation)
            placement.before_activation = activation not in ("linear", "relu", "relu6")
        else:
            activation = kinds.activation_name(operation)
        placement.gate = activation in ("silu", "swish")
        is_derived = placement.kernels and not kinds.computes_as_keras(operation)
        if activation in kinds.FIXED_RANGES and placement.output and not is_derived:
            placement.fixed = kinds.FIXED_RANGES[activation]
        return placement

    def _is_rounded_later(self, operation, placement):
        """Whether what is behind an operation rounds for it."""
        if placement.path in self.in_float and operation in self._graph.outputs:
            return True  # a float output of the model
        if operation in self.folded:
            return True
        fuses = (
            self._is_linear_kernel(operation)
            or kinds.is_arithmetic(operation)
            or isinstance(operation, keras.layers.BatchNormalization)
        )
        cuts = [kinds.activation_name(reader) for reader in self._sole_readers(operation)]
        return fuses and bool(cuts) and all(cut in ("relu", "relu6") for cut in cuts)

    def _readers(self, operation):
        """Returns what reads the values of an operation, past those that do nothing."""
        found = []
        for reader in self._graph.consumers.get(operation, {}):
            if kinds.is_identity(reader) and reader not in self._graph.outputs:
                found += self._readers(reader)
            else:
                found.append(reader)
        return found

    def _only_reader(self, operation):
        """Returns the only operation that reads another one, both called once; else None."""
        readers = self._readers(operation)
        if len(readers) != 1 or operation in self._graph.outputs:
            return None
        once = all(len(self._calls[each]) == 1 for each in (operation, *readers))
        return readers[0] if once else None

    def _sole_readers(self, operation):
        """Returns what reads an operation, if one operation alone reads each of its outputs."""
        reader = self._only_reader(operation)
        if reader is not None:
            return [reader]
        readers = (
            [] if operation in self._graph.outputs else self._graph.consumers.get(operation, {})
        )
        # Layers that are called more than once: as many calls as there are calls that read them.
        reads = sum(self._reads[operation, reader] for reader in readers)
        return list(readers) if reads == len(self._calls[operation]) else []

    def _is_linear_kernel(self, operation):
        return (
            isinstance(operation, kinds.WITH_KERNELS)
            and kinds.computes_as_keras(operation)
            and not isinstance(operation, keras.layers.Embedding)
            and kinds.own_activation(operation) == "linear"
        )

    def _folds(self, operation, reader):
        """Whether what reads the layer with a kernel alone normalizes its output channels."""
        is_einsum = isinstance(operation, keras.layers.EinsumDense)
        if not isinstance(reader, keras.layers.BatchNormalization) or is_einsum:
            return False
        rank = len(self._calls[operation][0].outputs[0].shape)
        axis = reader.axis[0] if isinstance(reader.axis, (list, tuple)) else reader.axis
        is_first = getattr(operation, "data_format", None) == "channels_first"
        return axis in (-1, rank - 1) and not is_first


def _is_of_unlike_columns(operation):
    """Whether an operation normalizes columns that one scale of 8 bits cannot hold together."""
    mean, deviation = np.ravel(operation.mean), np.ravel(np.sqrt(operation.variance))
    largest = np.max(np.abs(mean) + deviation)
    return deviation.size > 1 and largest > _ALIKE * np.min(deviation[deviation > 0], initial=1e30)
