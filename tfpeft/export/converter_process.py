"""The program of the process in which TensorFlow's converter runs; it imports nothing of tfpeft.

The converter is one C++ library. Importing all of TensorFlow takes seconds, this library a fraction
of one: so the package `tensorflow` is here a bare one, of which only that library is loaded.
"""

import importlib
import multiprocessing.connection
import resource
import signal
import sys
import types

import numpy as np

LIBRARY = "PyFunctionLibrary"
"""Stands for TensorFlow's library of Python functions, which cannot be sent."""


def quantize_to_int16(content, input_type, output_type):
    """Returns a file of int8 weights and int16 activations, of a float file with ranges."""
    wrapper = importlib.import_module(
        "tensorflow.lite.python.optimize._pywrap_tensorflow_lite_calibration_wrapper"
    )
    types = [np.dtype(name).num for name in (input_type, output_type, "int16", "int64")]
    allow_float = disable_per_channel = disable_per_channel_in_dense = False
    arguments = (*types[:2], allow_float, *types[2:], disable_per_channel)
    quantizer = wrapper.CalibrationWrapper(content, [], [])
    try:
        return quantizer.QuantizeModel(*arguments, disable_per_channel_in_dense)
    except TypeError:  # TensorFlow 2.18 does not have the last one
        return quantizer.QuantizeModel(*arguments)


_OWN = {"quantize_to_int16": quantize_to_int16}


def serve(connection):
    """Calls the functions that are named on a connection, until it is closed.

    The first message is (`sys.path`, the folders of TensorFlow). Then each is (function,
    arguments), and is replied to with (result, None) or (None, text of the error).
    """
    sys.path[:], folders = connection.recv()
    tensorflow = types.ModuleType("tensorflow")
    tensorflow.__path__ = folders
    sys.modules["tensorflow"] = tensorflow
    importlib.import_module("tensorflow.python.pywrap_tensorflow")
    converter = importlib.import_module(
        "tensorflow.compiler.mlir.lite.python._pywrap_converter_api"
    )
    functions = importlib.import_module(
        "tensorflow.compiler.mlir.quantization.tensorflow.python.pywrap_function_lib"
    )
    library = functions.PyFunctionLibrary()
    while True:
        try:
            name, arguments = connection.recv()
        except EOFError:
            return
        function = _OWN.get(name) or getattr(converter, name)
        arguments = [library if argument == LIBRARY else argument for argument in arguments]
        try:
            reply = function(*arguments), None
        except Exception as error:
            reply = None, str(error)
        connection.send(reply)


if __name__ == "__main__":
    # Ctrl-C is for the process that started this one, which then closes the connection.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no file
    serve(multiprocessing.connection.Connection(int(sys.argv[1])))
