"""SavedModel folders: as the Keras model that was saved where that can be rebuilt, else frozen."""

import warnings

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.core.graph import flatten_layers, input_structure
from tfpeft.core.registration import register
from tfpeft.loading import saved_metadata
from tfpeft.loading.compiled import compile_as_saved
from tfpeft.loading.lambdas import ALLOWED
from tfpeft.loading.old_models import OldModels
from tfpeft.loading.old_weights import assign_in_order

_FILE = "saved_model.pb"
_TOLERANCE = 1e-5  # of the largest output: another order of sums, and no more
# They take numbers of words or classes, often as floats.
_OF_NUMBERS = (
    *(keras.layers.Embedding, keras.layers.CategoryEncoding),
    *(keras.layers.Hashing, keras.layers.IntegerLookup),
)
# What reads or writes files or runs Python while the graph runs. Saving and restoring variables,
# which each SavedModel has functions for, is done by others.
_REACHING_OUT = {
    *("EagerPyFunc", "PyFunc", "PyFuncStateless"),
    *("MatchingFiles", "ReadFile", "ReaderReadV2", "TFRecordDataset", "TextLineDataset"),
    *("WriteFile", "PrintV2"),
}


def is_saved_model(folder):
    """Whether a folder is a SavedModel."""
    return (folder / _FILE).is_file()


def saved_model(folder, custom_objects=None, *, safe_mode=True, compiled=False):
    """Returns the model of a SavedModel folder.

    It is rebuilt from the configuration of Keras 2, if that is there and the rebuilt model has the
    outputs of the graph; else it is frozen, with a warning that says why.

    Raises:
        InputError: for a folder that TensorFlow cannot load, one without a function to call, and,
            in safe mode, one whose graph reads or writes files or runs Python.
    """
    layer = SavedModelLayer(str(folder), safe_mode=safe_mode, name="saved_model")
    frozen = _functional(layer)
    config = saved_metadata.keras_config(folder)
    if config is None:
        return frozen
    try:
        model = _rebuilt(config, layer, frozen, custom_objects, safe_mode)
    except Exception as error:  # Keras 3 has no such layers, or has them in another form
        model = frozen
        warnings.warn(
            f"{folder} is loaded as a frozen model, without layers and with weights that do not "
            f"train, as its Keras model cannot be rebuilt: {last_cause(error)}",
            UserWarning,
            stacklevel=4,
        )
    if compiled:
        compile_as_saved(model, config["training_config"], custom_objects)
    return model


@register()
class SavedModelLayer(keras.layers.Layer):
    """Calls a function of a SavedModel folder; its weights are there, and do not train.

    A .keras file of a model with this layer holds the path of the folder, not what is in it.

    Args:
        folder: The path of the folder.
        signature: The name of the function; by default "serving_default", or the only one.
        safe_mode: Whether a graph that reads or writes files or runs Python is an error.
    """

    def __init__(self, folder, signature=None, *, safe_mode=True, **kwargs):
        super().__init__(**{**kwargs, "trainable": False})
        if safe_mode:
            _check_operators(folder)
        try:
            self._loaded = tf.saved_model.load(folder)
        except Exception as error:  # files, protocol buffers and operators each have their own
            why = last_cause(error)
            if "MetaGraph" in why:  # of an empty file
                why = f"its {_FILE} has no graph"
            raise InputError(f"TensorFlow cannot load it: {why}") from error
        self.folder = folder
        self.signature = _signature(self._loaded.signatures, signature)
        self._function = self._loaded.signatures[self.signature]
        self.supports_jit = False
        self._weights_of_graph = [
            keras.Variable(variable, dtype=variable.dtype, trainable=False, name=_name(variable))
            for variable in self._function.variables
            if variable.dtype.is_floating or variable.dtype.is_integer
        ]
        self.built = True

    @property
    def input_specs(self):
        """{name: tf.TensorSpec} of the inputs."""
        return self._function.structured_input_signature[1]

    @property
    def loaded(self):
        """What `tf.saved_model.load` returns."""
        return self._loaded

    def call(self, inputs):
        outputs = self._function(**inputs)
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def compute_output_spec(self, inputs):
        outputs = {
            name: keras.KerasTensor(_shape(spec, name), spec.dtype.name)
            for name, spec in self._function.structured_outputs.items()
        }
        return next(iter(outputs.values())) if len(outputs) == 1 else outputs

    def get_config(self):
        return {**super().get_config(), "folder": self.folder, "signature": self.signature}


