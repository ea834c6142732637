"""Accuracy and bytes of int8 files: pruned, clustered, quantise-aware, by tfpeft and by TFMOT.

    python benchmarks/quantization_quality.py --data_dir=data

A MobileNet-like network of 184,000 weights is trained in Keras 3; its weights go to the equal
tf_keras model. From there tfpeft and TFMOT do the same, for the same epochs on the same batches,
with Adam whose rate falls to 0 as a cosine:

- "float32" and "int8, post-training" have the trained weights (400 samples for the ranges).
- "quantise-aware": tuned with rounding.
- "pruned": tuned to 93.5% zeros (in TFMOT in each kernel, in tfpeft of all kernels together), then
  tuned with rounding; the zeros stay.
- "clustered": tuned to 16 values per kernel, then tuned with rounding; the clusters stay.
- "all three": the pruned model, clustered, then tuned with rounding.
- "all three together": all of that in one training of as many epochs, distilled from the float32
  model, which TFMOT cannot.

Of each file: accuracy on all 10,000 test images, how many classes are those of the model in Keras
that it was written from, bytes, gzip bytes, milliseconds of a sample on one thread, all files in
turn; for TFLite Micro its bytes (constants as tables of values where that is smaller) and its
arena; for an Ethos-U55 of 128 MACs what Vela writes, and Vela's estimate of the time. Runs
that are in --output already are not run again; the files are beside it.

--data_dir has fashion_mnist.npz and cifar10.npz. Cost: about half an hour on 2 cores for a seed of
a dataset. The tables are in README.md.
"""

import json
import pathlib
import time

import keras
import machine
import numpy as np
from absl import app, flags
from quantization_libraries import Tfmot, Tfpeft
from quantization_networks import mobilenet_like

import tfpeft
from tfpeft.evaluation.latency import round_robin

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz and cifar10.npz.")
flags.DEFINE_string("output", "quantization_quality", "Folder of the files and results.")
flags.DEFINE_list("datasets", ["fashion_mnist", "cifar10"], "Datasets.")
flags.DEFINE_list("libraries", ["tfpeft", "TFMOT"], "Libraries.")
flags.DEFINE_list("seeds", ["0"], "A run each.")
flags.DEFINE_integer("epochs", 10, "Of the float32 model.", lower_bound=1)
flags.DEFINE_integer("tuning_epochs", 4, "Of each further training.", lower_bound=1)
flags.DEFINE_float("learning_rate", 3e-3, "Of the float32 model, at the beginning.")
flags.DEFINE_float("tuning_rate", 1e-3, "Of each further training, at the beginning.")
flags.DEFINE_float("sparsity", 0.935, "Fraction of zeros in pruned kernels.")
flags.DEFINE_integer("clusters", 16, "Distinct values of clustered kernels.")
flags.DEFINE_integer("batch_size", 128, "Images in a batch.")
flags.DEFINE_integer("limit", None, "Training images, the first ones; default: all.")

TOGETHER = "all three together"
ROWS = (
    "float32",
    "int8, post-training",
    "quantise-aware",
    "pruned",
    "clustered",
    "all three",
    TOGETHER,
)
LIBRARIES = {"tfpeft": Tfpeft, "TFMOT": Tfmot}
COLUMNS = {
    "accuracy": "accuracy, %",
    "agreement": "as in Keras, %",
    "bytes": "bytes",
    "gzip": "gzip bytes",
    "ms": "ms",
    "tflm": "TFLM bytes",
    "arena": "TFLM arena",
    "vela": "Vela bytes",
    "npu_ms": "Vela ms",
}
"""What is measured -> its heading."""
NPU = "ethos-u55-128"


def load(dataset):
    """Returns (training images, labels), (test images, labels), with values in [0, 1]."""
    with np.load(pathlib.Path(FLAGS.data_dir) / f"{dataset}.npz") as arrays:
        sides = []
        for part in ("train", "test"):
            x = arrays[f"x_{part}"].astype("float32") / 255
            y = arrays[f"y_{part}"].ravel().astype("int64")
            sides.append((x if x.ndim == 4 else x[..., None], y))
    train = tuple(array[: FLAGS.limit] for array in sides[0])
    return train, sides[1]


def models(library, model):
    """Yields (row, model, quantization), from the trained float32 model of a library."""
    epochs = FLAGS.tuning_epochs
    yield "float32", model, "none"
    yield "int8, post-training", model, "int8"
    yield "quantise-aware", library.quantized(model, epochs), "int8"
    pruned = library.pruned(model, epochs)
    yield "pruned", library.quantized(pruned, epochs, kept="zeros"), "int8"
    clustered = library.clustered(model, epochs)
    yield "clustered", library.quantized(clustered, epochs, kept="clusters"), "int8"
    both = library.clustered(pruned, epochs)
    yield "all three", library.quantized(both, epochs, kept="clusters"), "int8"
    if isinstance(library, Tfpeft):
        yield TOGETHER, library.all_in_one(model, 3 * epochs), "int8"


