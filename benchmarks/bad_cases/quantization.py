"""Bad inputs of quantise-aware training and its files."""

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import x

BITS = (*values.NOT_A_NUMBER, 0, -8, 7, 2.0, True, None)
NO_KERNEL = Made("a model without kernels", lambda: _of(keras.layers.ReLU()))
ALREADY = Made("a quantise-aware model", lambda: tfpeft.quantize_aware(models.dense()))
BY_KERAS = Made("a model that Keras quantized", lambda: _quantized_by_keras())


def _of(*layers):
    return keras.Sequential([keras.Input((6,)), *layers])


def _quantized_by_keras():
    model = _of(keras.layers.Dense(3))
    model.quantize("int8")
    return model


def _aware():
    return tfpeft.quantize_aware(models.dense(), representative_data=x())


def of_selection():
    def selected(**arguments):
        return tfpeft.quantize_selectively(**{"path": "model.tflite", **arguments})

    return bad_arguments(
        "quantize_selectively",
        selected,
        lambda: {"model": models.dense(), "data": (x(), values.y()), "metric": "accuracy"},
        {
            "model": (*values.MODEL, *values.UNBUILT, ALREADY),
            "data": (
                *values.LABELLED,
                Made("(x, y, weights)", lambda: (x(), values.y(), np.ones(16))),
            ),
            "metric": (
                *(None, 3, "nonsense", "", [], True, keras.metrics.AUC),
                Made("a function of another result", lambda: keras.metrics.mean_squared_error),
            ),
            "mode": (*values.CHOICE, "auto"),
            "tolerance": (*values.NOT_A_NUMBER, values.INF, -0.1, True, None),
            "path": (*values.PATH, values.DIRECTORY),
            "representative_data": tuple(
                value for value in values.INPUTS if "endless" not in repr(value)
            ),
        },
    )


def cases():
    settings = {
        "weight_bits": (*BITS, 16),
        "activation_bits": (*BITS, 4),
        "ranges": values.CHOICE,
        "momentum": values.RATE,
        "freeze_after": values.COUNT[:-1],
        "exclude": values.NAMES,
        "name": (3, "", "a/b", True),
    }
    return [
        *of_selection(),
        *bad_arguments(
            "quantize_aware",
            tfpeft.quantize_aware,
            lambda: {"model": models.dense()},
            {
                "model": (*values.MODEL, *values.UNBUILT, NO_KERNEL, ALREADY, BY_KERAS),
                "representative_data": (
                    3,
                    "data",
                    [],
                    {},
                    np.ones((4, 7)),
                    np.full((4, 6), np.nan),
                ),
                **settings,
            },
        ),
        *bad_arguments(
            "QuantizeAwareModel",
            tfpeft.QuantizeAwareModel,
            lambda: {"model": models.dense()},
            {"model": (*values.MODEL, *values.UNBUILT, NO_KERNEL), **settings},
        ),
        *bad_arguments(
            "strip_quantization",
            tfpeft.strip_quantization,
            lambda: {"model": ALREADY.make()},
            {"model": (*values.MODEL, *values.UNBUILT, Made("a plain model", models.dense))},
        ),
        *bad_arguments(
            "export_tflite, quantise-aware",
            lambda **options: tfpeft.export_tflite(_aware(), "model.tflite", **options),
            lambda: {"quantization": "int8"},
            {"quantization": ("none", "float16", "dynamic_range", "int16x8", "int4", None)},
        ),
        Case(
            "export_tflite(a quantise-aware model that has seen nothing)",
            lambda: tfpeft.export_tflite(ALREADY.make(), "model.tflite", quantization="int8"),
            ("representative_data",),
        ),
    ]
