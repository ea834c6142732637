"""Layers of Keras 1 and 2: their classes and arguments as Keras 3 has them.

A configuration is translated before Keras 3 sees it. What differs without an error, such as
`hard_sigmoid` or the bias of a GRU, is translated, too.
"""

import inspect

import keras

from tfpeft.core.arguments import InputError
from tfpeft.loading import keras1_layers
from tfpeft.loading.old_functions import OLD_ACTIVATIONS

CLASSES = {
    "BatchNormalizationV1": "BatchNormalization",
    "BatchNormalizationV2": "BatchNormalization",
    "SyncBatchNormalization": "BatchNormalization",
    "CuDNNGRU": "GRU",
    "CuDNNLSTM": "LSTM",
    "GRUV1": "GRU",
    "GRUV2": "GRU",
    "LSTMV1": "LSTM",
    "LSTMV2": "LSTM",
    "MultiHeadAttentionV2": "MultiHeadAttention",
    "NormalizationV1": "Normalization",
    "ThresholdedReLU": "ReLU",
}
"""Old name of a layer's class -> its name in Keras 3; equal names are left out."""

# Argument that Keras 3 lacks -> the values that mean what Keras 3 does; None for any value.
_OBSOLETE = {
    "adjustment": (None,),
    "batch_input_shape": None,
    "batch_size": None,
    "dtype": None,
    "dynamic": (False,),
    "experimental_run_tf_function": None,
    "filters": None,
    "force_generator": None,
    "fused": None,
    "groups": (1, None),
    "implementation": None,
    "input_dim": None,
    "input_dtype": None,
    "input_length": None,
    "input_shape": None,
    "kernel_constraint": None,
    "kernel_initializer": None,
    "kernel_regularizer": None,
    "key_shape": None,
    "noise_shape": (None,),
    "optional": (False, None),
    "query_shape": None,
    "ragged": (False, None),
    "rng_type": None,
    "robust_masking": None,
    "softmax_robust_masking": None,
    "sparse": (False, None),
    "time_major": (False, None),
    "trainable": None,
    "type_spec": (None,),
    "value_shape": None,
    "virtual_batch_size": (None,),
    "zero_output_for_mask": None,
}
_OF_ALL_LAYERS = {"name", "trainable", "dtype", "activity_regularizer"}


def translated(class_name, config, keras_version):
    """Returns the class and the arguments of a layer of Keras 1 or 2, as Keras 3 has them.

    Args:
        class_name: As the file has it.
        config: The arguments in the file; left as it is.
        keras_version: Of the file, such as "2.3.1"; "1" if the file says none.

    Raises:
        InputError: with the reason, if Keras 3 has no such class or argument.
    """
    config = dict(config)
    if keras_version.startswith("1"):
        class_name, config = keras1_layers.as_keras_2(class_name, config)
    class_name, old_name = CLASSES.get(class_name, class_name), class_name
    config = {key: _value(key, value) for key, value in config.items()}
    if old_name == "InputLayer":
        config["batch_shape"] = config.pop("batch_input_shape", config.get("batch_shape"))
    if class_name in _OWN:
        config = _OWN[class_name](old_name, config)
    layer_class = getattr(keras.layers, class_name, None)
    if layer_class is None:
        raise InputError(f"Keras 3 has no layer {old_name}")
    return class_name, _accepted(layer_class, config)


def translated_custom(config):
    """Returns the arguments of a class of `custom_objects`, with values as Keras 3 has them."""
    config = {key: _value(key, value) for key, value in config.items()}
    config.pop("batch_input_shape", None)
    return config


def old_dtype(value):
    """Returns a type or policy of Keras 2 as the text that Keras 3 takes."""
    if isinstance(value, dict):
        return value.get("config", {}).get("name", "float32")
    return value


