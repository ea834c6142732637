"""An opened .tflite file: its contents, its signatures, predictions and single runs."""

import functools
import os
import typing
from collections.abc import Callable

import numpy as np

from tfpeft.core.arguments import InputError, invalid, unexpected
from tfpeft.core.paths import file_to_read
from tfpeft.export.tflite_signature import Signature

if typing.TYPE_CHECKING:
    from tfpeft.export.tflite_contents import Contents


class TFLiteFile:
    """A .tflite file: its contents, signatures, predictions, and single runs to be timed.

    The file is read once, when it is opened. Methods take the name of a signature; a file of one
    signature, or of none, runs it whatever the name. Only one thread may run a file at a time.

    Args:
        path: The file.

    Attributes:
        path: The file, a `pathlib.Path`.
        content: Its bytes.

    Raises:
        InputError: if there is no file, or it is not a .tflite file.

    What it does not give: operators that are not built in (TensorFlow Select, custom ones).

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax")])
    tfpeft.export_tflite(model, "model.tflite")
    file = tfpeft.TFLiteFile("model.tflite")
    print(file.contents.ops, file.macs())  # {'FULLY_CONNECTED': 1, 'SOFTMAX': 1} 24
    print(file.predict(np.random.rand(5, 8)).shape)  # (5, 3)
    ```
    """

    def __init__(self, path: str | os.PathLike):
        self.path = file_to_read(path, expected="a .tflite file")
        self.content = self.path.read_bytes()
        if self.content[4:8] != b"TFL3":
            raise unexpected("a .tflite file", f"{path}, which is something else")
        self._opened = {}  # name of a signature -> Signature

    @functools.cached_property
    def contents(self) -> "Contents":
        """The `Contents` of the whole file; it need not be one that runs."""
        return self._parsed(lambda flatbuffer: flatbuffer.contents())

    def read_graphs(self, function: Callable[[list], typing.Any]) -> typing.Any:
        """Returns what `function` makes of the `Graph`s of the file, with operators and tensors.

        Raises:
            InputError: if the file is damaged, which may show up in `function` only.
        """
        return self._parsed(lambda flatbuffer: function(flatbuffer.graphs))

    @property
    def signatures(self) -> tuple[str, ...]:
        """The names of the signatures; () if the file has none."""
        return tuple(self._interpreter.get_signature_list())

    def signature(self, name: str | None = None) -> Signature:
        """Returns the `Signature` that runs: the only one, or of several the one of that name.

        Raises:
            InputError: if a file of several has none of that name, or its operators are not
                built in.
        """
        names = self.signatures
        if len(names) < 2:
            name = names[0] if names else None
        elif name not in names:
            raise invalid("signature", f"one of {list(names)}, which {self.path} has", name)
        if name not in self._opened:
            self._opened[name] = self._new_signature(self._interpreter, name)
        return self._opened[name]

    def is_softmax(self, signature: str | None = None) -> bool:
        """Whether the output comes from a SOFTMAX."""
        graph = self.signature(signature).graph
        return self._parsed(lambda flatbuffer: flatbuffer.is_softmax(graph))

    def last_activation(
        self, signature: str | None = None, output: str | None = None
    ) -> str | None:
        """Returns "softmax" or "sigmoid" where such an operator makes an output; None otherwise.

        Args:
            signature: The signature.
            output: The name of the output in `signature(...).outputs`; None for the first one.
        """
        program = self.signature(signature)
        tensor = None if output is None else program.output_tensors[output]
        name = self._parsed(lambda flatbuffer: flatbuffer.last_operator(program.graph, tensor))
        return {"SOFTMAX": "softmax", "LOGISTIC": "sigmoid"}.get(name)

    def has_sparse_constants(self) -> bool:
        """Whether a constant is encoded as a sparse one."""
        return self._parsed(lambda flatbuffer: flatbuffer.is_sparse())

    def macs(self, sample: typing.Any = None, signature: str | None = None) -> int | None:
        """Returns the multiply-accumulates of one sample in convolutions and matrix products.

        The file itself writes 1 for every side that follows from a free batch, also where it is a
        multiple of it. So they are counted at the shapes that tensors have while the file runs.

        Args:
            sample: Inputs of one sample, as `predict` takes them, for a file whose sides are
                free, such as the length of a text.
            signature: The signature.

        Returns:
            An integer; None for loops, custom operators, and inputs of an unknown or other shape.
        """
        name, graph = self.signature(signature).name, self.signature(signature).graph
        if not self._parsed(lambda flatbuffer: flatbuffer.is_countable(graph)):
            return None
        program = self.observed(name)
        try:
            program.feed(program.zeros() if sample is None else program.arrange(sample))
            program.invoke()
        except ValueError:  # not of this shape; `predict` raises in clear words
            return None
        macs = self._parsed(lambda flatbuffer: flatbuffer.macs(graph, program.tensor_shapes()))
        return macs // (program.batch or 1)

    def labels(self, signature: str | None = None) -> dict[str, tuple[str, ...]]:
        """Returns {output: names of its classes}, of the outputs whose labels the file has."""
        return self._metadata(signature)[0]

    def input_scaling(self, signature: str | None = None) -> dict[str, tuple]:
        """Returns {input: (means, standard deviations)}, of the inputs whose scaling the file has.

        Raw values become inputs as (raw - mean) / std, per channel or, of one value, for all.
        """
        return self._metadata(signature)[1]

    def _metadata(self, signature):
        name = self.signature(signature).name
        return self._parsed(lambda flatbuffer: flatbuffer.metadata()).get(name, ({}, {}))

    def observed(self, signature: str | None = None) -> Signature:
        """Returns a `Signature` whose inner tensors can be read after a run.

        It has an interpreter of its own, as only this one keeps all tensors. The values of a
        tensor are its own, where an interpreter otherwise lets later operators write over them.
        """
        from ai_edge_litert.interpreter import OpResolverType  # late: slow to import

        interpreter = self._load(
            experimental_preserve_all_tensors=True,
            # A delegate would take tensors out of the graph.
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
        return self._new_signature(interpreter, self.signature(signature).name)

    def run_stored(self, samples: list[np.ndarray], *, reference: bool = False) -> list[np.ndarray]:
        """Returns the outputs of the first graph, in the types and scales of the file.

        Args:
            samples: Inputs in their order in the file, arrays (samples, *shape) of its types; a
                free side has the length 1.
            reference: Whether to use LiteRT's reference kernels; other kernels round otherwise.

        Returns:
            Arrays (samples, *shape), in the order of the file's outputs.
        """
        from ai_edge_litert.interpreter import OpResolverType  # late: slow to import

        kinds = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        interpreter = self._load(experimental_op_resolver_type=kinds)
        outputs = []
        try:
            interpreter.allocate_tensors()
            for sample in zip(*samples, strict=True):
                interpreter.reset_all_variables()
                for details, values in zip(interpreter.get_input_details(), sample, strict=True):
                    interpreter.set_tensor(details["index"], values)
                interpreter.invoke()
                details = interpreter.get_output_details()
                outputs.append([interpreter.get_tensor(each["index"]) for each in details])
        except (ValueError, RuntimeError) as error:
            raise self._not_built_in(error) from error
        return list(map(np.stack, zip(*outputs, strict=True)))

    def predict(
        self, x: typing.Any, signature: str | None = None, batch_size: int = 256
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Returns the output (samples, ...), in float32; of several outputs {name: output}.

        Inputs and outputs of a file that is integer throughout are converted by its own scales.

        Args:
            x: An array; for several inputs a dict of arrays by the names of the inputs, or a tuple
                or list of arrays in their order.
            signature: The signature.
            batch_size: Samples per run, unless the file insists on a batch size.
        """
        return self.signature(signature).predict(x, batch_size)

    def prepare(self, x: typing.Any, signature: str | None = None) -> Callable[[], None]:
        """Returns a function that runs the file once on x, to be timed; it has run once before.

        It has an interpreter of its own: after predictions in large batches a run takes 1% longer,
        and their memory stays with the interpreter.
        """
        program = self._new_signature(self._open(), self.signature(signature).name)
        program.feed(program.arrange(x))
        program.invoke()
        return program.invoke

    def on_all_cores(self, signature: str | None = None) -> Signature:
        """Returns a `Signature` that runs on all cores, for large batches.

        It has an interpreter of its own: those of `predict` and `prepare` run on one thread.
        """
        interpreter = self._open(num_threads=os.cpu_count())
        return self._new_signature(interpreter, self.signature(signature).name)

    @functools.cached_property
    def _interpreter(self):
        return self._open()

    def _new_signature(self, interpreter, name):
        def order(graph):
            """Returns the inputs in order, or None if the file has them in any."""
            return self._parsed(lambda flatbuffer: flatbuffer.inputs(graph))

        try:
            return Signature(interpreter, self.path, name, order)
        except (ValueError, RuntimeError, KeyError) as error:
            raise self._not_built_in(error) from error

    def _open(self, num_threads=1):
        interpreter = self._load(num_threads)
        try:
            interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            # A free side counts as 1 until there are inputs, which may be too small for a kernel.
            details = interpreter.get_input_details()
            if not any(side < 0 for tensor in details for side in tensor["shape_signature"][1:]):
                raise self._not_built_in(error) from error
        return interpreter

    def _load(self, num_threads=1, **options):
        from ai_edge_litert.interpreter import Interpreter  # late: slow to import

        try:
            return Interpreter(model_content=self.content, num_threads=num_threads, **options)
        except (ValueError, RuntimeError) as error:
            raise self._not_built_in(error) from error

    def _not_built_in(self, error):
        reason = " ".join(str(error).split())
        return unexpected("a .tflite file of built-in operators", f"{self.path}: {reason}")

    @functools.cached_property
    def _flatbuffer(self):
        from tfpeft.export.tflite_contents import Flatbuffer  # late: LiteRT is slow to import

        return Flatbuffer(self.content)

    def _parsed(self, function):
        """Returns what a function makes of the parsed file."""
        try:
            return function(self._flatbuffer)
        except InputError:
            raise
        except Exception as error:  # reading bytes at random places may raise anything
            received = f"{self.path}, which is damaged ({type(error).__name__}: {error})"
            raise unexpected("a .tflite file", received) from error
