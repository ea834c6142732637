"""What an adapter computes beside a frozen layer: LoRA and its kin, one formula in one class."""

import difflib
import math
import re

import keras
from keras import ops

from tfpeft.core.arguments import check_positive, check_positive_integer, invalid
from tfpeft.core.kernel_axes import along_outputs, input_axes, output_shape, parse_einsum
from tfpeft.core.layers import layers_by_path, match_layers

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
_KERNELS = (keras.layers.Dense, keras.layers.EinsumDense, *_CONVOLUTIONS)
_SCALED = (
    keras.layers.LayerNormalization,
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)


def _register(cls):
    return keras.saving.register_keras_serializable(package="tfpeft")(cls)


class AdapterMethod:
    """How layers are adapted: which ones, and what stands beside each of them.

    A method of one's own overrides `kinds` and `default_target`, and three functions of a layer
    and of its `part`, a `keras.layers.Layer` that holds what is trained.
    """

    kinds = _KERNELS
    """Classes of layers that can be adapted."""

    default_target = ()
    """Patterns that are tried if none are given; where they match nothing, all of `kinds`."""

    def __init__(self, target=None):
        if target is not None and not isinstance(target, (str, list, tuple)):
            raise invalid("target", "a name or pattern, or a list of them", target)
        self.target = [target] if isinstance(target, str) else target and list(target)

    def layers(self, model):
        """Returns {path: layer} of what is adapted in a model.

        Raises:
            ValueError: if a pattern matches no layer that can be adapted; near names are listed.
        """
        all_paths = layers_by_path(model)
        able = {path: layer for path, layer in all_paths.items() if self.can_adapt(layer)}
        # A layer that is reached by two paths, of a model used twice, is adapted once.
        able = {path: able[path] for path in {id(each): p for p, each in able.items()}.values()}
        if self.target is None:
            found = match_layers(able, self.default_target)
            found = found or able
        else:
            found = {}
            for pattern in self.target:
                matches = match_layers(able, [pattern])
                if not matches:
                    raise self._no_match(pattern, able)
                found.update(matches)
        if not found:
            raise self._no_match(None, able)
        return dict(sorted(found.items()))

    def _no_match(self, pattern, able):
        names = sorted({path.split("/")[-1] for path in able})
        near = difflib.get_close_matches(str(pattern), names, n=5, cutoff=0.4) or names[:10]
        kinds = ", ".join(kind.__name__ for kind in self.kinds)
        expected = f"names or patterns of layers ({kinds}), such as {', '.join(near) or 'none'}"
        return invalid("target", expected, pattern)

    def can_adapt(self, layer):
        return isinstance(layer, self.kinds)

    def build(self, part, layer):
        """Adds the part's weights, for a layer that is built."""
        raise NotImplementedError

    def call(self, part, layer, call, inputs, *args, **kwargs):
        """Returns the adapted output of a layer, whose own `call` is `call`."""
        raise NotImplementedError

    def merged(self, part, layer):
        """Returns {name of a layer's variable: new value} that make the part unnecessary."""
        raise ValueError(
            f"{type(self).__name__} cannot be merged, expected an adapter that is linear in the "
            "layer's weights. Keep the adapted model, or use LoRA"
        )

    def get_config(self):
        return {"target": self.target}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