def _value(key, value):
    if key == "dtype":
        return old_dtype(value)
    if isinstance(key, str) and key.endswith(("_initializer", "_regularizer", "_constraint")):
        return _without_module(value)
    if key in ("activation", "recurrent_activation"):
        name = value
        if isinstance(value, dict):  # of a .keras file, or an advanced activation
            name = value["config"] if value.get("class_name") == "function" else None
        return OLD_ACTIVATIONS.get(name, value) if isinstance(name, str) else value
    return value


def _without_module(value):
    """Returns an object's configuration in the form without `module`, which Keras 3 reads."""
    if not isinstance(value, dict) or "class_name" not in value:
        return value
    config = dict(value.get("config") or {})
    config.pop("dtype", None)
    return {"class_name": value["class_name"].rsplit(">", 1)[-1], "config": config}


def _accepted(layer_class, config):
    """Returns a configuration without obsolete arguments that change nothing."""
    takes = accepted_arguments(layer_class)
    kept = {}
    for key, value in config.items():
        if key in takes:
            kept[key] = value
        elif key not in _OBSOLETE or value not in (_OBSOLETE[key] or (value,)):
            raise InputError(f"Keras 3's {layer_class.__name__} has no argument {key}={value!r}")
    return kept


def accepted_arguments(new_class):
    """Returns the names of the arguments that `__init__` of a class and of its bases takes."""
    names = set()
    for base in new_class.__mro__:
        if base in (keras.layers.Layer, object):
            return names | _OF_ALL_LAYERS
        parameters = inspect.signature(base.__init__).parameters.values()
        names |= {each.name for each in parameters}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters):
            return names
    return names


def _batch_normalization(old_name, config):
    axis = config.get("axis", -1)
    if isinstance(axis, (list, tuple)):
        if len(axis) != 1:
            raise InputError(f"Keras 3 normalizes over one axis, and the file has axis={axis}")
        config["axis"] = axis[0]
    for key in ("renorm", "renorm_clipping", "renorm_momentum"):  # of training only
        config.pop(key, None)
    if old_name == "SyncBatchNormalization":
        config["synchronized"] = True
    return config


def _gru(old_name, config):
    # Before Keras 2.1.3 there was no such argument.
    config["reset_after"] = old_name == "CuDNNGRU" or config.get("reset_after", False)
    return _cudnn(old_name, config)


def _cudnn(old_name, config):
    if old_name.startswith("CuDNN"):
        config |= {"activation": "tanh", "recurrent_activation": "sigmoid"}
    return config


def _leaky_relu(old_name, config):
    if "alpha" in config:
        config["negative_slope"] = config.pop("alpha")
    config["negative_slope"] = _number(config.get("negative_slope", 0.3))
    return config


def _relu(old_name, config):
    if old_name == "ThresholdedReLU":
        config["threshold"] = config.pop("theta")
    return {
        key: _number(value) if key in ("max_value", "negative_slope", "threshold") else value
        for key, value in config.items()
    }


def _number(value):
    """Returns a number that Keras 2 wrote as an array."""
    return value["value"] if isinstance(value, dict) else value


def _input_layer(old_name, config):
    if config.get("ragged"):
        raise InputError("its input is ragged")
    if config["batch_shape"] is None:
        raise InputError("the file does not say the shape of its input")
    return config


def _elu(old_name, config):
    return {**config, "alpha": _number(config.get("alpha", 1.0))}


def _category_encoding(old_name, config):
    if "max_tokens" in config:
        config["num_tokens"] = config.pop("max_tokens")
    return {**config, "output_mode": {"binary": "multi_hot"}.get(m := config.get("output_mode"), m)}


_OWN = {
    "BatchNormalization": _batch_normalization,
    "CategoryEncoding": _category_encoding,
    "ELU": _elu,
    "GRU": _gru,
    "GRUCell": _gru,
    "InputLayer": _input_layer,
    "LSTM": _cudnn,
    "LeakyReLU": _leaky_relu,
    "ReLU": _relu,
}
"""Class in Keras 3 -> function of the old class and its arguments, which returns the new ones."""
