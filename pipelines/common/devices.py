"""What devices make of the exported file: --target, columns of a report, and devices.md."""

import numbers

import tfpeft
from pipelines.common.flags import Flag
from tfpeft.core.arguments import InputError
from tfpeft.core.json_files import mismatch, read_json
from tfpeft.export.targets.table import TARGETS, check_target
from tfpeft.reports.tables import markdown_table, text_table

TARGET = Flag(
    "target",
    list,
    (),
    "Devices for which the report has columns, and devices.md all that is known: tflm is "
    "TensorFlow Lite for Microcontrollers, xnnpack a phone. All but xnnpack need pip install "
    "'tfpeft[devices]'; and give them --file_batch_size=1 --input_type=int8 --output_type=int8.",
    choices=tuple(TARGETS),
)
PAGE = "devices.md"
_COLUMNS = (  # title, key, format
    ("flash kB", "flash_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("RAM kB", "ram_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("kB with tables", "compressed_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("estimated ms", "estimated_ms", lambda v: f"{v:.3f}"),
    ("operators", "operators", str),
    ("on the CPU", "cpu_operators", str),
    ("sparse", "sparse_operators", str),
)
_HEADER = ["device", *(title for title, _, _ in _COLUMNS)]
_FORM = {str: {**{key: (numbers.Real, None) for _, key, _ in _COLUMNS}, "notes": [str]}}


def targets_of(settings):
    """Returns the devices that a script was asked for; none for scripts without `--target`."""
    return getattr(settings, "target", ())


def check(settings):
    """Raises for a --target whose package is not installed."""
    for target in targets_of(settings):
        check_target(target)


def are_described(path, targets):
    """Whether the report at `path` has the columns of these targets, and of no others."""
    found = read_json(path, object).get("devices", {})
    return mismatch(found, _FORM) is None and set(found) == set(targets)


def describe(folder, name, targets):
    """Returns {target: figures} of a file, and writes all that is known to devices.md.

    A device that cannot take the file has the reason in its notes, and no figures.

    Args:
        folder: The `RunFolder`.
        name: Name of the .tflite file in it.
        targets: Names of devices.
    """
    found, pages = {}, [f"# {name} on devices"]
    for target in targets:
        try:
            described = tfpeft.describe_tflite(folder / name, target=target)
            figures, text = _figures(described), str(described.device)
        except InputError as error:
            text = " ".join(str(error).split())
            figures = {"notes": [text]}
        found[target] = {**{key: None for _, key, _ in _COLUMNS}, "notes": [], **figures}
        pages += [f"## {target}", f"```\n{text}\n```"]
    folder.discard([PAGE])
    if found:
        folder.write(PAGE, "\n\n".join(pages))
    return found


def _figures(described):
    """Returns the figures of a `TFLiteDescription` that has a device."""
    device = described.device
    if described.target == "tflm":
        compressed = device.compressed
        return {
            "flash_bytes": described.size_bytes,
            "ram_bytes": device.arena_bytes,
            "compressed_bytes": compressed and compressed.size_bytes,
            "operators": len(described.operators),
        }
    if described.target == "xnnpack":
        return {
            "operators": len(device.operators),
            "sparse_operators": sum(op.is_sparse for op in device.operators),
        }
    return {
        "flash_bytes": device.flash_bytes,
        "ram_bytes": device.sram_bytes + device.dram_bytes,
        "estimated_ms": device.inference_ms,
        "operators": device.operators,
        "cpu_operators": len(device.cpu_operators),
    }


def text(devices):
    """Returns the figures of {target: figures} as aligned text."""
    return "\n".join([text_table(_HEADER, _cells(devices)), *_notes(devices)])


def markdown(devices):
    """Returns the figures as Markdown, with what the columns are."""
    explained = (
        "Flash and RAM are what the interpreter, or the NPU by its compiler's estimate, needs; "
        f"estimated ms are of the NPU alone. [More]({PAGE})"
    )
    return "\n\n".join([markdown_table(_HEADER, _cells(devices)), *_notes(devices), explained])


def _cells(devices):
    return [
        [name, *("-" if row[key] is None else form(row[key]) for _, key, form in _COLUMNS)]
        for name, row in devices.items()
    ]


def _notes(devices):
    return [f"{name}: {note}" for name, row in devices.items() for note in row["notes"]]
