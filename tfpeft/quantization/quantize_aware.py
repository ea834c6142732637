"""Quantisation-aware training: a model that trains with the rounding of an int8 file."""

import contextlib
import functools
import typing
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import (
    check_choice,
    check_exclude,
    check_name,
    check_positive_integer,
    check_rate,
    invalid,
    unexpected,
)
from tfpeft.core.graph import flatten_layers, input_structure, output_structure
from tfpeft.core.registration import register
from tfpeft.export.conversion import fixed_batch_size
from tfpeft.export.model_samples import inputs_and_samples
from tfpeft.export.samples import stacked
from tfpeft.quantization import layer_kinds as kinds
from tfpeft.quantization.activation_quantizer import ActivationQuantizer
from tfpeft.quantization.deployed_calls import deploying
from tfpeft.quantization.fake_quant import fake_quant, fake_quant_weights
from tfpeft.quantization.integer_calls import IntegerCalls
from tfpeft.quantization.placement import plan_of
from tfpeft.quantization.rounded_calls import rounding

RANGES = ("moving_average", "learned")
_CALIBRATED = 400
_BATCH = 32


def quantize_aware(
    model: keras.Model,
    *,
    weight_bits: int = 8,
    activation_bits: int = 8,
    ranges: str = "moving_average",
    momentum: float = 0.99,
    freeze_after: int | None = None,
    exclude: Sequence[str] = (),
    representative_data: typing.Any = None,
    name: str | None = None,
) -> "QuantizeAwareModel":
    """Returns a model that computes with the rounding of an integer file, to be trained further.

    Kernels are rounded symmetrically, with a step for each output channel:
    `s = max|w| / (2^(b - 1) - 1)`, `w' = round(w / s) s`. Activations are rounded with a step for
    each tensor, where the operators of a .tflite file round: behind fused BatchNormalization and
    ReLU, before softmax, sigmoid, tanh and other activations, behind additions. The gradient passes
    through the rounding. As the steps of a kernel are per output channel, folding
    BatchNormalization into it changes the steps and not the integers: training uses the statistics
    of the batch, and the file has the folded kernel. In inference sums are integers, rounded as
    LiteRT rounds them, so that model and file agree to the last bit where they can.

    `fit`, `Distiller`, sparse optimizers (zeros stay zeros), saving, mixed precision and
    strategies work as with any model. `export_tflite(quantized, path, quantization="int8")` needs
    no data: the ranges are those of the model. `strip_quantization` returns the plain model.

    Args:
        model: A built `keras.Model`; it stays as it is. Layers of a model without a graph are
            rounded each on its own.
        weight_bits: 8, or 4 for convolutions and Dense layers that a file stores in half of the
            bytes.
        activation_bits: 8, or 16 for files of quantization="int16x8".
        ranges: Of activations: "moving_average" of the least and largest value of batches, or
            "learned" by gradients (LSQ), beginning with the average of 20 steps.
        momentum: Of the moving average, in (0, 1]; the first steps have equal weights.
        freeze_after: Steps of training after which the ranges stay; None for never.
        exclude: Names or patterns of layers that stay in float32, in the file too.
        representative_data: Inputs, as `export_tflite` takes them, of which up to 400 give the
            first ranges. Without them the first batches of training do.
        name: The model's name.

    Returns:
        A `QuantizeAwareModel`, not compiled.

    Raises:
        InputError: for arguments outside of these.
        NoMatchError: if no kernel is quantized, or an entry of `exclude` matches nothing.

    What it does not give: rounding inside LayerNormalization, recurrent layers and custom layers,
    which `in_float` of the result names; speed on machines without integer instructions; the last
    bit of multiplications, of activations but ReLU, and of the kernels of other runtimes.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8).astype("float32"), np.random.randint(0, 3, 64)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    quantized = tfpeft.quantize_aware(model)
    quantized.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    quantized.fit(x, y, verbose=0)
    print(tfpeft.export_tflite(quantized, "model.tflite", quantization="int8").int8_share)  # 1.0
    ```

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2017, https://arxiv.org/abs/1712.05877
    """
    _check_model(model)
    check_name(name)
    settings = {
        "weight_bits": weight_bits,
        "activation_bits": activation_bits,
        "ranges": ranges,
        "momentum": momentum,
        "freeze_after": freeze_after,
        "exclude": exclude,
    }
    _check_settings(**settings)
    plan_of(model, exclude)  # errors before the model is copied
    quantized = QuantizeAwareModel(clone.copy_model(model), **settings, name=name)
    if representative_data is not None:
        quantized.calibrate(representative_data)
    return quantized


def _check_model(model):
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)
    if any(isinstance(layer, QuantizeAwareModel) for layer in flatten_layers(model)):
        raise invalid("model", "a model that is not quantise-aware already", model)


