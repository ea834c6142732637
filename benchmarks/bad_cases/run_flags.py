"""Bad data, bad models and user code behind flags, and flags that contradict each other."""

from bad_cases.scripts import finished_run, script_case

DATA = (
    *("no_y_test", "no_y_val", "no_x_val", "nan", "nan_labels", "infinite_labels"),
    *("complex_labels", "complex", "text", "empty", "shorter", "width", "negative", "one_class"),
    *("more_classes", "scalar", "objects", "empty_file", "cut_off_file", "zeros_file"),
    *("text_file", "zeros_inside_file", "mixture", "weights"),
)
TABLES = (
    *("no_such.csv:kind", "table.csv:no_such", "table.csv:b:kind", "table.csv:a+kind"),
    *("cells.csv:kind", "rows.csv:kind", "label.csv:kind"),
)
FUNCTIONS = (
    *("raises", "returns_none", "takes_arguments", "leaves", "leaves_with_status"),
    *("interrupted_inside", "returns_text", "returns_nan", "returns_empty", "returns_generators"),
    "not_a_function",
)
KERAS_FILES = ("empty", "cut_off", "zeros", "text", "zeros_inside")


def copy_code():
    """Puts the user's module into the current folder, from which scripts import."""
    import pathlib
    import shutil

    from bad_cases.scripts import prepared

    shutil.copy(prepared() / "user_code.py", pathlib.Path("given_code.py"))


def of_data():
    found = []
    for name in DATA:
        file = f"{name}.npz"
        found.append(script_case("train", f"--dataset={{folder}}/{file}", named=("dataset", file)))
    for name in ("no_labels", *DATA[:9]):
        file = f"{name}.npz"
        found.append(script_case("share", f"--task=a={{folder}}/{file}", named=("task", file)))
    for name in TABLES:
        found.append(script_case("train", f"--dataset={{folder}}/{name}", named=("dataset", name)))
    for name in ("returns_shuffled", "returns_any_shape"):
        flags = [f"--dataset=given_code:{name}", "--cache=none"]
        found.append(script_case("train", *flags, named=(name,), prepare=copy_code))
    found.append(script_case("train", "--dataset={folder}/alone", named=("images/1.png",)))
    for flag in ("--augment=flip", "--cache=none", "--skip_broken_images"):
        found.append(script_case("train", flag))
    for name in ("no_images", "nothing"):
        found.append(script_case("train", f"--dataset={{folder}}/{name}"))
    bad_images = "bad_images/a/1.png"
    found.append(script_case("train", "--dataset={folder}/bad_images", named=(bad_images,)))
    for name in FUNCTIONS:
        found.append(script_case("train", f"--dataset=given_code:{name}", prepare=copy_code))
    for name in FUNCTIONS[:6]:
        found.append(script_case("distill", f"--student=given_code:{name}", prepare=copy_code))
    for file in ("raises.py", "leaves.py", "syntax.py"):
        found.append(script_case("export", f"--custom_objects={{folder}}/{file}"))
    return found


def of_models():
    found = []
    for name in KERAS_FILES:
        file = f"{name}.keras"
        found.append(script_case("export", f"--model={{folder}}/{file}"))
        found.append(script_case("evaluate", f"{{folder}}/{file}", named=(file,)))
        found.append(script_case("distill", f"--teacher={{folder}}/{file}"))
        file = f"{name}.tflite"
        found.append(script_case("evaluate", f"{{folder}}/{file}", named=(file,)))
        found.append(
            script_case("distill", f"--teacher={{folder}}/{file}", named=("teacher", file))
        )
    for file in ("width.keras", "classes.keras", "outputs.keras", "damaged.h5"):
        found.append(script_case("export", f"--model={{folder}}/{file}"))
        found.append(script_case("prune", f"--model={{folder}}/{file}"))
        found.append(script_case("prune_channels", f"--model={{folder}}/{file}"))
        found.append(script_case("evaluate", f"{{folder}}/{file}", named=(file, "model")))
        if file != "classes.keras":
            found.append(script_case("share", f"--backbone={{folder}}/{file}"))
    for file in ("width.keras", "classes.keras", "outputs.keras"):
        found.append(
            script_case("distill", f"--student={{folder}}/{file}", named=("student", file))
        )
        found.append(script_case("distill", f"--teacher={{folder}}/{file}"))
    return found