@_register
class LoRA(AdapterMethod):
    """y = W x + b + (alpha / rank) * B (A x), before the activation; W and b are frozen.

    A brings the inputs to `rank` channels and begins random, B brings these to the outputs and
    begins at zero, so that training begins with the model as it is. A step computes no gradient
    for W. Of convolutions A is a convolution of the same kernel size, of embeddings a table.

    What it does not give: grouped convolutions, and layers with a kernel that is shared between
    input and output axes (labels of an `EinsumDense` that are in all three).

    Args:
        rank: Channels in between, >= 1.
        alpha: Scale: outputs are multiplied by alpha / rank.
        target: Names or patterns of layers, or of what they are in, such as "query" or
            "encoder_1/*"; None for the query and value projections of attention, or if there are
            none, every Dense, EinsumDense and convolution.
        dropout: Rate in [0, 1) at which inputs of A are dropped in training.

    Raises:
        ValueError: for values out of range, and targets that match nothing (near names are listed).

    Example:

    ```python
    import keras, numpy as np, tfpeft

    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2, target="hidden"))
    print(adapted.count_params() - model.count_params())  # 144: 8 * 2 + 2 * 64
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022,
    https://arxiv.org/abs/2106.09685
    """

    kinds = (*_KERNELS, keras.layers.Embedding)
    default_target = ("query", "value")

    def __init__(self, rank=8, alpha=16, target=None, dropout=0.0):
        super().__init__(target)
        check_positive_integer("rank", rank)
        check_positive("alpha", alpha)
        if not isinstance(dropout, (int, float)) or not 0.0 <= dropout < 1.0:
            raise invalid("dropout", "a number in [0, 1)", dropout)
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    def can_adapt(self, layer):
        if isinstance(layer, keras.layers.EinsumDense):
            return _einsum_of(layer, "r") is not None
        return super().can_adapt(layer) and getattr(layer, "groups", 1) == 1

    def layers(self, model):
        found = super().layers(model)
        if self.target is None:  # embeddings on demand only
            return {
                path: layer
                for path, layer in found.items()
                if not isinstance(layer, keras.layers.Embedding)
            }
        return found

    def build(self, part, layer):
        a_shape, b_shape = self._shapes(layer)
        fan_in = math.prod(a_shape[:-1])
        initializer = keras.initializers.RandomUniform(-1.0, 1.0)
        if isinstance(layer, keras.layers.Embedding):
            initializer = keras.initializers.RandomNormal(stddev=1.0)
            fan_in = 1
        # Kaiming's uniform with a = sqrt(5), as the authors begin: 1 / sqrt(fan_in).
        part.a = part.add_weight(name="adapter_a", shape=a_shape, initializer=initializer)
        part.a.assign(part.a / math.sqrt(fan_in))
        part.b = part.add_weight(name="adapter_b", shape=b_shape, initializer="zeros")
        part.drop = keras.layers.Dropout(self.dropout) if self.dropout else None

    def _shapes(self, layer):
        if isinstance(layer, keras.layers.Embedding):
            return (layer.input_dim, self.rank), (self.rank, layer.output_dim)
        if isinstance(layer, keras.layers.EinsumDense):
            _, down, _, up, sizes = _einsum_of(layer, "r")
            sizes = {**sizes, down[-1]: self.rank}
            return tuple(sizes[label] for label in down), tuple(sizes[label] for label in up)
        *sides, outputs = layer.kernel.shape
        return (*sides, self.rank), (self.rank, outputs)

    def call(self, part, layer, call, inputs, *args, **kwargs):
        if isinstance(layer, keras.layers.Embedding):
            outputs = call(inputs, *args, **kwargs)
            return outputs + ops.cast(self._delta(part, layer, inputs), outputs.dtype)
        outputs = _without_activation(layer, call, inputs, *args, **kwargs)
        outputs = outputs + ops.cast(self._delta(part, layer, inputs), outputs.dtype)
        return _activated(layer, outputs)

    def _delta(self, part, layer, inputs):
        """Returns (alpha / rank) * B (A x)."""
        scale = self.alpha / self.rank
        if isinstance(layer, keras.layers.Embedding):
            return scale * ops.matmul(ops.take(part.a, ops.cast(inputs, "int32"), axis=0), part.b)
        if part.drop is not None:
            inputs = part.drop(inputs)
        a, b = (ops.cast(each, inputs.dtype) for each in (part.a, part.b))
        if isinstance(layer, keras.layers.EinsumDense):
            first, _, second, _, _ = _einsum_of(layer, "r")
            return scale * ops.einsum(second, ops.einsum(first, inputs, a), b)
        if isinstance(layer, _CONVOLUTIONS):
            hidden = layer.convolution_op(inputs, a)
            if layer.data_format == "channels_first":
                return scale * ops.moveaxis(ops.matmul(ops.moveaxis(hidden, 1, -1), b), -1, 1)
            return scale * ops.matmul(hidden, b)
        return scale * ops.matmul(ops.matmul(inputs, a), b)

    def kernel_delta(self, part, layer):
        """Returns what the product of both adds to the kernel, in its shape."""
        if isinstance(layer, keras.layers.EinsumDense):
            _, down, _, up, _ = _einsum_of(layer, "r")
            kernel = parse_einsum(layer.equation)[1]
            product = ops.einsum(f"{down},{up}->{kernel}", part.a, part.b)
        else:
            product = ops.matmul(part.a, part.b)
        return ops.cast(self.alpha / self.rank * product, "float32")

    def merged(self, part, layer):
        name = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
        return {name: ops.cast(getattr(layer, name), "float32") + self.kernel_delta(part, layer)}

    def get_config(self):
        return {
            **super().get_config(),
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
        }


