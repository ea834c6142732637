"""What a model costs: multiply-accumulates, parameters, bytes and milliseconds."""

import math
import pathlib
import tempfile

import numpy as np

from tfpeft.core.macs import count_macs
from tfpeft.evaluation.latency import round_robin
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile


class FileCosts:
    """What models cost as float32 .tflite files, beside the file of the original.

    Args:
        model: The original.
        sample: A batch of one sample of its inputs.
        names: "max_size_bytes", "max_latency_ms", or both.
    """

    def __init__(self, model, sample, names):
        self._sample, self._names = sample, names
        self._folder = tempfile.TemporaryDirectory()
        self._original = self._exported(model, "original.tflite")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._folder.cleanup()

    def _exported(self, model, name):
        path = pathlib.Path(self._folder.name) / name
        export_tflite(model, path)
        return path

    def of(self, model=None):
        """Returns {name: costs of the original and of the model}; without a model the first alone.

        Latencies are medians on one thread, of files that run in turn.
        """
        paths = [self._original]
        if model is not None:
            paths.append(self._exported(model, "new.tflite"))
        found = {"max_size_bytes": [path.stat().st_size for path in paths]}
        if "max_latency_ms" in self._names:
            runs = {path: TFLiteFile(path).prepare(self._sample) for path in paths}
            for run in runs.values():
                run()
            times = round_robin(runs)
            found["max_latency_ms"] = [times[path][0] for path in paths]
        return {name: tuple(found[name]) for name in self._names}


class Costs:
    """Multiply-accumulates and parameters of a model, for any set of removed channels.

    Args:
        graph: The `DependencyGraph`.
        batch: Inputs of the model, for a count of what the graph does not follow.

    Attributes:
        macs: Of the whole model, for one sample.
        params: Of the whole model: all weights.
    """

    def __init__(self, graph, batch):
        self._tags = graph.tags
        along = {}
        for each in graph.slices:
            along.setdefault(id(each.variable), {})[each.axis] = self._roots(each.tags)
        self._weights = []
        for weight in {id(w): w for w in graph.model.weights}.values():
            axes = along.get(id(weight), {})
            factor = math.prod(s for i, s in enumerate(weight.shape) if i not in axes)
            self._weights.append((factor, list(axes.values())))
        self._products = [
            (each.factor, [self._roots(tags) for tags in each.widths]) for each in graph.products
        ]
        self.params = sum(math.prod(w.shape) for w in graph.model.weights)
        followed = self._total(self._products, np.zeros(graph.tags.count, bool))
        counted = None if batch is None else count_macs(graph.model, batch)
        self._other_macs = 0 if counted is None else max(0, counted - followed)
        self.macs = followed + self._other_macs

    def _roots(self, tags):
        return self._tags.roots(tags)

    def _total(self, terms, removed):
        return sum(
            factor * math.prod(len(each) - int(np.sum(removed[each])) for each in widths)
            for factor, widths in terms
        )

    def of(self, name, removed):
        """Returns what a model costs without some channels.

        Args:
            name: "max_macs" or "max_params".
            removed: A mask over all tags.
        """
        if name == "max_macs":
            return self._total(self._products, removed) + self._other_macs
        return self._total(self._weights, removed)
