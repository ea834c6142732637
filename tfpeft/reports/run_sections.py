"""How a run came about: its stages, layers, integers, devices, settings, and how to repeat it."""

from tfpeft.reports import parts
from tfpeft.reports.figures import is_number, with_unit

_SHOWN_ROWS = 40  # of a table of layers; others open with a click
_DEVICE_TITLES = {
    "flash_bytes": "flash",
    "ram_bytes": "RAM",
    "compressed_bytes": "with tables",
    "estimated_ms": "estimated",
    "operators": "operators",
    "cpu_operators": "on the CPU",
    "sparse_operators": "sparse",
}
_CLEAN_DB = 40.0  # above it, the noise of 8 bits is a hundredth of the signal


def stages_section(run):
    """Returns what was done, stage by stage."""
    seconds = (run.get("made") or {}).get("seconds") or {}
    found = [
        parts.step(
            stage["title"],
            time=parts.duration(seconds.get(stage["name"])),
            settings=[f"{name} = {_shown(value)}" for name, value in stage["settings"].items()],
        )
        for stage in run.get("stages") or ()
    ]
    shared = [f"{name} = {_shown(value)}" for name, value in (run.get("settings") or {}).items()]
    lines = [parts.text(run["data"])] if run.get("data") else []
    lines += [parts.settings(shared), parts.steps(found)]
    is_changed = shared or any(stage["settings"] for stage in found)
    if is_changed:
        lines.append(parts.note("Settings are those that differ from the defaults."))
    elif found:
        lines.append(parts.note("All settings are the defaults."))
    return parts.section("stages", "What was done", lines)


def layers_section(run):
    """Returns widths, parameters and zeros of the layers, of the teacher and of the last model."""
    layers = run.get("layers") or ()
    has_teacher = any(each["teacher"] for each in layers)
    rows = [_layer_row(each, has_teacher) for each in layers]
    header = ["layer", _leveled("width"), _leveled("zeros"), "parameters", "kind", "kernel"]
    caption = (
        "Kernels of the last Keras model, of which the file is written; a bar is the part of the "
        "teacher's width that is left, and the part of weights that are zero."
    )
    shown = parts.table(header, rows[:_SHOWN_ROWS], caption=caption)
    rest = parts.table(header, rows[_SHOWN_ROWS:])
    more = rest and parts.details(f"{len(rows) - _SHOWN_ROWS} more layers", [rest])
    return parts.section("layers", "Layers", [shown, more])


def _leveled(title):
    """Returns the title of a column of bars."""
    return {**parts.cell(title), "leveled": True}


def _layer_row(layer, has_teacher):
    before, after = layer["teacher"], layer["final"]
    name = parts.cell(layer["layer"])
    kernel = " x ".join(map(str, layer["kernel"]))
    if after is None:
        width = {**parts.cell(f"{before['width']:,} before, removed"), "leveled": True}
        return [name, width, "-", f"{before['parameters']:,} before", layer["type"], kernel]
    width, small, level = f"{after['width']:,}", "", None
    parameters = parts.cell(f"{after['parameters']:,}")
    if before is not None:
        level = after["width"] / before["width"]
        if before["width"] != after["width"]:
            width = f"{before['width']:,} → {after['width']:,}"
        if before["parameters"] != after["parameters"]:
            parameters["small"] = f"{before['parameters']:,} before"
    elif has_teacher:
        small = "not in the teacher"
    zeros = f"{100 * after['sparsity']:.1f} %"
    return [
        name,
        parts.cell(width, small=small, level=level),
        parts.cell(zeros, level=after["sparsity"], second=True),
        parameters,
        layer["type"],
        kernel,
    ]


def integers_section(run):
    """Returns how much each layer of an integer file loses."""
    ratios = {n: v for n, v in (run.get("layer_snr_db") or {}).items() if is_number(v)}
    if not ratios:
        return None
    worst = sorted(ratios, key=ratios.get)[:3]
    rows = [
        [name, parts.cell(f"{value:.1f} dB", level=value / (1.5 * _CLEAN_DB))]
        for name, value in ratios.items()
    ]
    marked = [i for i, name in enumerate(ratios) if name in worst and len(ratios) > 3]
    explained = (
        "Signal-to-noise ratio of what each layer makes in the integer file, against the float "
        "file, with the errors of all layers before it: 20 dB is an error of 10% of the signal, "
        f"{_CLEAN_DB:g} dB of 1%. Least: {', '.join(worst)}. A layer that loses too much can stay "
        "in float32 (--float_layers)."
    )
    table = parts.table(["layer", _leveled("signal to noise")], rows, marked=marked)
    return parts.section("integers", "Errors of the integers", [parts.text(explained), table])


def devices_section(run):
    """Returns what devices make of the file."""
    devices = run.get("devices") or {}
    names = [key for key in _DEVICE_TITLES if any(is_number(d.get(key)) for d in devices.values())]
    rows = [
        [name, *(with_unit(key, figures.get(key)) for key in names)]
        for name, figures in devices.items()
    ]
    header = ["device", *(_DEVICE_TITLES[key] for key in names)]
    notes = [f"{name}: {text}" for name, each in devices.items() for text in each.get("notes", ())]
    explained = (
        "Flash and RAM are what the interpreter, or the NPU by its compiler's estimate, needs; "
        "estimated times are of the NPU alone."
    )
    table = parts.table(header, rows)
    lines = [parts.note(line) for line in (explained, *notes)] if rows else []
    return parts.section("devices", "Devices", [table, *lines])


def again_section(run):
    """Returns the commands, the machine, the versions and the settings of the run."""
    made, versions = run.get("made") or {}, run.get("versions") or {}
    facts = [
        ("made", made.get("date")),
        ("machine", made.get("machine")),
        ("seed", (run.get("flags") or {}).get("seed")),
        *versions.items(),
    ]
    facts = [(name, str(value)) for name, value in facts if value is not None]
    commands = [parts.code(line) for line in made.get("commands") or ()]
    flags = run.get("flags") or {}
    given = [[name, parts.cell(_shown(flags[name]), words=True)] for name in sorted(flags)]
    return parts.section(
        "again",
        "Run it again",
        [
            *commands,
            parts.facts(facts),
            parts.details(
                "All settings", [parts.table(["setting", parts.cell("value", words=True)], given)]
            ),
        ],
    )


def _shown(value):
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "none"
    if value is None:
        return "by default"
    if isinstance(value, bool):  # and not 1 or 0, which are equal to these
        return "yes" if value else "no"
    return str(value)
