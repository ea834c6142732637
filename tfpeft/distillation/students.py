"""Students: the teacher's architecture at another width."""

import keras

from tfpeft.core import clone, graph
from tfpeft.core.arguments import NoMatchError, check_positive, invalid

_WIDTHS = ("units", "filters")
_LARGEST = 1000


def scale_width(model: keras.Model, width: float) -> keras.Model:
    """Returns a new, untrained model: the architecture of `model` at another width.

    Every layer of `units` or `filters` has `max(1, round(width * units))` of them, except layers
    whose channels are the outputs of the model. Dropout rates of a narrower model become 0: its
    size and its teacher regularize it, and with dropout as well students were worse (see
    benchmarks/README.md). The state of preprocessing layers, such as the mean of a
    `Normalization`, is copied.

    What it does not give: other depths or kernel sizes. Layers with a fixed shape, such as
    `Reshape` to a number of channels or the `Input` of a functional model inside another model,
    are not adapted.

    Args:
        model: A functional or Sequential `keras.Model`, built; it is not changed.
        width: Factor > 0, such as 0.5.

    Raises:
        InputError: if the model is of another kind or the width out of range.
        NoMatchError: if the model has no layer to scale.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(3)])
    print(tfpeft.scale_width(model, 0.5).layers[0].units)  # 8
    ```

    Reference: the width multiplier of Howard et al., "MobileNets", 2017,
    https://arxiv.org/abs/1704.04861
    """
    check_positive("width", width)
    if width > _LARGEST:
        raise invalid("width", f"a number of at most {_LARGEST}", width)
    if not isinstance(model, keras.Model) or not getattr(model, "outputs", None):
        raise invalid("model", "a functional or Sequential model that is built", model)
    kept = {layer.name for output in model.outputs for layer in _output_layers(output)}
    scaled = []

    def edit(config, parents):
        if "layers" in config and "input_layers" not in config and config["name"] != model.name:
            # A Sequential inside another model is built for the width of its new input.
            layers = [each for each in config["layers"] if each["class_name"] != "InputLayer"]
            return {**config, "layers": layers, "build_input_shape": None}
        if width < 1 and "rate" in config:
            config = {**config, "rate": 0.0}
        for argument in _WIDTHS:
            if isinstance(config.get(argument), int) and config.get("name") not in kept:
                groups = config.get("groups") or 1
                units = max(1, round(width * config[argument] / groups)) * groups
                scaled.append(config["name"])
                config = {**config, argument: units}
        return config

    try:
        new = clone.rebuild(model, edit, copy_weights=False)
    except clone.RebuildError as error:
        layers = f"the layers of {model.name!r} still fit together ({error.cause})"
        raise invalid("width", f"a factor with which {layers}", width) from error
    if not scaled:
        expected = "layers with `units` or `filters` before the output layers"
        raise invalid("model", expected, model.name, error=NoMatchError)
    shapes = [[tuple(output.shape) for output in each.outputs] for each in (model, new)]
    if shapes[0] != shapes[1]:
        expected = f"a factor that leaves the outputs of {model.name!r} as {shapes[0]}"
        raise invalid("width", f"{expected}, not {shapes[1]}", width)
    return new


def _output_layers(tensor):
    """Yields the layers that determine how many channels an output has."""
    made = graph.origin(tensor)
    if graph.inner_output(made) is not None:
        yield from _output_layers(graph.inner_output(made))
    elif isinstance(made.operation, keras.layers.Wrapper):
        yield made.operation.layer
    elif any(hasattr(made.operation, argument) for argument in _WIDTHS):
        yield made.operation
    else:
        for argument in made.inputs:
            yield from _output_layers(argument)
