"""Labels and input scaling in a .tflite file, in TFLite's metadata format, which tools read.

The format is a flatbuffer of its own inside the file, and the labels as text files in a ZIP archive
behind it. LiteRT reads neither. Numbers of fields are those of `metadata_schema.fbs` 1.0.
"""

import io
import zipfile

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import encode, number_types, packer
from flatbuffers.table import Table

from tfpeft.export.file_writing import to_bytes

_NAME = "TFLITE_METADATA"
_IDENTIFIER, _PARSER_VERSION = b"M001", "1.0.0"
_MODEL_GRAPHS, _MODEL_FILES, _MODEL_PARSER = 3, 6, 7
_GRAPH_INPUTS, _GRAPH_OUTPUTS = 2, 3
_TENSOR_UNITS, _TENSOR_FILES = 4, 6
_FILE_TYPE = 2
_AXIS_LABELS, _NORMALIZATION = 2, 1
_ANY_NAME = 0


def with_metadata(content, labels, scaling):
    """Returns the bytes of a file with labels and input scaling.

    Args:
        content: The bytes of a file whose signatures have names.
        labels: {signature: {output: labels}}.
        scaling: {input: (means, standard deviations)}, of all signatures.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    files, graphs = {}, [{} for _ in model.subgraphs]
    for signature in model.signatureDefs:
        name, graph = signature.signatureKey.decode(), model.subgraphs[signature.subgraphIndex]
        inputs, outputs = _names(signature.inputs), _names(signature.outputs)
        graphs[signature.subgraphIndex] = {
            _ANY_NAME: name,
            _GRAPH_INPUTS: [_input(inputs[t], scaling) for t in graph.inputs],
            _GRAPH_OUTPUTS: [
                _output(outputs[t], labels.get(name, {}), files, labels) for t in graph.outputs
            ],
        }
    described = {_MODEL_GRAPHS: graphs, _MODEL_PARSER: _PARSER_VERSION}
    builder = flatbuffers.Builder(1024)
    builder.Finish(_written(builder, described), _IDENTIFIER)
    entry, buffer = schema.MetadataT(), schema.BufferT()
    buffer.data = np.frombuffer(bytes(builder.Output()), np.uint8)
    entry.name, entry.buffer = _NAME, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    archive = io.BytesIO(to_bytes(model))
    if files:
        with zipfile.ZipFile(archive, "a") as zipped:
            for name, lines in files.items():
                # Without the date, so that equal models give equal files.
                zipped.writestr(zipfile.ZipInfo(name), "\n".join(lines) + "\n")
    return archive.getvalue()


def _names(tensors):
    return {entry.tensorIndex: entry.name.decode() for entry in tensors}


def _input(name, scaling):
    tensor = {_ANY_NAME: name}
    if name in scaling:
        mean, std = scaling[name]
        options = {0: np.asarray(mean, np.float32), 1: np.asarray(std, np.float32)}
        tensor[_TENSOR_UNITS] = [{0: _NORMALIZATION, 1: options}]
    return tensor


def _output(name, of_signature, files, labels):
    """Returns the fields of an output; its labels go into `files`, {name: lines}."""
    tensor = {_ANY_NAME: name}
    if name in of_signature:
        several = sum(map(len, labels.values())) > 1
        file = f"labels_{len(files)}.txt" if several else "labels.txt"
        files[file] = of_signature[name]
        tensor[_TENSOR_FILES] = [{_ANY_NAME: file, _FILE_TYPE: _AXIS_LABELS}]
    return tensor


def read_metadata(model, content):
    """Returns {signature: ({output: labels}, {input: (means, standard deviations)})}.

    Args:
        model: A parsed file, a `schema.ModelT`.
        content: Its bytes.
    """
    entries = [entry for entry in model.metadata or [] if entry.name.decode() == _NAME]
    if not entries:
        return {}
    root = _root(bytearray(model.buffers[entries[0].buffer].data.tobytes()))
    archive = io.BytesIO(content)
    zipped = zipfile.ZipFile(archive) if zipfile.is_zipfile(archive) else None
    graphs, found = _tables(root, _MODEL_GRAPHS), {}
    for signature in model.signatureDefs or []:
        index = signature.subgraphIndex
        if index >= len(graphs):
            continue
        graph, described = model.subgraphs[index], graphs[index]
        inputs = zip(graph.inputs, _tables(described, _GRAPH_INPUTS), strict=False)
        outputs = zip(graph.outputs, _tables(described, _GRAPH_OUTPUTS), strict=False)
        names = _names([*signature.inputs, *signature.outputs])
        labels = {names[t]: _labels(tensor, zipped) for t, tensor in outputs}
        scaling = {names[t]: _scaling(tensor) for t, tensor in inputs}
        found[signature.signatureKey.decode()] = _present(labels), _present(scaling)
    return found


def _present(values):
    return {name: value for name, value in values.items() if value is not None}


def _labels(tensor, zipped):
    """Returns the labels of an output; None if it has none."""
    for file in _tables(tensor, _TENSOR_FILES):
        if _integer(file, _FILE_TYPE) == _AXIS_LABELS and zipped is not None:
            text = zipped.read(_text(file, _ANY_NAME)).decode()
            return tuple(text.removesuffix("\n").split("\n"))
    return None


def _scaling(tensor):
    """Returns the means and standard deviations of an input; None if it has none."""
    for unit in _tables(tensor, _TENSOR_UNITS):
        if _integer(unit, 0) == _NORMALIZATION:
            options = Table(unit.Bytes, unit.Indirect(unit.Pos + _offset(unit, 1)))
            return tuple(_floats(options, slot) for slot in (0, 1))
    return None


# A table is a dict {number of a field: value} when it is written, and a `Table` when it is read.


def _written(builder, fields):
    """Writes a table and all in it; returns its place."""
    places = {number: _written_value(builder, value) for number, value in fields.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for number, place in places.items():
        if isinstance(fields[number], int):
            builder.PrependInt8Slot(number, fields[number], 0)
        else:
            builder.PrependUOffsetTRelativeSlot(number, place, 0)
    return builder.EndObject()


def _written_value(builder, value):
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, dict):
        return _written(builder, value)
    if isinstance(value, np.ndarray):
        return builder.CreateNumpyVector(value)
    if isinstance(value, int):
        return None
    tables = [_written(builder, fields) for fields in value]
    builder.StartVector(4, len(tables), 4)
    for place in reversed(tables):
        builder.PrependUOffsetTRelative(place)
    return builder.EndVector()


def _root(buffer):
    return Table(buffer, encode.Get(packer.uoffset, buffer, 0))


def _offset(table, number):
    """Returns the place of a field in a table, 0 if the table does not have it."""
    return table.Offset(4 + 2 * number)


def _tables(table, number):
    offset = _offset(table, number)
    if not offset:
        return []
    start = table.Vector(offset)
    return [
        Table(table.Bytes, table.Indirect(start + 4 * i)) for i in range(table.VectorLen(offset))
    ]


def _text(table, number):
    return table.String(table.Pos + _offset(table, number)).decode()


def _integer(table, number):
    offset = _offset(table, number)
    return table.Get(number_types.Int8Flags, table.Pos + offset) if offset else 0


def _floats(table, number):
    offset = _offset(table, number)
    values = table.GetVectorAsNumpy(number_types.Float32Flags, offset) if offset else []
    return tuple(map(float, values))
