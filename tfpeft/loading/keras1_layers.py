"""Layers of Keras 1: their classes and arguments as Keras 2 has them."""

from tfpeft.core.arguments import InputError

CLASSES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
}
_MERGES = {
    "ave": "Average",
    "concat": "Concatenate",
    "dot": "Dot",
    "max": "Maximum",
    "mul": "Multiply",
    "sum": "Add",
}
_RENAMED = {
    "W_constraint": "kernel_constraint",
    "W_regularizer": "kernel_regularizer",
    "U_regularizer": "recurrent_regularizer",
    "atrous_rate": "dilation_rate",
    "b_constraint": "bias_constraint",
    "b_regularizer": "bias_regularizer",
    "beta_init": "beta_initializer",
    "bias": "use_bias",
    "border_mode": "padding",
    "depthwise_regularizer": "depthwise_regularizer",
    "dim_ordering": "data_format",
    "dropout_U": "recurrent_dropout",
    "dropout_W": "dropout",
    "gamma_init": "gamma_initializer",
    "init": "kernel_initializer",
    "inner_activation": "recurrent_activation",
    "inner_init": "recurrent_initializer",
    "nb_filter": "filters",
    "output_dim": "units",
    "subsample": "strides",
    "subsample_length": "strides",
}
_VALUES = {
    "data_format": {"tf": "channels_last", "th": "channels_first"},
    "activation": {None: "linear"},
}
_INITIALIZERS = {
    "glorot_normal": "GlorotNormal",
    "glorot_uniform": "GlorotUniform",
    "he_normal": "HeNormal",
    "he_uniform": "HeUniform",
    "identity": "Identity",
    "lecun_uniform": "LecunUniform",
    "normal": "RandomNormal",
    "one": "Ones",
    "orthogonal": "Orthogonal",
    "uniform": "RandomUniform",
    "zero": "Zeros",
}
# Of Keras 1 only, and without a meaning for a trained model.
_DROPPED = ("consume_less", "input_dtype", "create_input_layer", "weights", "forget_bias_init")


def as_keras_2(class_name, config):
    """Returns the class and the arguments of a layer of Keras 1, as Keras 2 has them.

    Raises:
        InputError: with the reason, if there is no equal layer.
    """
    if class_name == "Merge":
        return _merge(config)
    if class_name == "BatchNormalization" and config.get("mode", 0) == 1:
        raise InputError("Keras 3 has no normalization of each sample by itself (mode=1)")
    new = {}
    for key, value in config.items():
        if key in _DROPPED:
            continue
        key = _RENAMED.get(key, key)
        new[key] = _VALUES.get(key, {}).get(value, value) if _is_plain(value) else value
        if key.endswith("_initializer"):
            new[key] = {"class_name": _INITIALIZERS.get(value, "GlorotUniform"), "config": {}}
        elif key.endswith(("_regularizer", "_constraint")):
            new[key] = _named_object(value)
    name = CLASSES.get(class_name, class_name)
    return name, _OWN[name](new) if name in _OWN else new


def _is_plain(value):
    return value is None or isinstance(value, (str, int, float, bool))


def _named_object(value):
    """Returns a regularizer or constraint of Keras 1 in the form of Keras 2."""
    if not isinstance(value, dict) or "class_name" in value:
        return value
    arguments = {key: each for key, each in value.items() if key != "name"}
    if value.get("name") in ("WeightRegularizer", "L1L2Regularizer", "ActivityRegularizer"):
        return {"class_name": "L1L2", "config": arguments}
    if "m" in arguments:
        arguments["max_value"] = arguments.pop("m")
    return {"class_name": value.get("name"), "config": arguments}


def _merge(config):
    name, mode = config["name"], config.get("mode", "sum")
    if mode not in _MERGES:
        raise InputError(f"Keras 3 has no Merge with mode={mode!r}")
    if mode == "concat":
        return "Concatenate", {"name": name, "axis": config.get("concat_axis", -1)}
    if mode == "dot":
        axes = config.get("dot_axes", -1)
        axes = (
            [axis[0] if isinstance(axis, list) else axis for axis in axes]
            if isinstance(axes, list)
            else axes
        )
        return "Dot", {"name": name, "axes": axes}
    return _MERGES[mode], {"name": name}


def time_distributed(config):
    """Returns the arguments of TimeDistributed for those of a TimeDistributedDense."""
    config = dict(config)
    outer = {
        key: config.pop(key) for key in ("name", "trainable", "batch_input_shape") if key in config
    }
    inner = {"class_name": "Dense", "config": {**config, "name": f"{outer['name']}_dense"}}
    return {**outer, "layer": inner}


def _sizes(*names):
    """Returns a function that joins the sizes of a kernel."""

    def joined(config):
        sizes = [config.pop(name) for name in names if name in config]
        if sizes:
            config["kernel_size"] = sizes
        return config

    return joined


def _conv1d(config):
    config["kernel_size"] = config.pop("filter_length", config.get("kernel_size"))
    return {key: value for key, value in config.items() if key != "input_dim"}


def _transposed(config):
    config.pop("output_shape", None)  # Keras 3 infers it
    return _sizes("nb_row", "nb_col")(config)


def _embedding(config):
    config["output_dim"] = config.pop("units")
    config["embeddings_initializer"] = config.pop("kernel_initializer", "uniform")
    for old, new in (
        ("kernel_regularizer", "embeddings_regularizer"),
        ("kernel_constraint", "embeddings_constraint"),
    ):
        if old in config:
            config[new] = config.pop(old)
    if config.pop("dropout", 0.0):
        raise InputError("Keras 3 has no Embedding with dropout")
    return config


def _batch_normalization(config):
    return {key: value for key, value in config.items() if key != "mode"}


def _rate(config):
    config["rate"] = config.pop("p", config.get("rate"))
    return config


def _pooling_1d(config):
    config["pool_size"] = config.pop("pool_length", config.get("pool_size"))
    config["strides"] = config.pop("stride", config.get("strides"))
    return config


def _upsampling_1d(config):
    config["size"] = config.pop("length", config.get("size"))
    return config


def _noise(config):
    config["stddev"] = config.pop("sigma", config.get("stddev"))
    return config


_OWN = {
    "AveragePooling1D": _pooling_1d,
    "BatchNormalization": _batch_normalization,
    "Conv1D": _conv1d,
    "Conv2D": _sizes("nb_row", "nb_col"),
    "Conv2DTranspose": _transposed,
    "Conv3D": _sizes("kernel_dim1", "kernel_dim2", "kernel_dim3"),
    "Dropout": _rate,
    "Embedding": _embedding,
    "GaussianDropout": _rate,
    "GaussianNoise": _noise,
    "MaxPooling1D": _pooling_1d,
    "SeparableConv2D": _sizes("nb_row", "nb_col"),
    "SpatialDropout1D": _rate,
    "SpatialDropout2D": _rate,
    "SpatialDropout3D": _rate,
    "UpSampling1D": _upsampling_1d,
}
"""Class in Keras 2 -> function of its arguments."""
