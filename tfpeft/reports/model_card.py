"""A model card of a run as the Hugging Face Hub takes it: Markdown below YAML metadata."""

import json

from tfpeft.reports.comparison_section import headlines
from tfpeft.reports.figures import (
    COSTS,
    cell,
    cost_name,
    is_fraction,
    is_number,
    metrics_of,
    name_of_file,
    title,
    with_unit,
)
from tfpeft.reports.tables import markdown_table

_PIPELINE_TAGS = {  # (task, kind of the inputs) -> tag of the Hub
    ("classification", "image"): "image-classification",
    ("binary", "image"): "image-classification",
    ("multi_label", "image"): "image-classification",
    ("segmentation", "image"): "image-segmentation",
    ("reconstruction", "image"): "image-to-image",
    ("classification", "text"): "text-classification",
    ("binary", "text"): "text-classification",
    ("multi_label", "text"): "text-classification",
    ("classification", "numbers"): "tabular-classification",
    ("binary", "numbers"): "tabular-classification",
    ("regression", "numbers"): "tabular-regression",
}
_QUANTIZED = ("int8", "int16x8", "float16", "dynamic_range", "int4_embeddings", "int4_weights")


def model_card(run, samples=None):
    """Returns the card of a run, in Markdown.

    Args:
        run: As of `report_html`.
        samples: Not needed; a page takes both.
    """
    rows = run.get("rows") or {}
    measured = _measured(run)
    paragraphs = [
        _front_matter(run, measured),
        f"# {run['name']}",
        run.get("headline") or "",
        _model(run),
        "## Evaluation" if rows or measured else "",
        _table(rows),
        *(f"- {line}" for line in run.get("differences") or ()),
        _confidence(rows),
        "## How it was made",
        *_steps(run),
        *(f"```bash\n{line}\n```" for line in (run.get("made") or {}).get("commands") or ()),
        "## Limits",
        "The figures are of the test data named above, and of that alone. Latency is of one "
        "machine, one sample and one thread; measure it on the device that runs the file. What the "
        "model must not be used for, and whom its errors may harm, is for its authors to say: "
        "this card holds what was measured.",
        _versions(run),
    ]
    return "\n\n".join(filter(None, paragraphs)) + "\n"


def _measured(run):
    """Returns {figure: value} of the file on test data."""
    rows = run.get("rows") or {}
    if run.get("tasks"):
        found = {}
        for name, row in rows.items():
            task, _, is_file = name.partition(", ")
            if is_file:
                found |= {f"{task}/{key}": metrics_of(row).get(key) for key in row["columns"][:1]}
        return found
    last = metrics_of(rows[name_of_file(rows)]) if rows else {}
    return {key: last.get(key) for key in headlines(run)}


def _front_matter(run, measured):
    """Returns the YAML of the card; JSON's texts and numbers are YAML's, too."""
    flags = run.get("flags") or {}
    tag, dataset = _pipeline_tag(run), flags.get("dataset")
    tags = ["tflite", "litert", "tfpeft", "model-compression"]
    tags += [name for name in (flags.get("quantization"),) if name in _QUANTIZED]
    lines = ["---", "library_name: litert", "tags:", *(f"- {name}" for name in tags)]
    lines += [f"pipeline_tag: {tag}"] if tag else []
    values = {key: value for key, value in measured.items() if is_number(value)}
    if values:
        name = _text(run["name"])
        task = tag or (run.get("task") if isinstance(run.get("task"), str) else None) or "other"
        lines += ["model-index:", f"- name: {name}", "  results:"]
        lines += ["  - task:", f"      type: {_text(task)}"]
        known = _text(dataset or ", ".join(run.get("tasks") or ()) or "test data")
        lines += [
            "    dataset:",
            f"      name: {known}",
            f"      type: {known}",
            "      split: test",
        ]
        lines += ["    metrics:"]
        for key, value in values.items():
            figure = key.rpartition("/")[2]
            lines += [f"    - type: {_text(figure)}", f"      name: {_text(title(key))}"]
            lines += [f"      value: {_value(key, value)}"]
    return "\n".join([*lines, "---"])


def _value(key, value):
    text = json.dumps(round(100 * value, 4) if is_fraction(key) else value)
    return text if "." in text else text.replace("e", ".0e")  # YAML takes 1e-05 for a text


def _text(value):
    return json.dumps(str(value), ensure_ascii=False)


def _pipeline_tag(run):
    kinds = {
        each["kind"]
        for group in run.get("disagreements") or ()
        for item in group["shown"]
        for each in item["inputs"][:1]
    }
    task = run.get("task")
    if not isinstance(task, str) or len(kinds) != 1:
        return None
    return _PIPELINE_TAGS.get((task, kinds.pop()))


def _model(run):
    """Returns what the file is."""
    flags, rows = run.get("flags") or {}, run.get("rows") or {}
    facts = []
    if flags.get("quantization"):
        facts.append(("numbers", flags["quantization"]))
    if rows:
        file = rows[name_of_file(rows)]
        facts += [
            (cost_name(key), with_unit(key, file.get(key)))
            for _, key, _ in COSTS
            if is_number(file.get(key)) and not key.endswith("_ms")
        ]
        if is_number(file.get("latency_ms")):
            machine = (run.get("made") or {}).get("machine")
            where = f" on {machine}" if machine else ""
            latency = with_unit("latency_ms", file["latency_ms"])
            facts.append(("latency, one thread", f"{latency}{where}"))
    classes = run.get("classes")
    if isinstance(classes, list) and classes:
        shown = ", ".join(classes[:20]) + (", ..." if len(classes) > 20 else "")
        facts.append(("classes", f"{len(classes)}: {shown}"))
    return "\n".join(f"- **{name}**: {value}" for name, value in facts)


def _table(rows):
    columns = (key for row in rows.values() for key in row.get("columns") or metrics_of(row))
    quality = list(dict.fromkeys(columns))
    costs = [each for each in COSTS if any(is_number(row.get(each[1])) for row in rows.values())]
    lines = [
        [
            name,
            *(cell(key, metrics_of(row).get(key)) for key in quality),
            *(form(row[key]) if is_number(row.get(key)) else "-" for _, key, form in costs),
        ]
        for name, row in rows.items()
    ]
    header = ["", *map(title, quality), *(name for name, _, _ in costs)]
    return markdown_table(header, lines) if lines else ""


def _confidence(rows):
    """Returns the 95% intervals of the file's figures."""
    last = rows[name_of_file(rows)] if rows else {}
    lines = []
    for key, (low, high) in (last.get("intervals") or {}).items():
        if key in (last.get("columns") or ()):
            lines.append(f"{title(key)} {cell(key, low)} to {cell(key, high)}")
    return f"95% intervals of the file (bootstrap over samples): {'; '.join(lines)}." * bool(lines)


def _steps(run):
    if run.get("data"):
        yield run["data"]
    lines = []
    shared = ", ".join(f"`{name}={value}`" for name, value in (run.get("settings") or {}).items())
    if shared:
        yield f"Settings that differ from the defaults: {shared}."
    for number, stage in enumerate(run.get("stages") or (), 1):
        settings = ", ".join(f"`{name}={value}`" for name, value in stage["settings"].items())
        lines.append(f"{number}. {stage['title']}" + (f": {settings}" if settings else ""))
    yield "\n".join(lines)


def _versions(run):
    versions = ", ".join(f"{name} {value}" for name, value in (run.get("versions") or {}).items())
    return f"Written by tfpeft; the figures are of {versions}." * bool(versions)