@_register
class DoRA(LoRA):
    """y = m * (W + D) x / ||W + D|| + b with D = (alpha / rank) * B A: magnitude and direction.

    m, a number an output, begins as the norms ||W|| of what leads to each output, over the
    kernel's input axes. The gradient does not flow through the norm, as in the paper's section
    4.3. It follows full fine-tuning more closely than LoRA at small ranks, and costs a norm of
    the kernel a step.

    What it does not give: embeddings. Arguments, errors and the rest: see `LoRA`.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.DoRA(rank=2))
    print(adapted.count_params() - model.count_params())  # 25: 8 * 2 + 2 * 3 + 3
    ```

    Reference: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024,
    https://arxiv.org/abs/2402.09353
    """

    kinds = _KERNELS

    def can_adapt(self, layer):
        channels_first = getattr(layer, "data_format", None) == "channels_first"
        return super().can_adapt(layer) and not channels_first

    def build(self, part, layer):
        super().build(part, layer)
        norms = self._norms(part, layer)
        part.magnitude = part.add_weight(name="adapter_magnitude", shape=norms.shape)
        part.magnitude.assign(norms)

    def _norms(self, part, layer):
        kernel = ops.cast(layer.kernel, "float32") + self.kernel_delta(part, layer)
        axes = input_axes(layer)
        return ops.sqrt(ops.sum(ops.square(kernel), axis=axes))

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = _without_activation(layer, call, inputs, *args, **kwargs)
        bias = layer.bias
        if bias is not None:
            bias = ops.cast(bias, outputs.dtype)
            outputs = outputs - bias
        outputs = outputs + ops.cast(self._delta(part, layer, inputs), outputs.dtype)
        outputs = outputs * along_outputs(layer, self._scale(part, layer), outputs)
        return _activated(layer, outputs if bias is None else outputs + bias)

    def _scale(self, part, layer):
        norms = ops.stop_gradient(self._norms(part, layer))
        return part.magnitude / ops.maximum(norms, 1e-12)

    def merged(self, part, layer):
        scale = self._scale(part, layer)
        kernel = ops.cast(layer.kernel, "float32") + self.kernel_delta(part, layer)
        return {"kernel": kernel * ops.expand_dims(scale, input_axes(layer))}


