"""Which layers to prune so that XNNPACK's sparse kernels on ARM apply."""

import dataclasses

import keras

from tfpeft.core.arguments import NoMatchError, invalid
from tfpeft.core.graph import LayerGraph
from tfpeft.core.xnnpack import is_depthwise, is_first, is_pointwise
from tfpeft.reports.tables import markdown_table
from tfpeft.sparsity.kernels import select_kernels

_ACTIVATIONS = ("relu", "relu6", "leaky_relu", "elu", "sigmoid")
_LAYERS = (
    *(keras.layers.Add, keras.layers.Multiply, keras.layers.ZeroPadding2D, keras.layers.Dropout),
    *(keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU),
)
# What `x + y` and its like become in a functional model.
_OPERATIONS = ("Identity", "Add", "Subtract", "Multiply")
_NO_START = (
    "XNNPACK's sparse part begins with ZeroPadding2D(1) and a 3x3 Conv2D of 3 channels, strides 2, "
    "padding 'valid', on every way from the inputs; the model has no such layer"
)
_NO_END = (
    "XNNPACK's sparse part ends with GlobalAveragePooling2D on every way to the outputs; the model "
    "has no such layer"
)


@dataclasses.dataclass(frozen=True)
class XnnpackPolicy:
    """What `prune_for_xnnpack` returns: which layers to prune, and why not the others.

    Print it for a table.

    Attributes:
        prunable: Names of the layers whose zeros XNNPACK's sparse kernels skip.
        reasons: Name of each other layer with kernels -> why not.
        exclude: Names for the `exclude` of a pruning optimizer: the layers in `reasons` that it
            would prune.
    """

    prunable: list[str]
    reasons: dict[str, str]
    exclude: list[str]

    def to_markdown(self) -> str:
        """Returns a table in Markdown, a row for each layer."""
        rows = [[name, "yes", ""] for name in self.prunable]
        rows += [[name, "no", reason] for name, reason in self.reasons.items()]
        return markdown_table(["layer", "prune", "because"], rows, align=["left"] * 3)

    def __str__(self):
        return self.to_markdown()


def prune_for_xnnpack(model: keras.Model) -> XnnpackPolicy:
    """Lists which layers to prune so that XNNPACK's sparse inference on ARM applies.

    XNNPACK runs a part of a network with sparse kernels if every layer in it allows that:

    - it begins with `ZeroPadding2D(1)` and a 3x3 `Conv2D` of 3 channels, strides 2, "valid";
    - it ends with `GlobalAveragePooling2D`;
    - between them are only: `Conv2D` of 1x1, strides 1, no dilation and no groups;
      `DepthwiseConv2D` of 3x3 or 5x5 with depth multiplier 1 and no dilation, strides 1 and
      "same", or strides 1 or 2 and "valid" after a `ZeroPadding2D` of 1 or 2; batch normalisation
      over channels that come last; add, subtract, multiply; relu, relu6, leaky_relu, elu and
      sigmoid; dropout, zero padding, bilinear upsampling, and average pooling with `keepdims`.

    XNNPACK skips zeros in the 1x1 convolutions. These are the rules of TFMOT's
    `PruneForLatencyOnXNNPack`, but for two that are stricter: the activation of a convolution
    must be one of the list above, and a 1x1 convolution outside of that part is not pruned, as
    it would not be faster.

    What it does not give: speed by itself. The .tflite file has to hold the weights in sparse
    form (`tf.lite.Optimize.EXPERIMENTAL_SPARSITY`), about two thirds of a kernel's weights must
    be zeros before XNNPACK takes its sparse kernels, and on x86 it turns them off. Measure on
    the device.

    Args:
        model: A built functional or Sequential `keras.Model`; such models may be layers in it.

    Returns:
        An `XnnpackPolicy`.

    Raises:
        NoMatchError: if no layer can be pruned, with the reasons.
        InputError: if the model has no graph of layers (subclassed, not built), or two layers of
            one name.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            keras.layers.ZeroPadding2D(1),
            keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
            keras.layers.Conv2D(16, 1, activation="relu", name="pointwise"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10),
        ]
    )
    policy = tfpeft.prune_for_xnnpack(model)
    print(policy.prunable)  # ['pointwise']
    schedule = tfpeft.constant_sparsity(0.8, begin=0.5, total_steps=100)
    optimizer = tfpeft.MagnitudePruning(
        keras.optimizers.Adam(1e-3), schedule, exclude=policy.exclude
    )
    ```

    Reference: Elsen et al., "Fast Sparse ConvNets", 2019, https://arxiv.org/abs/1911.09723
    """
    graph = LayerGraph(model)
    _check_names(graph)
    part = _sparse_part(graph)
    kernels = {id(kernel) for kernel in select_kernels(model.trainable_variables)}
    prunable, reasons, exclude = [], {}, []
    for layer in graph.layers:
        if not any(len(variable.shape) >= 2 for variable in layer.weights):
            continue
        trained = any(id(variable) in kernels for variable in layer.trainable_variables)
        reason = _why_not(layer, part, trained)
        if reason is None:
            prunable.append(layer.name)
            continue
        reasons[layer.name] = reason
        # A name that no pruning optimizer sees would be an error in its `exclude`.
        exclude += [layer.name] if trained else []
    if not prunable:
        raise _nothing(model, [f"{name}: {reason}" for name, reason in reasons.items()])
    return XnnpackPolicy(prunable, reasons, exclude)