def _check_settings(weight_bits, activation_bits, ranges, momentum, freeze_after, exclude):
    check_choice("weight_bits", weight_bits, (8, 4))
    check_choice("activation_bits", activation_bits, (8, 16))
    if (weight_bits, activation_bits) == (4, 16):
        raise unexpected(
            "`weight_bits` of 8 with `activation_bits` of 16, as TFLite has no such operators",
            "weight_bits=4",
        )
    check_choice("ranges", ranges, RANGES)
    check_rate("momentum", momentum)
    if freeze_after is not None:
        check_positive_integer("freeze_after", freeze_after)
        if ranges == "learned":
            raise unexpected('ranges="moving_average" with `freeze_after`', 'ranges="learned"')
    check_exclude(exclude)


def strip_quantization(model: keras.Model) -> keras.Model:
    """Returns the plain model of a quantise-aware one, with the trained weights in float32.

    Args:
        model: A `QuantizeAwareModel`; it stays as it is.

    Returns:
        A new model of the class that was given to `quantize_aware`, uncompiled.

    Raises:
        InputError: for other models.

    What it does not give: weights on the grid of integers; `export_tflite` rounds them.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    quantized = tfpeft.quantize_aware(model)
    plain = tfpeft.strip_quantization(quantized)
    print(np.all(plain.layers[0].kernel == model.layers[0].kernel))  # True
    ```
    """
    if not isinstance(model, QuantizeAwareModel):
        raise invalid("model", "a model that `quantize_aware` returned", model)
    return clone.copy_model(model.model)