@_register
class IA3(AdapterMethod):
    """y = l * (W x + b) for some layers, y = W (l * x) + b for others; l begins at one.

    Args:
        target: Layers whose outputs are scaled, before the activation; None for the key and value
            projections of attention, or if there are none, every Dense, EinsumDense and
            convolution.
        input_target: Layers whose last input axis is scaled, Dense ones; None for the second
            ones of KerasHub's feedforward blocks, where there are any.

    Raises:
        ValueError: for targets that match nothing (near names are listed).

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.IA3(target="head"))
    print(adapted.count_params() - model.count_params())  # 3
    ```

    Reference: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
    In-Context Learning", 2022, https://arxiv.org/abs/2205.05638
    """

    default_target = ("key", "value")

    def __init__(self, target=None, input_target=None):
        super().__init__(target)
        self.input_target = [input_target] if isinstance(input_target, str) else input_target

    def _scales_input(self, path):
        patterns = self.input_target
        if patterns is None:
            patterns = () if self.target is not None else ("feedforward_output_dense",)
        return bool(match_layers({path: None}, patterns))

    def layers(self, model):
        able = {p: each for p, each in layers_by_path(model).items() if self.can_adapt(each)}
        by_input = {path: each for path, each in able.items() if self._scales_input(path)}
        for path, layer in by_input.items():
            if not isinstance(layer, keras.layers.Dense):
                raise invalid("input_target", "Dense layers", path)
        for pattern in self.input_target or ():
            if not match_layers(able, [pattern]):
                raise self._no_match(pattern, able)
        return {**super().layers(model), **by_input}

    def build(self, part, layer):
        part.on_input = self._scales_input(part.path_of_layer)
        shape = (layer.kernel.shape[0],) if part.on_input else output_shape(layer)
        part.scale = part.add_weight(name="ia3_scale", shape=shape, initializer="ones")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        # As h + (l - 1) * h: the converter to TFLite folds l * h into the kernel, of which a file
        # of several tasks would then hold a copy a task.
        if part.on_input:
            inputs = inputs + inputs * ops.cast(part.scale - 1.0, inputs.dtype)
            return call(inputs, *args, **kwargs)
        outputs = _without_activation(layer, call, inputs, *args, **kwargs)
        change = outputs * along_outputs(layer, part.scale - 1.0, outputs)
        return _activated(layer, outputs + change)

    def merged(self, part, layer):
        if part.on_input:
            return {"kernel": layer.kernel * part.scale[:, None]}
        new = {"kernel": layer.kernel * ops.expand_dims(part.scale, input_axes(layer))}
        if layer.bias is not None:
            scale = part.scale
            if isinstance(layer, keras.layers.EinsumDense):
                scale = along_outputs(layer, scale, layer.bias)
            new["bias"] = layer.bias * ops.reshape(scale, layer.bias.shape)
        return new

    def get_config(self):
        return {**super().get_config(), "input_target": self.input_target}


@_register
class BottleneckAdapter(AdapterMethod):
    """y = h + U f(D h) with h the layer's output: a small network behind it; U begins at zero.

    What it does not give: merging, as f is not linear.

    Args:
        size: Channels in between, >= 1.
        activation: f, a name or function of Keras.
        target: Names or patterns of layers; None for the last projections of attention and
            feedforward blocks, as Houlsby et al. place them, or if there are none, every Dense,
            EinsumDense and convolution.

    Raises:
        ValueError: for values out of range, and targets that match nothing (near names are listed).

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.BottleneckAdapter(size=2))
    print(adapted.count_params() - model.count_params())  # 17: 3 * 2 + 2 + 2 * 3 + 3
    ```

    Reference: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019,
    https://arxiv.org/abs/1902.00751
    """

    default_target = ("attention_output", "feedforward_output_dense")

    def __init__(self, size=64, activation="gelu", target=None):
        super().__init__(target)
        check_positive_integer("size", size)
        self.size = size
        self.activation = keras.activations.get(activation)

    def can_adapt(self, layer):
        channels_first = getattr(layer, "data_format", None) == "channels_first"
        return super().can_adapt(layer) and not channels_first

    def build(self, part, layer):
        width = output_shape(layer)[-1]
        for name, shape, initializer in (
            ("down", (width, self.size), "glorot_uniform"),
            ("down_bias", (self.size,), "zeros"),
            ("up", (self.size, width), "zeros"),
            ("up_bias", (width,), "zeros"),
        ):
            weight = part.add_weight(
                name=f"bottleneck_{name}", shape=shape, initializer=initializer
            )
            setattr(part, name, weight)

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        down, down_bias, up, up_bias = (
            ops.cast(each, outputs.dtype)
            for each in (part.down, part.down_bias, part.up, part.up_bias)
        )
        hidden = self.activation(ops.matmul(outputs, down) + down_bias)
        return outputs + ops.matmul(hidden, up) + up_bias

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "activation": keras.activations.serialize(self.activation),
        }