def figures(path, model, test):
    """Returns what a file and its model make of the test images."""
    file = tfpeft.TFLiteFile(path)
    found = file.predict(test[0]).argmax(-1)
    expected = model.predict(test[0], batch_size=500, verbose=0).argmax(-1)
    return {
        "accuracy": float(np.mean(found == test[1])),
        "in_keras": float(np.mean(expected == test[1])),
        "agreement": float(np.mean(found == expected)),
        "bytes": file.contents.size_bytes,
        "gzip": file.contents.gzip_bytes,
        "int8_share": file.contents.int8_share,
    }


def run(name, dataset, seed, folder):
    """Yields a result for each file of a library, which are in a folder afterwards."""
    train, test = load(dataset)
    settings = {
        "batch_size": FLAGS.batch_size,
        "seed": seed,
        "sparsity": FLAGS.sparsity,
        "clusters": FLAGS.clusters,
        "learning_rate": FLAGS.tuning_rate,
    }
    original = folder / f"{dataset}_{seed}.keras"
    if not original.exists():
        trained = Tfpeft(*train, **settings).trained(
            mobilenet_like, FLAGS.epochs, FLAGS.learning_rate
        )
        trained.save(original)
    model = keras.models.load_model(original)
    library = LIBRARIES[name](*train, **settings)
    if name == "TFMOT":
        model = library.copied(model, mobilenet_like)
    started = time.perf_counter()
    for row, each, quantization in models(library, model):
        path = folder / f"{dataset}_{seed}_{name}_{ROWS.index(row)}.tflite"
        library.export(each, path, quantization)
        result = {"row": row, "seconds": time.perf_counter() - started, "path": str(path)}
        yield result | figures(path, each, test)
        started = time.perf_counter()


def on_devices(path):
    """Returns what TFLite Micro and an Ethos-U55 make of an int8 file."""
    described = tfpeft.describe_tflite(path, target="tflm")
    tables = described.device.compressed
    npu = tfpeft.describe_tflite(path, target=NPU).device
    return {
        "tflm": described.size_bytes if tables is None else tables.size_bytes,
        "arena": described.device.arena_bytes,
        "vela": npu.compiled_bytes,
        "npu_ms": npu.inference_ms,
    }


def measured(results, dataset):
    """Returns the results with the milliseconds of a sample, all files in turn, and of devices."""
    sample = load(dataset)[1][0][:1]
    programs = {each["path"]: tfpeft.TFLiteFile(each["path"]).prepare(sample) for each in results}
    times = round_robin(programs)
    return [
        {
            **each,
            "ms": times[each["path"]][0],
            **(on_devices(each["path"]) if each["int8_share"] == 1 else {}),
        }
        for each in results
    ]


def cell(found, name):
    """Returns the mean over the seeds; of the accuracy the spread as well."""
    values = [each[name] for each in found if name in each]
    if not values:
        return "-"
    mean = np.mean(values)
    if name in ("accuracy", "agreement"):
        is_spread = name == "accuracy" and len(values) > 1
        spread = f" ({100 * (max(values) - min(values)):.2f})" if is_spread else ""
        return f"{100 * mean:.2f}{spread}"
    return f"{mean:.3f}" if name.endswith("ms") else f"{mean:,.0f}"


def table(dataset, results):
    """Returns the table of a dataset as Markdown."""
    lines = [
        f"| {' | '.join([dataset, 'library', *COLUMNS.values()])} |",
        f"|---|---|{'---:|' * len(COLUMNS)}",
    ]
    for row in ROWS:
        for library in FLAGS.libraries:
            key = {"dataset": dataset, "row": row, "library": library}
            found = [each for each in results if key.items() <= each.items()]
            if found:
                cells = [cell(found, name) for name in COLUMNS]
                lines.append(f"| {' | '.join([row, library, *cells])} |")
    return "\n".join(lines)


def main(_):
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "results.jsonl"
    done = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    runs = [
        {"dataset": dataset, "seed": int(seed), "library": library}
        for dataset in FLAGS.datasets
        for seed in FLAGS.seeds
        for library in FLAGS.libraries
    ]
    for key in runs:
        last = TOGETHER if key["library"] == "tfpeft" else "all three"
        if any((key | {"row": last}).items() <= each.items() for each in done):
            continue
        for result in run(key["library"], key["dataset"], key["seed"], folder):
            done.append(key | result)
            print(json.dumps(done[-1]), flush=True)
            with output.open("a") as file:
                file.write(json.dumps(done[-1]) + "\n")
    print(machine.describe())
    for dataset in FLAGS.datasets:
        found = [each for each in done if each["dataset"] == dataset]
        print(f"\n{table(dataset, measured(found, dataset))}")


if __name__ == "__main__":
    app.run(main)
