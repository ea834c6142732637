"""Embeddings of a float .tflite file as EMBEDDING_LOOKUP, which takes tables of 4 bits."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.file_writing import to_bytes

_INT32, _INT64 = schema.TensorType.INT32, schema.TensorType.INT64
_FLOAT32 = schema.TensorType.FLOAT32


def with_embedding_lookups(content):
    """Returns the bytes of a file whose GATHER of rows of constant tables are EMBEDDING_LOOKUP.

    TensorFlow's converter writes an Embedding as GATHER, whose table no quantizer stores in fewer
    than 8 bits. EMBEDDING_LOOKUP reads a list of rows, so the indices become a list before it, and
    the rows get the sides of the indices after it.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    for graph in model.subgraphs:
        editor = _Editor(model, graph)
        operators = []
        for op in graph.operators or []:
            operators += editor.lookup(op) if editor.is_lookup(op) else [op]
        graph.operators = operators
    return to_bytes(model)


class _Editor:
    """Adds tensors and operators to one graph."""

    def __init__(self, model, graph):
        self._model, self._graph = model, graph
        self._made = {tensor for op in graph.operators or [] for tensor in op.outputs}

    def is_lookup(self, op):
        """Whether an operator reads whole rows of a constant table of floats."""
        code = self._model.operatorCodes[op.opcodeIndex]
        gather = schema.BuiltinOperator.GATHER
        if gather not in (code.builtinCode, code.deprecatedBuiltinCode):
            return False
        options = op.builtinOptions
        table, indices = (self._graph.tensors[tensor] for tensor in op.inputs)
        is_constant = op.inputs[0] not in self._made and op.inputs[0] not in self._graph.inputs
        return bool(
            is_constant
            and (options is None or (options.axis == 0 and options.batchDims == 0))
            and table.type == _FLOAT32
            and indices.type in (_INT32, _INT64)
            and len(table.shape) == 2
        )

    def lookup(self, op):
        """Returns the operators that do the same as a GATHER."""
        table, indices = (self._graph.tensors[tensor] for tensor in op.inputs)
        (output,) = op.outputs
        name = self._graph.tensors[output].name.decode()
        width = int(table.shape[1])
        is_fixed = indices.shapeSignature is None or not len(indices.shapeSignature)
        outer = list(map(int, indices.shape if is_fixed else indices.shapeSignature))
        rows, operators = op.inputs[1], []
        if indices.type == _INT64:
            rows = self._tensor(f"{name}/cast", _INT32, outer)
            cast = schema.CastOptionsT(inDataType=_INT64, outDataType=_INT32)
            operators.append(self._operator("CAST", [op.inputs[1]], rows, cast))
        as_list = self._constant(f"{name}/list", [-1])
        listed = self._tensor(f"{name}/listed", _INT32, [-1])
        found = self._tensor(f"{name}/found", _FLOAT32, [-1, width])
        operators += [
            self._operator("RESHAPE", [rows, as_list], listed),
            self._operator("EMBEDDING_LOOKUP", [listed, op.inputs[0]], found),
        ]
        if outer.count(-1) < 2:
            shape = self._constant(f"{name}/sides", [*outer, width])
        else:  # the sides are known when the file runs
            first = self._tensor(f"{name}/outer", _INT32, [len(outer)])
            last = self._constant(f"{name}/width", [width])
            shape = self._tensor(f"{name}/sides", _INT32, [len(outer) + 1])
            of_type, joined = schema.ShapeOptionsT(outType=_INT32), schema.ConcatenationOptionsT()
            operators += [
                self._operator("SHAPE", [rows], first, of_type),
                self._operator("CONCATENATION", [first, last], shape, joined),
            ]
        return [*operators, self._operator("RESHAPE", [found, shape], output)]

    def _tensor(self, name, dtype, signature, buffer=0):
        tensor = schema.TensorT(
            shape=[abs(side) for side in signature],
            shapeSignature=signature,
            type=dtype,
            buffer=buffer,
            name=name.encode(),
            hasRank=True,
        )
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def _constant(self, name, values):
        data = np.array(values, "<i4").view(np.uint8)
        self._model.buffers.append(schema.BufferT(data=data))
        return self._tensor(name, _INT32, [len(values)], len(self._model.buffers) - 1)

    def _operator(self, name, inputs, output, options=None):
        kind = "NONE" if options is None else type(options).__name__.removesuffix("T")
        return schema.OperatorT(
            opcodeIndex=self._code(getattr(schema.BuiltinOperator, name)),
            inputs=inputs,
            outputs=[output],
            builtinOptionsType=getattr(schema.BuiltinOptions, kind),
            builtinOptions=options,
        )

    def _code(self, builtin):
        """Returns the number of an operator code, which is added if the file has none."""
        codes = self._model.operatorCodes
        for i, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin:
                return i
        codes.append(schema.OperatorCodeT(min(builtin, 127), builtinCode=builtin))
        return len(codes) - 1