def _check_operators(folder):
    graph = saved_model_pb2.SavedModel()
    try:
        graph.ParseFromString((tf.io.gfile.GFile(f"{folder}/{_FILE}", "rb")).read())
    except Exception as error:  # a damaged file
        raise InputError(f"its {_FILE} is damaged: {last_cause(error)}") from error
    found = set()
    for meta in graph.meta_graphs:
        nodes = [meta.graph_def.node, *(f.node_def for f in meta.graph_def.library.function)]
        found |= {node.op for part in nodes for node in part} & _REACHING_OUT
    if found:
        raise InputError(
            f"its graph reads or writes files, or runs Python, with {', '.join(sorted(found))}; if "
            f"you trust it, {ALLOWED}"
        )


def _signature(signatures, name):
    names = list(signatures)
    if name is None:
        name = "serving_default" if "serving_default" in names else None
        if name is None and len(names) == 1:
            name = names[0]
    if name not in names:
        found = ", ".join(names) or "none"
        raise unexpected("a SavedModel with the signature serving_default, or one alone", found)
    return name


def _name(variable):
    """Returns a variable's name as Keras takes it: without slashes."""
    return variable.name.replace("/", "_").partition(":")[0]


def _shape(spec, name):
    if spec.shape.rank is None:
        raise InputError(f"the shape of {name} is not known")
    return spec.shape.as_list()


def _functional(layer):
    """Returns a functional model that calls a `SavedModelLayer`."""
    inputs = {
        name: keras.Input(batch_shape=_shape(spec, name), dtype=spec.dtype.name, name=name)
        for name, spec in layer.input_specs.items()
    }
    alone = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    return keras.Model(alone, layer(inputs), name="frozen")


def _rebuilt(config, layer, frozen, custom_objects, safe_mode):
    """Returns the Keras model of a configuration with the weights of the folder, compared."""
    if config["config"] is None:
        raise InputError(f"{config['class_name']} is a class without a configuration")
    models = OldModels(config["keras_version"], custom_objects, safe_mode)
    made = models.made(config)
    if models.problems:
        name, why = next(iter(models.problems.items()))
        raise InputError(f"{name} ({why})")
    variables = getattr(layer.loaded, "variables", [])
    assign_in_order(made, [variable.numpy() for variable in variables])
    made.freeze()
    _check_same(made.layer, frozen)
    return made.layer


def _check_same(model, frozen):
    """Raises unless two models have equal outputs for a random batch."""
    random = np.random.default_rng(0)
    batch = {}
    reads_numbers = any(isinstance(each, _OF_NUMBERS) for each in flatten_layers(model))
    for tensor in keras.tree.flatten(frozen.input):
        shape = [side or 2 for side in tensor.shape]
        is_float = "float" in tensor.dtype and not reads_numbers
        values = random.normal(size=shape) if is_float else random.integers(0, 2, shape)
        batch[tensor.name] = values.astype(tensor.dtype)
    expected = keras.tree.flatten(frozen(batch if len(batch) > 1 else next(iter(batch.values()))))
    tensors = [batch[tensor.name] for tensor in model.inputs]
    given = keras.tree.pack_sequence_as(input_structure(model), tensors)
    outputs = keras.tree.flatten(model(given, training=False))
    for index, output in enumerate(outputs):
        if not any(_is_close(output, each) for each in expected):
            raise InputError(f"its output {index} is not that of the graph")


def _is_close(output, expected):
    a, b = np.asarray(output, "float64"), np.asarray(expected, "float64")
    return a.shape == b.shape and np.max(np.abs(a - b), initial=0) <= _TOLERANCE * max(
        1.0, np.max(np.abs(b), initial=0)
    )
