"""Techniques: the settings of compression that a search chooses from."""

import dataclasses
from collections.abc import Sequence

from tfpeft.automl.students.architecture import check_numbers, check_words, choose, is_integer
from tfpeft.core.arguments import invalid

QUANTIZE_AWARE, INT4 = "quantize_aware", "quantize_aware_int4"
QUANTIZATIONS = ("none", "float16", "dynamic_range", "int8", QUANTIZE_AWARE, INT4)
TRAINED_BITS = {QUANTIZE_AWARE: 8, INT4: 4}
"""{quantization that is trained: bits of a weight}."""
_BY_BYTES = (INT4, "int8", QUANTIZE_AWARE, "dynamic_range", "float16", "none")
"""Quantizations, those whose files are mostly the smallest first."""
ORDERS = ("together", "steps")


@dataclasses.dataclass(frozen=True)
class Techniques:
    """What a search may do with a model, as values that it draws from; one value is a fixed one.

    None stands for values by the budget: only what a limit can gain from is tried. Zeros and
    clusters make a compressed file smaller, and neither the file itself nor its latency, so they
    are tried for `max_gzip_bytes` alone.

    Args:
        quantization: Of the file: "none", "float16", "dynamic_range", "int8" (from the trained
            model), "quantize_aware" (the last fifth of the training with the rounding of int8), or
            "quantize_aware_int4" (the last two fifths with weights of 4 bits, which a file stores
            in half of the bytes; CPUs unpack them, which takes time, and old runtimes have none).
        alpha: Numbers in [0, 1]: the weight of the labels in distillation; 1 - alpha is the
            teacher's. Without a teacher it is not drawn.
        temperature: Numbers from 0.1 to 100, of distillation.
        learning_rate: Numbers from 1e-6 to 1: Adam's at the start; it falls to 0 as a cosine.
        sparsity: Numbers in [0, 0.99]: the fraction of zeros in kernels.
        clusters: Integers: the distinct values of a kernel; 0 for any number.
        channel_ratio: Numbers in [0, 0.95]: the fraction of channels that a trained model loses
            before it is trained further. Architectures have their widths instead.
        order: "together": zeros and clusters come while the model learns from the teacher.
            "steps": it learns first, then gets zeros, then clusters.

    Raises:
        InputError: for values that are not of their kind.

    Example:

    ```python
    import tfpeft

    techniques = tfpeft.Techniques(quantization=("int8",), temperature=(2.0, 4.0, 8.0))
    ```
    """

    quantization: Sequence[str] | None = None
    alpha: Sequence[float] | None = None
    temperature: Sequence[float] | None = None
    learning_rate: Sequence[float] | None = None
    sparsity: Sequence[float] | None = None
    clusters: Sequence[int] | None = None
    channel_ratio: Sequence[float] | None = None
    order: Sequence[str] | None = None

    def __post_init__(self):
        checked = {
            "quantization": lambda n, v: check_words(n, v, QUANTIZATIONS),
            "alpha": lambda n, v: check_numbers(n, v, 0.0, 1.0),
            "temperature": lambda n, v: check_numbers(n, v, 0.1, 100.0),
            "learning_rate": lambda n, v: check_numbers(n, v, 1e-6, 1.0),
            "sparsity": lambda n, v: check_numbers(n, v, 0.0, 0.99),
            "clusters": _check_clusters,
            "channel_ratio": lambda n, v: check_numbers(n, v, 0.0, 0.95),
            "order": lambda n, v: check_words(n, v, ORDERS),
        }
        for name, check in checked.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, check(name, value))


DEFAULTS = {
    "quantization": QUANTIZATIONS,
    "alpha": (0.1, 0.3, 0.5),
    "temperature": (2.0, 4.0, 6.0),
    "learning_rate": (1e-3, 2e-3, 4e-3),
    "sparsity": (0.0, 0.5, 0.7, 0.85),
    "clusters": (0, 16, 32),
    "channel_ratio": tuple(number / 20 for number in range(19)),
    "order": ORDERS,
}
"""{technique: values}, where a budget can gain from it."""
_TUNING_RATES = (5e-4, 1e-3, 2e-3)  # of a trained model, which a higher rate would harm


