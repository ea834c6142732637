"""Bad values of every flag of every script."""

from bad_cases.scripts import SCRIPTS, finished_run, script_case
from pipelines.stages import STAGES

BY_KIND = {
    int: ("", "many", "1.5", "nan", "inf", "0x"),
    float: ("", "much", "nan", "inf", "-inf", "1j"),
    bool: ("", "perhaps", "2"),
    list: ("",),
    str: ("",),
}
MODELS = ("no_such.keras", "{folder}/nothing", "{folder}/text.keras", "{folder}/user_code.py")
SPECIAL = {
    "dataset": (
        *("no_such", "no_such.npz", "no_such:function", "user_code:no_such", ":", "a:"),
        *("{folder}/nothing", "{folder}/no_images", "{folder}/model.keras"),
    ),
    "output_dir": ("{folder}/model.keras", "{folder}/model.keras/inside", "/proc/no/such"),
    "name": ("..", "/", "x" * 300),
    "seed": ("4294967296", "-1", str(10**30)),
    "model": MODELS,
    "backbone": ("no_such.keras", "{folder}/text.keras", "{folder}/nothing"),
    "custom_objects": ("no_such_module", "no_such.py", "{folder}/syntax.py", "{folder}/nothing"),
    "teacher": MODELS,
    "teacher_weights": ("1,2", "nan", "x", "0", "-1", "inf"),
    "student": ("0", "-1", "nan", "inf", "x", "no_such.keras", "no_such:function", "true"),
    "stages": (
        *("melt", "quantize,prune", "prune,prune", ",", "prune,", "cluster,prune"),
        *("quantize_aware", "quantize_aware,cluster,quantize"),
    ),
    "float_layers": ("no_such_layer", "hidden,no_such_layer"),
    "target": ("nonsense", "tflm,", "TFLM"),
    "block_size": ("0,4", "2", "x,y", "1,2,3", "1.5,2", "-1,2"),
    "n_m": ("4,2", "2", "x,y", "0,4", "1,2,3", "2,2"),
    "exclude": ("no_such_layer", "hidden,no_such_layer"),
    "include": ("no_such_layer", "hidden,no_such_layer"),
    "max_accuracy_drop": ("ten",),
    **dict.fromkeys(
        ("max_macs", "max_params", "max_size_bytes"),
        (
            "0",
            "1",
            "1.5",
            "-2",
            "half",
            "nan",
            "inf",
            "0%",
            "100%",
            "-5%",
            "nan%",
            "%",
            "2",
            "1e-9",
        ),
    ),
    "max_latency_ms": ("0", "-1", "5ms", "nan", "inf", "0%", "100%", "inf%", "%"),
    "ratio": ("50%", "0.99"),
    "min_channels": ("1000000",),
    "steps": ("1000000",),
    "task": (
        *("b", "a=", "=a.npz", "a=no_such.npz", "a b={folder}/data.npz", "a=x.csv:text"),
        *("a=no_such.csv:text:label", "a={folder}/nothing", "a={folder}/text_file.npz"),
    ),
    "run": ("no_such", "{folder}/nothing", "{folder}/model.keras"),
    "input": (
        *("no_such.npy", "{folder}/nothing", "{folder}/cut_off.npy", "{folder}/nan.npy"),
        *("{folder}/width.npy", "{folder}/objects.npy", "{folder}/data.npz"),
    ),
    "data_dir": ("no_such",),
}
# Flags that are read beside others only.
BESIDE = {
    "data_dir": ["--dataset=mnist"],
    **dict.fromkeys(("step", "tolerance", "epochs_per_step"), ["--iterative"]),
    "teacher_weights": ["--teacher={folder}/model.keras"],
    "alpha_end": ["--alpha=0.5"],
    "drop_rate": ["--technique=targeted_dropout"],
    "l1": ["--technique=proximal_l1"],
    "feature_weight": [
        *("--feature_loss=matching", "--teacher_layers=hidden", "--student_layers=hidden"),
    ],
    "rank": ["--adapter=lora"],
}
# An empty list of names is a list.
MAY_BE_EMPTY = ("exclude", "include", "teacher_layers", "student_layers")


def bad_values(flag):
    """Returns the texts that a flag must reject."""
    by_kind = () if flag.name in MAY_BE_EMPTY else BY_KIND[flag.kind]
    found = [*by_kind, *SPECIAL.get(flag.name, ())]
    if flag.choices:
        found += ["nonsense", str(flag.choices[0]).upper() if flag.kind is not int else "3"]
    if flag.at_least is not None:
        found.append(str(flag.at_least - 1))
    if flag.above is not None:
        found += [f"{flag.above:g}", f"{flag.above - 1:g}"]
    if flag.at_most is not None:
        found.append(f"{flag.at_most + 0.5:g}")
    if flag.below not in (None, float("inf")):
        found += [f"{flag.below:g}", f"{flag.below + 0.5:g}"]
    return dict.fromkeys(found)


def cases():
    """Returns cases of all values for the first script that has a flag, and of two for others."""
    finished_run()  # no case has to wait for it
    found, known = [], set()
    for script, module in SCRIPTS.items():
        for flag in module.SCRIPT.flags:
            beside = list(BESIDE.get(flag.name, ()))
            if script == "compress":
                beside += [f"--stages={_with_file(name)}" for name in stages_with(flag)[:1]]
            texts = list(bad_values(flag))
            beside_names = [each.partition("=")[0].lstrip("-") for each in beside]
            texts = [texts[0], texts[-1]] if flag.name in known and len(texts) > 2 else texts
            known.add(flag.name)
            for value in texts:
                change = f"--{flag.name}={value}"
                is_file = "." in value or "/" in value
                named = (flag.name, *beside_names, *([value] if is_file else []))
                found.append(script_case(script, *beside, change, named=_in_words(named)))
        found.append(script_case(script, "--no_such_flag=1"))
        if script not in ("evaluate", "predict"):
            found.append(script_case(script, "surplus", named=("surplus",)))
    return found


def stages_with(flag):
    """Returns the names of the stages that read a flag."""
    return [name for name, stage in STAGES.items() if flag in stage.flags]


def _with_file(stage):
    """Returns the stages of a run in which a stage can be: a quantise-aware model has a file."""
    return f"{stage},quantize" if stage == "quantize_aware" else stage


def _in_words(named):
    return tuple(word.replace("{folder}/", "") for word in named)
