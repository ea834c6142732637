"""Bad inputs of export, of .tflite files, and of what is measured on them."""

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x

INPUTS = (
    *(value for value in values.INPUTS if "endless" not in repr(value)),
    Made("{'no_such_input': x}", lambda: {"no_such_input": x()}),
    Made("[x, x] for one input", lambda: [x(), x()]),
)
"""Not inputs of `models.dense()`."""


def folder_of_files():
    folder = models.folder("given_folder")
    models.text_file(f"{folder}/notes.txt")
    return folder


def exported(model, data=None, **options):
    if data is not None:
        options = {"quantization": "int8", "representative_data": data, **options}
    return tfpeft.export_tflite(model, "model.tflite", **options)


def constant():
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.ops.erfinv(inputs))


def of_export():
    return [
        *bad_arguments(
            "export_tflite",
            tfpeft.export_tflite,
            lambda: {"model": models.dense(), "path": "model.tflite"},
            {
                "model": (*values.MODEL, *values.UNBUILT),
                "path": (*values.PATH, values.DIRECTORY),
                "quantization": (*values.CHOICE, "int4", None, "INT8"),
                "batch_size": (0, -1, 1.5, NAN, "8", True, 2**70),
                "input_type": (*values.CHOICE, None, "int4", "int8", "uint8", "int16", "float16"),
                "output_type": (*values.CHOICE, None, "int8", "uint8", "int16"),
                "sparse": (None, 1, "yes", [], NAN),
                "labels": (3, "ab", [], [1, 2], ["a"], [""], {"no_such_output": ["a"]}, [None]),
                "input_scaling": (3, "ab", (0, 0), (1,), (0, -1), (NAN, 1), {"no": (0, 1)}, ()),
                "ranges": (*values.CHOICE, "minmax", None, "percentile"),
                "equalize": (*values.FLAG, True),
                "correct_bias": (*values.FLAG, True),
            },
        ),
        *bad_arguments(
            "export_tflite(quantization='int8')",
            tfpeft.export_tflite,
            lambda: {"model": models.dense(), "path": "model.tflite", "quantization": "int8"},
            {"representative_data": (None, *INPUTS)},
        ),
        *bad_arguments(
            "export_saved_model",
            tfpeft.export_saved_model,
            lambda: {"model": models.dense(), "path": "saved"},
            {
                "model": (*values.MODEL, *values.UNBUILT),
                "path": (*values.PATH, values.FILE, Made("a folder of files", folder_of_files)),
                "representative_data": INPUTS,
            },
        ),
        *bad_arguments(
            "export_onnx",
            tfpeft.export_onnx,
            lambda: {"model": models.dense(), "path": "model.onnx"},
            {
                "model": (*values.MODEL, *values.UNBUILT),
                "path": (*values.PATH, values.DIRECTORY, "model.tflite"),
                "representative_data": INPUTS,
            },
        ),
        Case(
            "export_saved_model(a model with NaN weights)",
            lambda: tfpeft.export_saved_model(models.not_finite(), "saved"),
            ("NaN", "finite", "model"),
        ),
        Case(
            "export_onnx(an operator that ONNX lacks)",
            lambda: tfpeft.export_onnx(constant(), "model.onnx"),
            ("rfinv",),
        ),
        Case(
            "export_tflite(a model with NaN weights)",
            lambda: exported(models.not_finite()),
            ("NaN", "finite", "model"),
        ),
        Case(
            "export_tflite(a model with infinite weights, int8)",
            lambda: exported(models.not_finite(float("inf")), x()),
            ("NaN", "finite", "model", "infinit"),
        ),
        Case(
            "export_tflite(an operator that TFLite lacks)", lambda: exported(constant()), ("rfinv",)
        ),
    ]


def opened(content, use=lambda file: file.predict(x())):
    return use(tfpeft.TFLiteFile(models.file("given.tflite", content)))