def of_contradictions():
    both = "--feature_loss=matching"
    return [
        script_case("compress", "--stages=quantize", "--alpha=0.5", named=("alpha",)),
        script_case("compress", "--stages=prune", "--quantization=int8", named=("quantization",)),
        script_case(
            "compress", "--stages=distill", "--final_sparsity=0.5", named=("final_sparsity",)
        ),
        script_case("distill", "--teacher_layers=hidden", named=("student_layers",)),
        script_case("distill", both, named=("teacher_layers",)),
        script_case("distill", "--soft_loss=none", named=("soft_loss",)),
        script_case(
            "distill",
            *(both, "--teacher_layers=no_such", "--student_layers=hidden"),
            named=("teacher_layer",),
        ),
        script_case(
            "distill",
            *(both, "--teacher_layers=hidden", "--student_layers=no_such"),
            named=("student_layer",),
        ),
        script_case("distill", "--teacher_weights=1,2", named=("teacher_weights",)),
        script_case("prune", "--prune_begin=0.8", "--prune_end=0.2", named=("prune_",)),
        script_case("prune", "--prune_begin=0.5", "--prune_end=0.5", named=("prune_",)),
        script_case("prune", "--n_m=2,4", "--block_size=1,4", named=("n_m", "block_size")),
        script_case("prune", "--iterative", "--criterion=random", named=("criterion",)),
        script_case("prune", "--iterative", "--straight_through", named=("straight_through",)),
        script_case("prune", "--iterative", "--n_m=2,4", named=("n_m",)),
        script_case("prune", "--step=0.2", named=("step",)),
        script_case("prune", "--tolerance=0.2", named=("tolerance",)),
        script_case("prune", "--exclude=hidden,head", named=("exclude", "kernel")),
        script_case(
            "sparse_train", "--technique=proximal_l1", "--sparsity=0.5", named=("sparsity",)
        ),
        script_case("sparse_train", "--l1=0.5", named=("l1",)),
        script_case(
            "sparse_train", "--technique=static", "--mask_updates=5", named=("mask_updates",)
        ),
        script_case("prune_channels", "--steps=5", named=("epochs", "steps")),
        script_case("prune_channels", "--importance=bn_scale", named=("bn_scale",)),
        script_case("prune_channels", "--exclude=hidden,head", named=("excluded",)),
        script_case("prune_channels", "--max_macs=1000000000", named=("1,000,000,000", "max_macs")),
        script_case("prune_channels", "--scope=layer", named=("scope",)),
        script_case("compress", "--max_macs=0.5", "--student=0.5", named=("max_macs",)),
        script_case("compress", "--stages=cluster,prune", named=("stages",)),
        script_case("compress", "--stages=quantize_aware", named=("stages",)),
        script_case("compress", "--weight_bits=4", named=("weight_bits", "quantize_aware")),
        script_case("cluster", "--exclude=hidden,head", named=("exclude", "kernel")),
        script_case("quantize", "--quantization=float16", named=("quantization",)),
        script_case("quantize", "--weight_bits=4", "--activation_bits=16", named=("weight_bits",)),
        script_case("quantize", "--ranges=learned", "--freeze_after=0.5", named=("freeze_after",)),
        script_case("quantize", "--activation_bits=16", "--input_type=int8", named=("input_type",)),
        script_case("export", "--quantization=none", "--input_type=int8", named=("input_type",)),
        script_case(
            "export", "--quantization=float16", "--output_type=uint8", named=("output_type",)
        ),
        script_case("share", "--input_type=int8", named=("input_type",)),
        script_case("share", "--adapter=ia3", "--rank=4", named=("rank",)),
        script_case("share", "--sequence_length=16", named=("sequence_length",)),
        script_case("share", "--pooling=mean", named=("pooling",)),
        script_case("share", "--pooling=first", named=("pooling",)),
        script_case(
            "share",
            *("--task=a={folder}/data.npz", "--task=a={folder}/data.npz", "--seed=1"),
            named=("task",),
        ),
        script_case(
            "share",
            *("--task=a={folder}/data.npz", "--task=b=x.csv:text:label"),
            named=("task",),
        ),
        script_case("predict", "--task=no_such"),
        script_case("predict", "a text", named=("text", "input")),
        script_case("evaluate", "no_such.keras", named=("no_such.keras",)),
        script_case("evaluate", "{folder}/nothing", named=("nothing",)),
        script_case("evaluate", "", named=(".keras",)),
        script_case("export", "--epochs=3"),
        script_case("train", "--model={folder}/model.keras"),
        script_case("train", "--learning_rate=1e30", named=("learning_rate",)),
    ]


def cases():
    finished_run()  # no case has to wait for it
    return [*of_data(), *of_models(), *of_contradictions()]
