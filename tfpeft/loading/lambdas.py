"""Lambda layers of old files: code, which is made only where the user asks for it."""

import keras

from tfpeft.core.arguments import InputError

_OLD = ("module", "function_type", "output_shape_type", "output_shape_module")
ALLOWED = "pass `safe_mode=False`"
"""How a user's call allows code, in the errors about it."""
WAY_OUT = (
    f"if you trust the file, {ALLOWED}; else put the code into a layer's class and pass that in "
    "`custom_objects`"
)


def layers_with_code(config, layer=None):
    """Returns the names of the layers that hold code in a configuration of Keras 3."""
    if isinstance(config, list):
        return [name for each in config for name in layers_with_code(each, layer)]
    if not isinstance(config, dict):
        return []
    if config.get("class_name") == "__lambda__":
        return [layer]
    inner = config.get("config")
    layer = inner.get("name", layer) if isinstance(inner, dict) else layer
    found = [name for each in config.values() for name in layers_with_code(each, layer)]
    return list(dict.fromkeys(found))


def lambda_layer(config, custom_objects, safe_mode):
    """Returns a Lambda layer of Keras 1 or 2.

    Args:
        config: Its arguments in the file. A `function` is the name of a function in
            `custom_objects`, or code.
        custom_objects: Name -> function.
        safe_mode: Whether code is an error.

    Raises:
        InputError: for code in safe mode, and for a function that is not in `custom_objects`.
    """
    config = {key: value for key, value in config.items() if key not in _OLD}
    config.pop("batch_input_shape", None)
    function = config["function"]
    if isinstance(function, dict) and "class_name" in function:  # of a .keras file
        code = function.get("config")
        is_code = function["class_name"] == "__lambda__"
        function = [code["code"], code["defaults"], code["closure"]] if is_code else code
    arguments = {
        "name": config["name"],
        "arguments": config.get("arguments") or None,
        "mask": None,
    }
    if isinstance(function, str):
        found = (custom_objects or {}).get(function) or keras.saving.get_registered_object(function)
        if found is None:
            raise InputError(f"it calls the function {function!r}, which `custom_objects` lacks")
        return keras.layers.Lambda(found, **arguments)
    if safe_mode:
        raise InputError(f"it holds code, which is not run: {WAY_OUT}")
    code, defaults, closure = function
    made = {"class_name": "__lambda__", "config": {"code": code, "defaults": defaults}}
    made["config"]["closure"] = closure
    layer = {**arguments, "function": made, "output_shape": None}
    return keras.layers.Lambda.from_config(layer, safe_mode=False)
