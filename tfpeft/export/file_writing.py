"""A parsed .tflite file as bytes: buffers aligned, equal zero points and scales stored once."""

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_ALIGNMENT = 16  # bytes, of buffers, as TFLite's schema asks for it


def to_bytes(model):
    """Returns the bytes of a `schema.ModelT`."""
    builder = _Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def repacked(content):
    """Returns the bytes of a file as `to_bytes` writes them.

    A kernel with a scale per output channel has as many zero points, all 0, of 8 bytes each: more
    than a twentieth of a small int8 file. Here they are in the file once.
    """
    return to_bytes(schema.ModelT.InitFromPackedBuf(content))


def compacted(content):
    """Returns the bytes of a file without the names of its inner tensors.

    Inputs and outputs keep theirs.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    for graph in model.subgraphs:
        kept = {int(tensor) for tensor in (*graph.inputs, *graph.outputs)}
        for index, tensor in enumerate(graph.tensors):
            if index not in kept:
                tensor.name = None
            if tensor.quantization is not None:  # what the converter read, and runs do not
                tensor.quantization.min = tensor.quantization.max = None
    return to_bytes(model)


class _Builder(flatbuffers.Builder):
    """Writes vectors of NumPy arrays: bytes aligned; zero points and scales once.

    Not those of int32, as the lists of inputs are put in order where they stand.
    """

    def __init__(self, size):
        super().__init__(size)
        self._written = {}

    def CreateNumpyVector(self, x):  # noqa: N802, the name of the base class
        if x.dtype == np.uint8:
            self.Prep(_ALIGNMENT, x.nbytes)
            return super().CreateNumpyVector(x)
        if x.dtype not in (np.int64, np.float32):
            return super().CreateNumpyVector(x)
        key = x.dtype.str, x.tobytes()
        if key not in self._written:
            self._written[key] = super().CreateNumpyVector(x)
        return self._written[key]