@_register
class BitFit(AdapterMethod):
    """y = W x + b + d: only biases are trained, as what is added to them; d begins at zero.

    Args:
        target: Names or patterns of layers; None for all that have a bias: Dense, EinsumDense,
            convolutions and normalisation.

    Raises:
        ValueError: for targets that match nothing (near names are listed).

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.BitFit())
    print(adapted.count_params() - model.count_params())  # 3
    ```

    Reference: Ben Zaken, Goldberg & Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning for
    Transformer-based Masked Language-models", 2022, https://arxiv.org/abs/2106.10199
    """

    kinds = (*_KERNELS, *_SCALED)

    def can_adapt(self, layer):
        return super().can_adapt(layer) and getattr(layer, _bias_name(layer), None) is not None

    def build(self, part, layer):
        bias = getattr(layer, _bias_name(layer))
        part.shift = part.add_weight(name="bias_shift", shape=bias.shape, initializer="zeros")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = _without_activation(layer, call, inputs, *args, **kwargs)
        shift = part.shift
        if not isinstance(layer, keras.layers.EinsumDense):
            shift = along_outputs(layer, shift, outputs)
        return _activated(layer, outputs + ops.cast(shift, outputs.dtype))

    def merged(self, part, layer):
        name = _bias_name(layer)
        return {name: getattr(layer, name) + part.shift}


@_register
class NormTuning(AdapterMethod):
    """y = g * n + s with n the output of a normalisation layer; g begins at one, s at zero.

    It is the training of gamma and beta, beside those that are there.

    Args:
        target: Names or patterns of normalisation layers; None for all.

    Raises:
        ValueError: for targets that match nothing (near names are listed).

    Example:

    ```python
    import keras, tfpeft

    layers = [keras.Input((8,)), keras.layers.LayerNormalization(), keras.layers.Dense(3)]
    adapted = tfpeft.add_adapters(keras.Sequential(layers), tfpeft.NormTuning())
    print(len(adapted.trainable_variables))  # 2
    ```

    Reference: Qi et al., "Parameter-Efficient Tuning on Layer Normalization for Pre-trained
    Language Models", 2022, https://arxiv.org/abs/2211.08682
    """

    kinds = _SCALED

    def build(self, part, layer):
        scale = getattr(layer, _scale_name(layer), None)
        if scale is None:
            raise invalid("target", "normalisation layers with a scale", layer.name)
        part.gain = part.add_weight(name="norm_scale", shape=scale.shape, initializer="ones")
        part.shift = part.add_weight(name="norm_bias", shape=scale.shape, initializer="zeros")
        if getattr(layer, "beta", None) is None:
            part.shift.trainable = False

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        # As in IA3: not folded into the kernel before it.
        change = outputs * along_outputs(layer, part.gain - 1.0, outputs)
        return outputs + (change + along_outputs(layer, part.shift, outputs))

    def merged(self, part, layer):
        name = _scale_name(layer)
        new = {name: getattr(layer, name) * part.gain}
        if getattr(layer, "beta", None) is not None:
            new["beta"] = layer.beta * part.gain + part.shift
        return new


def _without_activation(layer, call, *args, **kwargs):
    if getattr(layer, "activation", None) is None:
        return call(*args, **kwargs)
    activation, layer.activation = layer.activation, None
    try:
        return call(*args, **kwargs)
    finally:
        layer.activation = activation


def _activated(layer, outputs):
    activation = getattr(layer, "activation", None)
    return outputs if activation is None else activation(outputs)


def _einsum_of(layer, rank):
    """Returns (equation of A, labels of A, equation of B, labels of B, sizes), or None.

    A takes the kernel's labels that are summed over, B those that are in the outputs.
    """
    inputs, kernel, outputs = parse_einsum(layer.equation)
    label = next(each for each in rank + "zyxwvu" if each not in layer.equation)
    letters = [each for each in kernel if each != "."]
    summed = "".join(each for each in letters if each in inputs and each not in outputs)
    kept = "".join(each for each in letters if each in outputs and each not in inputs)
    if len(summed) + len(kept) != len(letters) or not summed or not kept:
        return None
    between = re.sub(f"[{summed}]", "", inputs) + label
    sizes = {}
    if layer.built:
        sizes = dict(zip(letters, layer.kernel.shape, strict=True))
    return (
        f"{inputs},{summed}{label}->{between}",
        summed + label,
        f"{between},{label}{kept}->{outputs}",
        label + kept,
        sizes,
    )


def _bias_name(layer):
    return "beta" if isinstance(layer, _SCALED) else "bias"


def _scale_name(layer):
    return "scale" if isinstance(layer, keras.layers.RMSNormalization) else "gamma"
