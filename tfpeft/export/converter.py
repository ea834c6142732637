"""TensorFlow's converter and quantizer in a process of their own, as they leak memory and crash."""

import atexit
import contextlib
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading

import tensorflow as tf
from tensorflow.compiler.mlir.lite.python import wrap_converter
from tensorflow.lite.python import convert as tflite_convert

from tfpeft.core.arguments import shortened
from tfpeft.export.converter_process import LIBRARY

_CALLS = 50
"""Calls after which the process is replaced: the converter may leak 20 MB in each."""
CRASHED = "the converter of TensorFlow ended its process"
"""How the text of the error begins, which TensorFlow puts into errors of its own."""
_SENT = (bytes, str, bool, int, float, type(None), list, tuple, set)


class _Process:
    """One process of the converter; it ends with the process that made it."""

    def __init__(self):
        self._connection, theirs = multiprocessing.Pipe()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        program = pathlib.Path(__file__).with_name("converter_process.py")
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(program), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._log,
                stderr=self._log,
            )
        self._owner, self._calls = os.getpid(), 0
        with contextlib.suppress(OSError):  # it has ended, as the first call finds
            self._connection.send((sys.path, list(tf.__path__)))

    def is_own(self):
        """Whether this process made it; a fork has a copy of the object only."""
        return self._owner == os.getpid()

    def is_usable(self):
        """Whether the next call can use it."""
        return self.is_own() and self._calls < _CALLS and self._process.poll() is None

    def call(self, function, arguments):
        """Returns what a function of the converter returns.

        Raises:
            RuntimeError: if it raises.
            EOFError: if the process ends.
        """
        self._calls += 1
        self._log.seek(0)
        self._log.truncate()
        try:
            self._connection.send((function, arguments))
            result, error = self._connection.recv()
        except (EOFError, OSError) as error:
            code = self._process.wait()
            how = signal.Signals(-code).name if code < 0 else f"exit status {code}"
            text = f"{CRASHED} with {how}{self._last_words()}"
            raise EOFError(text) from error
        if error is not None:
            raise RuntimeError(error)
        return result

    def _last_words(self):
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        fatal = [line for line in lines if line.startswith("F") or "Error" in line]
        return f": {shortened(fatal[-1], 300)}" if fatal else ""

    def end(self):
        """Ends the process, also within a call."""
        self._connection.close()
        self._log.close()
        self._process.kill()
        self._process.wait()


class _Converter:
    """The functions of TensorFlow's C++ converter, which run in a process that is kept."""

    def __init__(self):
        self._lock, self._process = threading.RLock(), None

    def start(self):
        """Starts the process; it loads the converter while this one does other things."""
        with self._lock:
            if self._process is None or not self._process.is_usable():
                self.end()
                self._process = _Process()

    def end(self):
        """Ends the process."""
        with self._lock:
            process, self._process = self._process, None
            if process is not None and process.is_own():
                process.end()

    def call(self, function, arguments):
        """Returns what a function of the converter returns; see `_Process.call`."""
        with self._lock:
            self.start()
            try:
                return self._process.call(function, arguments)
            except RuntimeError:
                raise
            except BaseException:  # of a crash, or of Ctrl-C within a call
                self.end()
                raise

    def __getattr__(self, function):
        def call(*arguments):
            return self.call(function, [a if isinstance(a, _SENT) else LIBRARY for a in arguments])

        return call

    @contextlib.contextmanager
    def in_place(self):
        """A context in which TensorFlow's Python calls these functions instead of its own."""
        with self._lock:
            library = wrap_converter._pywrap_converter_api
            wrap_converter._pywrap_converter_api = self
            try:
                yield
            finally:
                wrap_converter._pywrap_converter_api = library


_converter = _Converter()
atexit.register(_converter.end)


def start_converter():
    """Starts the process of the converter, as importing it takes half a second."""
    _converter.start()


def convert_saved_model(folder, names, **flags):
    """Returns the bytes of a .tflite file of a SavedModel.

    Args:
        folder: The SavedModel.
        names: Its signatures.
        **flags: As TensorFlow's `build_conversion_flags` takes them.

    Raises:
        ConverterError: of TensorFlow, also if the converter ends its process.
    """
    with _converter.in_place():
        content = tflite_convert.convert_saved_model(
            saved_model_dir=folder,
            saved_model_version=1,
            saved_model_tags={tf.saved_model.SERVING},
            saved_model_exported_names=names,
            # Never SELECT_TF_OPS: such a file converts, and then does not load on a phone.
            target_ops={tf.lite.OpsSet.TFLITE_BUILTINS},
            enable_composite_direct_lowering=True,
            **flags,
        )
    # Signatures share their weights.
    return tflite_convert.deduplicate_readonly_buffers(content)


def quantize(content, **options):
    """Returns the bytes of a float file with ranges, quantized; see `mlir_quantize`."""
    with _converter.in_place():
        content = tflite_convert.mlir_quantize(content, **options)
    return tflite_convert.deduplicate_readonly_buffers(content)


def sparsify(content):
    """Returns the bytes of a file whose constants of many zeros are encoded as sparse ones."""
    with _converter.in_place():
        return tflite_convert.mlir_sparsify(content)


def quantize_to_int16(content, input_type, output_type):
    """Returns the bytes of a float file with ranges, with int8 weights and int16 activations.

    TensorFlow has this in its older quantizer only, which otherwise measures the ranges itself.
    """
    content = _converter.call("quantize_to_int16", [content, input_type, output_type])
    return tflite_convert.deduplicate_readonly_buffers(content)