class TechniqueSpace:
    """The choices of a search: those of `Techniques`, and for None those that a budget gains from.

    Args:
        techniques: The `Techniques`.
        budget: The `Budget`.
        has_teacher: Whether there is a teacher to distil from.
        is_trained: Whether a trained model is compressed, and not an architecture trained.

    Attributes:
        values: {technique: a tuple of values}.
    """

    def __init__(self, techniques, budget, *, has_teacher, is_trained):
        by_budget = _by_budget(budget)
        self.values = {}
        for name, default in DEFAULTS.items():
            given = getattr(techniques, name)
            self.values[name] = given or by_budget.get(name, default)
        if is_trained and techniques.learning_rate is None:
            self.values["learning_rate"] = _TUNING_RATES
        if not has_teacher:
            del self.values["alpha"], self.values["temperature"]
        if not is_trained:
            del self.values["channel_ratio"]
        if not any(self.values["sparsity"]) and not any(self.values["clusters"]):
            self.values["order"] = self.values["order"][:1]

    def limit_channels(self, largest):
        """Leaves out the ratios of channels that a model cannot lose.

        Args:
            largest: The largest one that it can.
        """
        kept = tuple(ratio for ratio in self.values["channel_ratio"] if ratio <= largest)
        if not kept:
            expected = f"a ratio of at most {largest:.3f} for this model"
            raise invalid("channel_ratio", expected, self.values["channel_ratio"])
        self.values["channel_ratio"] = kept

    def draw(self, hp):
        """Declares the choices of more than one value; returns {technique: value} of `hp`."""
        return {
            name: choose(hp, name, values) if len(values) > 1 else values[0]
            for name, values in self.values.items()
        }

    def cheapest(self):
        """Returns the values that make the smallest file, of all techniques but quantization."""
        found = {}
        for name in ("channel_ratio", "sparsity"):
            if name in self.values:
                found[name] = max(self.values[name])
        clusters = [each for each in self.values["clusters"] if each]
        found["clusters"] = min(clusters, default=0)
        found["order"] = self.values["order"][0]
        return found

    @property
    def quantizations(self):
        """Those that are drawn, those whose files are mostly the smallest first."""
        return sorted(self.values["quantization"], key=_BY_BYTES.index)

    def as_dict(self):
        """Returns the values as plain JSON values."""
        return {name: list(values) for name, values in self.values.items()}


def _by_budget(budget):
    """Returns {technique: values} for those from which the limits gain little or much."""
    found = {}
    figures = budget.figures
    if "gzip_bytes" not in figures:
        found |= {"sparsity": (0.0,), "clusters": (0,)}
    if {"size_bytes", "gzip_bytes", "arena_bytes"} & set(figures):
        found["quantization"] = ("int8", QUANTIZE_AWARE)  # others take more bytes
        if "arena_bytes" not in figures:  # microcontrollers have few kernels of 4 bits
            found["quantization"] += (INT4,)
    elif not figures:  # the smallest file with a metric is searched
        found["quantization"] = ("int8", "dynamic_range", QUANTIZE_AWARE, INT4)
    elif figures == ("macs",):
        found["quantization"] = ("none",)  # the multiplications are the same in all of them
    else:  # CPUs unpack 4 bits, which takes time
        found["quantization"] = tuple(kind for kind in QUANTIZATIONS if kind != INT4)
    return found


def file_quantization(settings):
    """Returns the argument `quantization` of `export_tflite` for the settings of a trial."""
    kind = settings["quantization"]
    return "int8" if kind in TRAINED_BITS else kind


def _check_clusters(name, values):
    is_list = isinstance(values, Sequence) and not isinstance(values, str) and len(values) > 0
    if not is_list or not all(is_integer(v) and (v == 0 or 2 <= v <= 2**16) for v in values):
        raise invalid(name, "a list or tuple of integers from 2 to 65,536, or 0", values)
    return tuple(sorted({int(each) for each in values}))
