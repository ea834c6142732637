"""What `export_tflite` is asked to do for better int8 files."""

import dataclasses

from tfpeft.core.arguments import check_boolean, check_choice, unexpected
from tfpeft.export.ranges import RANGES


@dataclasses.dataclass(frozen=True)
class Int8Options:
    """Arguments of `export_tflite`, which describes them.

    Raises:
        InputError: for values that these arguments do not take.
    """

    ranges: str = "mse"
    equalize: bool = False
    correct_bias: bool = False

    def __post_init__(self):
        check_choice("ranges", self.ranges, RANGES)
        check_boolean("equalize", self.equalize)
        check_boolean("correct_bias", self.correct_bias)

    def check(self, quantization, *, is_aware):
        """Raises if a quantization, or a quantise-aware model, would ignore what is asked for."""
        for name, default in vars(Int8Options()).items():
            if getattr(self, name) != default:
                if quantization != "int8":
                    raise unexpected(f'quantization="int8" with `{name}`', f"{quantization!r}")
                if is_aware:
                    expected = f"a model that is not quantise-aware with `{name}`"
                    raise unexpected(expected, "one that has learnt its ranges and weights")