@register()
class QuantizeAwareModel(keras.Model):
    """A model that computes with the rounding of an integer file; `quantize_aware` returns it.

    Args:
        model: The model, which becomes part of this one; `quantize_aware` copies it.
        weight_bits: As of `quantize_aware`, and those below.
        activation_bits: 8 or 16.
        ranges: "moving_average" or "learned".
        momentum: Of the moving average.
        freeze_after: Steps after which ranges stay.
        exclude: Layers that stay in float32.
        rounded_inputs: Whether each input is rounded; None to decide it.
        name: The model's name.

    Attributes:
        model: The model, whose kernels are trained in float32.
        in_float: {path of a layer: why it is computed in float32 in an int8 file}.
        quantized: {path of a layer or operation: what is rounded there}.

    Example:

    ```python
    import keras, tfpeft

    inputs = keras.Input((8,))
    hidden = keras.layers.LayerNormalization(name="norm")(keras.layers.Dense(4)(inputs))
    quantized = tfpeft.quantize_aware(keras.Model(inputs, keras.layers.Dense(3)(hidden)))
    print(quantized.in_float)  # {'norm': 'its mean and variance are computed in float32'}
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        *,
        weight_bits: int = 8,
        activation_bits: int = 8,
        ranges: str = "moving_average",
        momentum: float = 0.99,
        freeze_after: int | None = None,
        exclude: Sequence[str] = (),
        rounded_inputs: Sequence[bool] | None = None,
        name: str | None = None,
    ):
        _check_model(model)
        check_name(name)
        _check_settings(weight_bits, activation_bits, ranges, momentum, freeze_after, exclude)
        # In float32, so that kernels are rounded before they are cast.
        super().__init__(name=name or f"{model.name}_quantized", dtype="float32")
        self._settings = {
            "weight_bits": weight_bits,
            "activation_bits": activation_bits,
            "ranges": ranges,
            "momentum": momentum,
            "freeze_after": freeze_after,
            "exclude": list(exclude),
        }
        self.model = model
        self._plan = plan = plan_of(model, exclude, rounded_inputs)
        self.in_float = plan.in_float

        def quantizer(place):
            name = place.replace("/", ".")
            return ActivationQuantizer(activation_bits, ranges, momentum, freeze_after, name)

        inputs = [f"input_{i}" for i, is_rounded in enumerate(plan.rounded_inputs) if is_rounded]
        places = [
            f"{each.path}/{place}" for each in self._plan.placements for place in each.places()
        ]
        self.quantizers = {place: quantizer(place) for place in (*inputs, *places)}
        self._integers = IntegerCalls(plan, self.quantizers, weight_bits, activation_bits)
        self._exporting = False
        self.built = True

    @property
    def quantized(self) -> dict[str, str]:
        """{path of a layer or operation: what is rounded there}."""
        bits, placements = self._settings, self._plan.placements
        kernel, output = (f"in {bits[each]} bits" for each in ("weight_bits", "activation_bits"))
        kernels = {each.path: f"kernel {kernel}" for each in placements if each.kernels}
        outputs = {each.path: f"output {output}" for each in placements if each.output}
        return {
            path: ", ".join(part[path] for part in (kernels, outputs) if path in part)
            for path in (*kernels, *outputs)
        }

    def calibrate(self, data: typing.Any) -> None:
        """Sets the ranges of activations from up to 400 samples, as if they were never set.

        Args:
            data: Inputs, as `representative_data` of `quantize_aware`.
        """
        inputs, samples, _ = inputs_and_samples(self, data, "int8")
        for quantizer in self.quantizers.values():
            quantizer.steps.assign(0.0)
        for arrays in stacked(samples[:_CALIBRATED], fixed_batch_size(self.model) or _BATCH):
            self._run(keras.tree.pack_sequence_as(inputs, arrays), False, self._observed)

    def call(self, inputs, training=None):
        rounded = functools.partial(ActivationQuantizer.__call__, training=bool(training))
        return self._run(inputs, training, rounded, exact=not training)

    def compute_output_spec(self, inputs, training=None):
        return self.model.compute_output_spec(inputs, training=training)

    def _observed(self, quantizer, x):
        quantizer.observe(tf.cast(x, "float32"))
        return quantizer(x)

    def _run(self, inputs, training, rounded, exact=False):
        """Returns the outputs of the model with rounded kernels, and activations as `rounded`."""
        rounded = self._marked if self._exporting else rounded

        def at(placement, place, x):
            if place == "gate":
                return self._rounded_in(kinds.FIXED_RANGES["sigmoid"], x)
            if place == "output" and placement.fixed is not None:
                return self._rounded_in(placement.fixed, x)
            quantizer = self.quantizers[placement.place(place)]
            follows = place == "output" and placement.follows and not self._exporting
            return quantizer(x, training=False) if follows else rounded(quantizer, x)

        flat = keras.tree.flatten(inputs)
        for i, is_rounded in enumerate(self._plan.rounded_inputs):
            # A model without a graph may read integers.
            if is_rounded and "float" in keras.backend.standardize_dtype(flat[i].dtype):
                flat[i] = rounded(self.quantizers[f"input_{i}"], flat[i])
        with self._computing(at, exact):
            return self.model(keras.tree.pack_sequence_as(inputs, flat), training=training)

    def _computing(self, at, exact):
        bits = self._settings["weight_bits"]
        if self._exporting:
            return deploying(self._plan, bits, at)
        placements = self._plan.placements
        kernels = {
            id(variable): fake_quant_weights(tf.convert_to_tensor(variable), axes, bits)
            for each in placements
            if each.kernels
            for variable, axes in kinds.kernels_of(each.operation)
        }

        def states(placement):
            found = [self.quantizers[f"{placement.path}/{place}"] for place in placement.places()]
            return [variable for quantizer in found for variable in quantizer.variables]

        return rounding(placements, kernels, at, states, self._integers if exact else None)

    def _rounded_in(self, fixed, x):
        if self._exporting:
            return _mark(x, fixed)
        bits = self._settings["activation_bits"]
        fixed = kinds.FIXED_RANGE_OF_16_BITS if bits == 16 else fixed
        return tf.cast(fake_quant(tf.cast(x, "float32"), *fixed, bits), x.dtype)

    def _marked(self, quantizer, x):
        with tf.init_scope():
            low, high = quantizer.deployed_range()
        if self._settings["activation_bits"] == 16:
            high *= 127 / 128  # a mark has 256 steps: so its least value stays as it is
        return _mark(x, (low, high))

    @contextlib.contextmanager
    def exporting(self):
        """A context in which the model is traced for a file.

        Kernels are constants on their grid. Activations pass through operators that mark their
        ranges, which `export_tflite` reads.
        """
        if not any(quantizer.has_range() for quantizer in self.quantizers.values()):
            next(iter(self.quantizers.values())).deployed_range()  # raises
        self._exporting = True
        try:
            yield
        finally:
            self._exporting = False

    @property
    def export_settings(self) -> dict[str, typing.Any]:
        """What `export_tflite` has to know: bits, and the layers that stay in float32, and why."""
        bits = {key: self._settings[key] for key in ("weight_bits", "activation_bits")}
        excluded = [path for path, why in self.in_float.items() if why.startswith("excluded")]
        patterns = [f"*{self.model.name}/{path}" for path in excluded]
        return {**bits, "float_layers": patterns, "in_float": self.in_float}

    @property
    def input_structure(self):
        """Symbolic inputs in the structure that the model is called with, or None."""
        return input_structure(self.model)

    @property
    def output_structure(self):
        """Symbolic outputs in their structure, or None."""
        return output_structure(self.model)

    @property
    def input_shape(self):
        return self.model.input_shape

    @property
    def output_shape(self):
        return self.model.output_shape

    def get_config(self) -> dict[str, typing.Any]:
        model = keras.saving.serialize_keras_object(self.model)
        own = {"rounded_inputs": self._plan.rounded_inputs, "name": self.name}
        return {"model": model, **self._settings, **own}

    @classmethod
    def from_config(cls, config: dict[str, typing.Any], custom_objects=None):
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        return cls(deserialize(config.pop("model"), custom_objects=custom_objects), **config)


def _mark(x, deployed):
    """Marks the range of an activation, on whatever grid it is rounded."""
    low, high = map(float, deployed)
    return tf.quantization.fake_quant_with_min_max_args(tf.cast(x, "float32"), low, high)