def of_files():
    good = models.tflite_bytes()
    cases = bad_arguments(
        "TFLiteFile",
        tfpeft.TFLiteFile,
        dict,
        {"path": (*values.PATH, "no_such.tflite", values.DIRECTORY, values.FILE)},
    )
    for words, content in models.damaged(good).items():
        cases.append(
            Case(
                f"TFLiteFile({words}).predict(x)",
                lambda content=content: opened(content),
                ("given.tflite",),
            )
        )
    uses = {"contents": lambda file: file.contents, "macs()": lambda file: file.macs()}
    for name, use in uses.items():
        cases.append(
            Case(
                f"TFLiteFile(cut off).{name}",
                lambda use=use: opened(good[: len(good) // 2], use),
                ("given.tflite",),
            )
        )

    def predict(**arguments):
        return opened(good, lambda file: file.predict(**arguments))

    return [
        *cases,
        *bad_arguments(
            "TFLiteFile.predict",
            predict,
            lambda: {"x": x()},
            {
                "x": (
                    *(None, 3, "data", print, {}, []),
                    Made("x of another width", lambda: np.ones((4, 5), "float32")),
                    Made("x without a batch", lambda: np.ones(6, "float32")),
                    Made("x of text", lambda: x().astype(str)),
                    Made("x of objects", lambda: np.full((4, 6), None)),
                    Made("complex x", lambda: x().astype("complex64")),
                    Made("{'no_such_input': x}", lambda: {"no_such_input": x()}),
                    Made("[x, x] for one input", lambda: [x(), x()]),
                    Made("ragged lists", lambda: [[1.0, 2.0], [3.0]]),
                ),
                "batch_size": (0, -1, 1.5, NAN, "8", None, True),
            },
        ),
        *bad_arguments(
            "TFLiteFile.prepare",
            lambda x: opened(good, lambda file: file.prepare(x)),
            dict,
            {
                "x": (
                    *(None, 3, "data", []),
                    Made("x of another width", lambda: np.ones((1, 5), "float32")),
                )
            },
        ),
    ]


def described(content, target=None):
    return tfpeft.describe_tflite(models.file("given.tflite", content), target)


def of_devices():
    good = models.tflite_bytes()
    paths = (*values.PATH, "no_such.tflite", values.DIRECTORY, values.FILE)
    cases = [
        *bad_arguments("describe_tflite", tfpeft.describe_tflite, dict, {"path": paths}),
        *bad_arguments(
            "describe_tflite",
            lambda target: described(good, target),
            dict,
            {"target": (*values.CHOICE, "tflite-micro", "ethos-u55", "ethos-u55-512")},
        ),
        *bad_arguments("export_c_array", tfpeft.export_c_array, dict, {"path": paths}),
        *bad_arguments(
            "export_c_array",
            lambda **arguments: tfpeft.export_c_array(
                models.file("given.tflite", good), **arguments
            ),
            dict,
            {
                "c_path": (3, "", "model.h", "model.txt", "model", values.DIRECTORY),
                "name": (3, "", "1st", "a-b", "a b", "int", "class", [], True),
            },
        ),
        Case(
            "describe_tflite(a file of floats, an Ethos-U)",
            lambda: described(good, "ethos-u55-128"),
            ("given.tflite", "ethos-u-vela"),
        ),
    ]
    for words, content in models.damaged(good).items():
        for target in (None, "xnnpack"):
            cases.append(
                Case(
                    f"describe_tflite({words}, {target})",
                    lambda content=content, target=target: described(content, target),
                    ("given.tflite",),
                )
            )
    return cases


def of_error():
    return bad_arguments(
        "quantization_error",
        tfpeft.quantization_error,
        lambda: {"model": models.dense(), "data": x()},
        {
            "model": (*values.MODEL, *values.UNBUILT),
            "data": (None, *(value for value in values.INPUTS if "endless" not in repr(value))),
        },
    )


def cases():
    return [*of_export(), *of_files(), *of_devices(), *of_error()]
