"""What `export_tflite` reports of a file that it wrote."""

import dataclasses

from tfpeft.export.conversion import SIGNATURE

NO_SPREAD = "the spread of the outputs is not known, as they are the same for all samples"


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_tflite` wrote; see `export_tflite`.

    Attributes:
        path: The file.
        quantization: The argument.
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: {operator name: how many there are}.
        int8_share: Fraction in [0, 1] of the operators whose outputs are int8; QUANTIZE and
            DEQUANTIZE do not count, nor do operators that compute shapes.
        int16_share: The same of int16, which "int16x8" has.
        max_deviation: Largest |file - model| over the outputs of the compared samples, in the unit
            of the outputs.
        signatures: Names of the signatures: `serving_default`, or the tasks of a `SharedModel`.
        relative_error: Root mean square of file - model, relative to the standard deviation of the
            model's outputs over the compared samples; of the worst output. Relative to the size of
            the outputs if they are the same for all samples, which `notes` then has.
        agreement: Fraction in [0, 1] of the compared samples (with softmax over positions or
            tokens: of these) whose largest output is the same; None for outputs without classes.
        clear_agreement: The same, of the samples that the model predicts clearly: the largest
            output is above the next one by more than a tenth of the standard deviation of the
            outputs, and by two steps of 8 bits. None without any.
        clear_share: Fraction in [0, 1] of the compared samples that are predicted clearly.
        calibration_samples: How many samples the ranges of integers come from; 0 for others.
        read_samples: How many samples of the data all these were drawn from.
        compared_samples: How many samples file and model were compared on.
        held_out: Whether these are other samples than those of the calibration.
        batch_size: The batch size of the file; None if it is free. `TFLiteFile.predict` and
            `evaluate` run a file of one sample by sample.
        input_type: The type of the inputs of the file that are numbers with a fraction.
        output_type: The type of the outputs.
        sparse: Whether constants with many zeros are encoded as sparse ones.
        notes: What stays in float32 in an int8 file, what was clipped, whether the spread of the
            outputs is not known, and why a file is not sparse.
    """

    path: str
    quantization: str
    size_bytes: int
    gzip_bytes: int
    ops: dict[str, int]
    int8_share: float
    max_deviation: float
    signatures: tuple[str, ...] = (SIGNATURE,)
    relative_error: float = 0.0
    agreement: float | None = None
    clear_agreement: float | None = None
    clear_share: float = 0.0
    calibration_samples: int = 0
    compared_samples: int = 0
    read_samples: int = 0
    held_out: bool = True
    batch_size: int | None = None
    input_type: str = "float32"
    output_type: str = "float32"
    sparse: bool = False
    int16_share: float = 0.0
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        figures = [
            f"{self.path}: {self.quantization}, {self.size_bytes:,} bytes ({self.gzip_bytes:,} "
            f"gzipped), {self.int16_share or self.int8_share:.0%} of the operators in "
            f"{'int16' if self.int16_share else 'int8'}",
            f"largest deviation {self.max_deviation:.3g}",
        ]
        if self.quantization not in ("none", "float16"):
            of = "size" if NO_SPREAD in self.notes else "spread"
            figures.append(f"error {self.relative_error:.1%} of the {of} of the outputs")
            if self.agreement is not None:
                figures.append(f"{self.agreement:.1%} of the classes agree")
            if self.clear_agreement is not None:
                figures.append(
                    f"{self.clear_agreement:.1%} of the {self.clear_share:.0%} predicted clearly"
                )
        if self.calibration_samples:
            other = "others" if self.held_out else "the same, as there are few"
            figures.append(
                f"calibrated on {self.calibration_samples} samples, compared on "
                f"{self.compared_samples} {other}, drawn from {self.read_samples:,}"
            )
        if len(self.signatures) > 1:
            figures.append(f"signatures {', '.join(self.signatures)}")
        if self.batch_size is not None:
            figures.append(f"batch_size={self.batch_size}")
        if {self.input_type, self.output_type} != {"float32"}:
            figures.append(f"inputs {self.input_type}, outputs {self.output_type}")
        if self.sparse:
            figures.append("sparse constants")
        return ", ".join([*figures, *self.notes])