def _check_names(graph):
    names = [each.name for each in (*graph.layers, *graph.models)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise invalid("model", "one whose layers have different names", repeated)


def _sparse_part(graph):
    """Returns the layers from the start to the end of the part that runs sparse."""
    starts = _first(graph.inputs, lambda layer: _is_start(layer, graph), graph.consumers)
    ends = _first(graph.outputs, _is_end, graph.producers)
    problems = [] if starts else [_NO_START]
    problems += [] if ends else [_NO_END]
    part = {}
    waiting = [] if problems else [each for start in starts for each in graph.consumers[start]]
    while waiting:
        layer = waiting.pop(0)
        if layer in part or layer in ends:
            continue
        part[layer] = None
        expected = _expected_instead(layer, graph)
        if expected:
            problems.append(f"{layer.name} is a {type(layer).__name__}, not {expected}")
        waiting += graph.consumers.get(layer, {})
    if problems:
        raise _nothing(graph.model, problems)
    return part


def _first(layers, wanted, following):
    """Returns the first that is `wanted` on each way on from `layers`; none if a way has none."""
    found, seen, waiting = {}, set(), list(layers)
    while waiting:
        layer = waiting.pop()
        if layer in seen:
            continue
        seen.add(layer)
        if wanted(layer):
            found[layer] = None
        elif not following.get(layer):
            return {}
        else:
            waiting += following[layer]
    return found


def _is_start(layer, graph):
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.padding == "valid"
        and is_first(
            layer.kernel_size, layer.kernel.shape[2], layer.strides, _zero_padding(layer, graph)
        )
    )


def _is_end(layer):
    return isinstance(layer, keras.layers.GlobalAveragePooling2D)


def _zero_padding(layer, graph):
    """Returns the padding of the `ZeroPadding2D` that alone feeds a layer, or None."""
    producers = list(graph.producers[layer])
    alone = len(producers) == 1 and isinstance(producers[0], keras.layers.ZeroPadding2D)
    return producers[0].padding if alone else None


def _expected_instead(layer, graph):
    """Returns what the sparse part would need in place of a layer; None if the layer is fine."""
    layers = keras.layers
    fine, expected = False, "one of the layers that XNNPACK's sparse part may hold"
    if isinstance(layer, layers.DepthwiseConv2D):
        fine = _is_fine_depthwise(layer, graph) and _activation(layer) in ("linear", *_ACTIVATIONS)
        expected = (
            "of 3x3 or 5x5, without depth multiplier and dilation, with strides 1 and 'same', or "
            "'valid' after ZeroPadding2D of 1 or 2, and an activation of " + ", ".join(_ACTIVATIONS)
        )
    elif isinstance(layer, layers.Conv2D):
        fine = is_pointwise(
            layer.kernel_size, layer.strides, layer.dilation_rate, layer.groups
        ) and _activation(layer) in ("linear", *_ACTIVATIONS)
        expected = (
            "of 1x1 with strides 1, without dilation and groups, and an activation of "
            + ", ".join(_ACTIVATIONS)
        )
    elif isinstance(layer, layers.GlobalAveragePooling2D):
        fine, expected = layer.keepdims, "with keepdims=True where it is not the end"
    elif isinstance(layer, layers.BatchNormalization):
        fine, expected = layer.axis in (-1, 3), "over the last axis"
    elif isinstance(layer, layers.UpSampling2D):
        fine, expected = layer.interpolation == "bilinear", "bilinear"
    elif isinstance(layer, layers.Activation):
        fine, expected = _activation(layer) in _ACTIVATIONS, "of " + ", ".join(_ACTIVATIONS)
    elif isinstance(layer, layers.Layer):
        fine = isinstance(layer, _LAYERS)
    else:
        fine = type(layer).__name__ in _OPERATIONS
    return None if fine else expected


def _is_fine_depthwise(layer, graph):
    padding = _zero_padding(layer, graph)
    if layer.padding == "same":
        # With strides 2 TensorFlow pads one side more than the other.
        padding = ((layer.kernel_size[0] // 2,) * 2,) * 2 if layer.strides == (1, 1) else None
    return is_depthwise(
        layer.kernel_size, layer.strides, layer.dilation_rate, padding, layer.depth_multiplier
    )


def _activation(layer):
    return keras.activations.serialize(layer.activation)


def _why_not(layer, part, trained):
    """Returns why a layer of a model that can run sparse is not pruned; None if it is."""
    if not isinstance(layer, keras.layers.Conv2D) or layer.kernel_size != (1, 1):
        return f"{type(layer).__name__} runs dense; XNNPACK skips zeros in 1x1 Conv2D only"
    if layer not in part:
        return "outside of the part that runs sparse, from the first convolution to the pooling"
    return None if trained else "not trainable"


def _nothing(model, problems):
    return NoMatchError(
        "Received an invalid value for `model`, expected 1x1 convolutions that XNNPACK's sparse "
        f"kernels can run. Received: {model.name!r}: {'; '.join(problems)}"
    )
