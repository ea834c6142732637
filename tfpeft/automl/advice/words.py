"""Advice in words: titles, what a technique does not give, its command and its lines of Python."""

from types import MappingProxyType

MODEL, DATA = "model.keras", "data.npz"
"""What stands for the user's files in commands."""

_QUANTIZED = {
    "none": "float32 numbers",
    "int8": "int8 numbers",
    "dynamic_range": "int8 weights (dynamic range)",
    "float16": "float16 weights",
}
_LIMITS = {
    "prune_channels": "Channels that are removed make every kernel smaller, on any machine; what "
    "they knew comes back by training only.",
    "distill": "A student is trained from the start, and needs the training data; its accuracy "
    "ends where its size does.",
    "prune": "Zeros make no dense kernel faster and no plain file smaller.",
    "cluster": "Few distinct values make nothing faster on a CPU; only compressed bytes are fewer.",
    "quantize_aware": "It trains longer than other fine-tuning, and its file is integer only.",
}
_ON_DEVICES = {  # kind of device -> stage -> what is otherwise there
    "ethos-u": {
        "prune": "Zeros shrink what the NPU reads, as its weights are compressed; on other "
        "machines they save nothing but a compressed download.",
        "cluster": "Few distinct values shrink what the NPU reads, as its weights are compressed; "
        "on other machines they save nothing but a compressed download.",
        "quantize": "The NPU takes int8 only; what does not fit it runs on the CPU.",
    },
    "tflm": {
        "cluster": "Tables of values save flash and take RAM: constants are unpacked into the "
        "arena, and the firmware needs TFLite Micro's compression.",
        "quantize": "Integer kernels need int8 inputs and outputs, which the file has.",
    },
    "xnnpack": {
        "prune": "XNNPACK skips zeros on ARM only, in 1x1 convolutions of which more than two "
        "thirds are zeros; on x86 it computes all of them.",
    },
}
_OF_FILES = {
    "none": "Constants with many zeros are stored as sparse ones, where that is smaller.",
    "int8": "int8 is faster only on processors with instructions for it.",
    "dynamic_range": "Activations stay float32, so RAM does not change.",
    "float16": "Computation stays float32: it is no faster.",
}
_SHORT = "The trial was short: training in full usually loses less."


def title_of(chain):
    """Returns what a `Chain` is, in words."""
    words = [_TITLES[step.stage](step) for step in chain.steps]
    return " then ".join(words)[:1].upper() + " then ".join(words)[1:]


_TITLES = {
    "tune": lambda s: "train further",
    "prune_channels": lambda s: f"remove channels to {s.value:.0%} of the multiply-accumulates",
    "distill": lambda s: f"distil into a student of {s.value:.0%} of the width",
    "prune": lambda s: f"prune {s.value:.0%} of the weights to zero",
    "cluster": lambda s: f"cluster each kernel to {s.value} values",
    "quantize_aware": lambda s: "train quantise-aware",
    "quantize": lambda s: f"store {_QUANTIZED[s.value]}" + _options(s),
}


def _options(step):
    words = {
        "sparse_encoding": "zeros left out",
        "equalize": "equalised",
        "correct_bias": "biases corrected",
    }
    found = [words[name] for name, value in step.settings if name in words and value]
    return f", {' and '.join(found)}" if found else ""


def limits_of(chain, device, is_short):
    """Returns what a `Chain` does not give on a `Device`; `is_short` says how it was trained."""
    words = dict(_LIMITS)
    if chain.quantization:
        words["quantize"] = _OF_FILES[chain.quantization["quantization"]]
    words |= _ON_DEVICES.get(device.kind, {})
    found = [words[stage] for stage in chain.stages]
    return " ".join([*found, *([_SHORT] if is_short else [])])


def command_of(chain, device, *, batch_size, learning_rate, float_inputs=True):
    """Returns the command of the scripts that runs a `Chain` in full.

    Args:
        chain: The chain.
        device: The `Device`, whose files have a batch size and types.
        batch_size, learning_rate: Of training; those of the scripts are left out.
        float_inputs: Whether the model's inputs are floats, which a file may have as int8.
    """
    stages = list(chain.stages)
    flags = [f"--model={MODEL}", f"--dataset={DATA}"]
    settings = [(name, value) for step in chain.steps for name, value in step.settings]
    if device.batch_size is not None and "quantize" not in stages:  # whose flags these are
        stages.append("quantize")
        settings.append(("quantization", "none"))
    flags.append(f"--stages={','.join(stages)}")
    flags += [_flag(name, value) for name, value in dict(settings).items()]
    if device.batch_size is not None:
        flags.append(f"--file_batch_size={device.batch_size}")
    if device.batch_size is not None and chain.quantization.get("quantization") == "int8":
        flags += ["--input_type=int8"] if float_inputs else []
        flags.append("--output_type=int8")
    if device.target is not None:
        flags.append(f"--target={device.target}")
    if chain.trained.steps:
        flags += [f"--batch_size={batch_size}"] if batch_size != 32 else []
        flags += [f"--learning_rate={learning_rate:g}"] if learning_rate != 1e-3 else []
    return " ".join(["python -m pipelines.compress", *flags])


