"""One signature of an opened .tflite file: its inputs and outputs, and running it."""

import keras
import numpy as np

from tfpeft.core.arguments import unexpected


class Signature:
    """What an interpreter runs for one signature of its file.

    Args:
        interpreter: An interpreter of the file.
        path: The file, for errors.
        name: The signature; None for a file that has none.

    Attributes:
        name: As above.
        graph: Index of the subgraph.
        inputs: {name: shape}; -1 is a free side.
        outputs: The same of the outputs. Where a file has no signature, names are indices.
        batch: The batch size that the file insists on; None if it is free.
    """

    def __init__(self, interpreter, path, name):
        self.name = name
        self._interpreter, self._path = interpreter, path
        if name is None:
            self.graph = 0
            self._inputs = dict(enumerate(interpreter.get_input_details()))
            self._outputs = dict(enumerate(interpreter.get_output_details()))
        else:
            runner = interpreter.get_signature_runner(name)
            self.graph = interpreter._interpreter.GetSubgraphIndexFromSignature(name)
            self._inputs = runner.get_input_details()
            self._outputs = runner.get_output_details()
        self.inputs, self.outputs = _shapes(self._inputs), _shapes(self._outputs)
        first_sides = {side for shape in self.inputs.values() for side in shape[:1]}
        self.batch = max(first_sides - {-1}, default=None)

    def arrange(self, x):
        """Returns {name: array} of the inputs, checked; a file may list them in any order.

        `export_tflite` numbers inputs as `keras.tree` flattens them. Other files have one input,
        or names that are the keys of a dict.
        """
        arrays = keras.tree.flatten(x)
        names = [f"input_{i}" for i in range(len(arrays))]
        if len(self.inputs) == 1:
            names = list(self.inputs)
        elif isinstance(x, dict) and set(names) != set(self.inputs):
            names = sorted(x)
        fits = len(names) == len(arrays) and set(names) == set(self.inputs)
        if not fits or not all(map(self._fits, names, arrays)):
            shapes = {name: shape[1:] for name, shape in self.inputs.items()}
            raise unexpected(
                f"inputs of shape {shapes}, as {self._path} names them",
                keras.tree.map_structure(lambda array: array.shape[1:], x),
            )
        return dict(zip(names, arrays, strict=True))

    def zeros(self):
        """Returns inputs of zeros; a free side, other than the batch, is a ValueError."""
        return {
            name: np.zeros([*(abs(side) for side in shape[:1]), *shape[1:]])
            for name, shape in self.inputs.items()
        }

    def feed(self, inputs):
        """Sets the inputs, {name: array}; too few samples are filled up with the first one."""
        values = {}
        for name, details in self._inputs.items():
            array = _quantize(inputs[name], details)
            missing = (self.batch or 0) - len(array) if array.ndim else 0
            if missing > 0:
                array = np.concatenate([array, *[array[:1]] * missing])
            values[details["index"]] = array
        # The public calls that resize, set and run know the first graph only, and a runner
        # of a signature cannot be timed without them.
        inner = self._interpreter._interpreter
        for index, array in values.items():
            inner.ResizeInputTensor(index, np.array(array.shape, "int32"), False, self.graph)
        inner.AllocateTensors(self.graph)
        for index, array in values.items():
            inner.SetTensor(index, array, self.graph)

    def invoke(self):
        """Runs once, on the inputs that are set."""
        self._interpreter._interpreter.Invoke(self.graph)

    def run(self, x, batch_size=256):
        """Returns {name: output} for x, in float32, run in batches."""
        inputs = self.arrange(x)
        samples = len(next(iter(inputs.values())))
        step = self.batch or batch_size
        batches = {name: [] for name in self.outputs}
        for start in range(0, samples, step):
            self.feed({name: array[start : start + step] for name, array in inputs.items()})
            self.invoke()
            for name, details in self._outputs.items():
                output = self._interpreter.get_tensor(details["index"], self.graph)
                batches[name].append(_dequantize(output, details))
        return {name: np.concatenate(parts)[:samples] for name, parts in batches.items()}

    def predict(self, x, batch_size=256):
        """Returns the output for x, of a signature that has one."""
        if len(self.outputs) != 1:
            received = f"{self._path} with {len(self.outputs)}"
            raise unexpected("a file of one output", received)
        return next(iter(self.run(x, batch_size).values()))

    def _fits(self, name, array):
        shape = self.inputs[name]
        return len(shape) == array.ndim and all(
            side in (-1, given) for side, given in zip(shape[1:], array.shape[1:], strict=True)
        )


def _shapes(tensors):
    return {name: tuple(map(int, details["shape_signature"])) for name, details in tensors.items()}


def _quantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    steps = np.round(values / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype("float32")
    return (values.astype("float32") - zero_point) * np.float32(scale)
