"""The cost of sharing all-MiniLM-L6-v2: training steps, memory, prediction of two tasks, bytes.

    python benchmarks/sharing_cost.py --data_dir=data    # minilm/

Needs keras-hub, tensorflow-text and safetensors. Texts are random token numbers, as times and bytes
do not depend on them. Times are medians over rounds in which the models take turns; ratios are of
medians.
"""

import pathlib
import tempfile
import time

import keras
import keras_hub
import numpy as np
from absl import app, flags

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of minilm/.")
flags.DEFINE_integer("rounds", 5, "Measurements of each model; models take turns.")
flags.DEFINE_integer("steps", 5, "Training steps of one measurement.")
flags.DEFINE_integer("batch_size", 32, "Texts per step.")
flags.DEFINE_integer("tokens", 64, "Tokens per text.")

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
HEADS = {"sentiment": 2, "topic": 20}


def backbone():
    return keras_hub.models.BertBackbone.from_preset(f"{FLAGS.data_dir}/minilm")


def texts(count):
    shape = (count, FLAGS.tokens)
    return {
        "token_ids": np.random.default_rng(0).integers(1, 30_000, shape),
        "segment_ids": np.zeros(shape, "int32"),
        "padding_mask": np.ones(shape, "int32"),
    }


def shared_model(**options):
    return tfpeft.SharedModel(backbone(), HEADS, pooling="mean", **options)


def fully_trained():
    bert = backbone()
    vectors, mask = bert.output["sequence_output"], bert.input["padding_mask"]
    pooled = keras.layers.GlobalAveragePooling1D()(vectors, mask=mask)
    return keras.Model(bert.input, keras.layers.Dense(HEADS["topic"])(pooled))


def median_seconds(functions):
    """Returns {name: median seconds}; a first call of each function traces, and does not count."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(FLAGS.rounds):
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            times[name].append(time.perf_counter() - before)
    return {name: float(np.median(each)) for name, each in times.items()}


def training():
    """Prints time and memory of a training step of one task, by method."""
    adapted = {
        "LoRA(8) on query and value": tfpeft.LoRA(rank=8),
        "LoRA(4) on all Dense layers": tfpeft.LoRA(4, 8, target="transformer_layer_*"),
        "IA3()": tfpeft.IA3(),
        "BitFit()": tfpeft.BitFit(),
    }
    models = {"full fine-tuning": fully_trained()}
    models |= {n: shared_model(adapters={"topic": m}).task("topic") for n, m in adapted.items()}
    models["head only"] = shared_model().task("topic")
    x, y = texts(FLAGS.batch_size), np.zeros(FLAGS.batch_size, "int64")
    for model in models.values():
        model.compile("adam", LOSS, jit_compile=False)

    def steps(model):
        return lambda: [model.train_on_batch(x, y) for _ in range(FLAGS.steps)]

    times = median_seconds({name: steps(model) for name, model in models.items()})
    print("\n| a training step | ms | ratio | trained, % | gradients and optimizer, MB | ratio |")
    print("|---|---:|---:|---:|---:|---:|")
    first = "full fine-tuning"
    memory = {name: training_bytes(model) for name, model in models.items()}
    for name, model in models.items():
        trained = 100 * size(model.trainable_variables) / size(model.variables)
        print(
            f"| {name} | {1e3 * times[name] / FLAGS.steps:.0f} | {times[name] / times[first]:.2f} "
            f"| {trained:.2f} | {memory[name] / 1e6:.2f} | {memory[name] / memory[first]:.4f} |"
        )


def size(variables):
    return sum(int(np.prod(variable.shape)) for variable in variables)


def training_bytes(model):
    """Returns the bytes of the gradients and of the optimizer's variables, computed."""
    return 4 * (size(model.trainable_variables) + size(model.optimizer.variables))


def prediction():
    """Prints the time of two tasks on the same texts, and of one."""
    heads, adapters = shared_model(), shared_model(adapters=tfpeft.LoRA(rank=8))
    x = texts(4 * FLAGS.batch_size)
    models = {
        "one task": heads.task("topic"),
        "two tasks, heads only": heads,
        "two tasks, a LoRA each": adapters,
    }
    times = median_seconds({n: lambda m=m: m.predict(x, verbose=0) for n, m in models.items()})
    print(f"\n| predict, {4 * FLAGS.batch_size} texts | ms | ratio |\n|---|---:|---:|")
    for name, seconds in times.items():
        print(f"| {name} | {1e3 * seconds:.0f} | {seconds / times['one task']:.2f} |")


def files():
    """Prints the bytes that are stored and shipped for one task, and for two."""
    shared = shared_model(adapters=tfpeft.LoRA(4, 8, target="transformer_layer_*"))
    print("\n| .tflite | one task, MB | two tasks, MB | ratio | largest deviation |")
    print("|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        for quantization in ("none", "dynamic_range"):
            options = {"quantization": quantization, "representative_data": texts(8)}
            one = tfpeft.export_tflite(shared.task("topic"), folder / "one.tflite", **options)
            two = tfpeft.export_tflite(shared, folder / "two.tflite", **options)
            print(
                f"| {quantization} | {one.size_bytes / 1e6:.2f} | {two.size_bytes / 1e6:.2f} "
                f"| {two.size_bytes / one.size_bytes:.3f} | {two.max_deviation:.2g} |"
            )
        for task in HEADS:
            path = folder / f"{task}.weights.h5"
            shared.save_task(task, path)
            print(f"\nThe file of {task}: {path.stat().st_size / 1e3:.0f} kB")


def main(_):
    training()
    prediction()
    files()


if __name__ == "__main__":
    app.run(main)