def _flag(name, value):
    if isinstance(value, bool):
        return f"--{'' if value else 'no'}{name}"
    if isinstance(value, tuple):
        return f"--{name}={','.join(value)}"
    return f"--{name}={value}"


_FIT = "model.fit(x, y, validation_data=validation, epochs=30)"
_COMPILE = "model.compile({}, loss=loss, metrics=metrics)"
_ADAM = "keras.optimizers.Adam(1e-3)"
_PLAIN = _COMPILE.format(_ADAM)
_CLUSTERED = f"""\
optimizer = {_ADAM}
optimizer = tfpeft.WeightClustering(optimizer, {{value}}, begin_step=0{{exclude}})"""
_CODE = {
    "tune": f"{_PLAIN}\n{_FIT}",
    "prune_channels": f"""\
{_PLAIN}
model = tfpeft.prune_channels(model, max_macs={{value}}, data=(x, y))
{_FIT}""",
    "distill": f"""\
student = tfpeft.scale_width(model, {{value}})
distiller = tfpeft.Distiller(model, student, alpha=0.1, temperature=4.0{{losses}})
{_PLAIN.replace("model", "distiller")}
{_FIT.replace("model", "distiller")}
model = student""",
    "prune": f"""\
steps = 30 * -(-len(x) // 32)
schedule = tfpeft.polynomial_decay({{value}}, begin=0.0, end=0.6, total_steps=steps, frequency=10)
optimizer = tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule{{exclude}})
{_COMPILE.format("optimizer")}
{_FIT}
model = tfpeft.strip_pruning(model)""",
    "cluster": f"""\
{_CLUSTERED}
{_COMPILE.format("optimizer")}
{_FIT}
model = tfpeft.strip_clustering(model)""",
    "quantize_aware": f"""\
model = tfpeft.quantize_aware(model, representative_data=(x, y))
{_PLAIN}
{_FIT}""",
}
_SOFT = {  # task -> the class that `Training` distils it with
    **dict.fromkeys(("classification", "segmentation"), "SoftLabels"),
    **dict.fromkeys(("binary", "multi_label"), "BinarySoftLabels"),
    **dict.fromkeys(("regression", "reconstruction"), "SquaredError"),
}
BEGINNING = f"""\
import keras
import tfpeft

# x, y and validation are the data; loss and metrics are those of the task.
model = tfpeft.load_model("{MODEL}")"""


def code_of(
    chain,
    device,
    float_inputs=True,
    *,
    batch_size=32,
    learning_rate=1e-3,
    tasks=MappingProxyType({None: "classification"}),
    names=None,
    has_zeros=False,
):
    """Returns the lines of Python that run a `Chain`; x, y and validation are the user's data.

    Args:
        chain, device, float_inputs, batch_size, learning_rate: As of `command_of`.
        tasks, names: As of `Training`.
        has_zeros: Whether the model has zeros, which stay, as those of a stage before do.
    """
    lines, clusters = [BEGINNING], None
    for step in chain.trained.steps:
        has_zeros = has_zeros and step.stage != "distill"  # a student begins anew
        text = _CODE[step.stage].format(
            value=step.value, exclude=_exclude(step), losses=_soft_losses(tasks, names)
        )
        clusters = step if step.stage == "cluster" else clusters
        if step.stage == "quantize_aware" and clusters is not None:
            optimizer = _CLUSTERED.format(value=clusters.value, exclude=_exclude(clusters))
            text = text.replace(_PLAIN, f"{optimizer}\n{_COMPILE.format('optimizer')}")
        lines.append(text.replace(_ADAM, f"tfpeft.FixedMask({_ADAM})") if has_zeros else text)
        has_zeros = has_zeros or step.stage == "prune"
    arguments = {"quantization": "none", **chain.quantization}
    arguments["sparse"] = arguments.pop("sparse_encoding", False)
    if device.batch_size is not None:
        arguments["batch_size"] = device.batch_size
    if device.batch_size is not None and arguments["quantization"] == "int8":
        arguments |= {"input_type": "int8"} if float_inputs else {}
        arguments["output_type"] = "int8"
    text = "".join(f", {name}={value!r}" for name, value in arguments.items() if value is not False)
    if arguments["quantization"] == "int8":
        text += ", representative_data=(x, y)"
    lines.append(f'tfpeft.export_tflite(model, "model.tflite"{text})')
    text = "\n".join(lines)
    if learning_rate != 1e-3:
        text = text.replace("Adam(1e-3)", f"Adam({learning_rate:g})")
    if batch_size != 32:
        text = text.replace("epochs=30", f"batch_size={batch_size}, epochs=30")
        text = text.replace("// 32)", f"// {batch_size})")
    return text


def _exclude(step):
    return f", exclude={list(step.exclude)}" if step.exclude else ""


def _soft_losses(tasks, names):
    """Returns the argument of `Distiller` for tasks; of one output of classes it is the default."""
    if list(tasks) == [None] and _SOFT[tasks[None]] == "SoftLabels":
        return ""
    outputs = {output: names.index(output) if names else output for output in tasks}
    losses = [
        f"tfpeft.{_SOFT[task]}({'' if output is None else f'output={outputs[output]!r}'})"
        for output, task in tasks.items()
    ]
    return f", distillation_losses=[{', '.join(losses)}]"
