r"""What evaluate costs: its pass over data against predict and a bare loop, and its memory.

    python benchmarks/evaluation_cost.py
    python benchmarks/evaluation_cost.py --samples=10000 --stream_gb=2 --rounds=1

The time of a pass, which reads the data and has all figures and intervals in the end, is compared
with that of `model.predict` on the same dataset, and for a .tflite file with that of an interpreter
on all cores that is fed the same batches. What evaluate measures once, whatever the data, comes in
a column of its own: the export of a Keras model, its MACs, and the latency of its file. The passes
alternate, and the median of the rounds counts; beside other work the ratio of CPU time says more.

The memory is the peak of a process that evaluates a stream of random images, of which none is
kept, beyond that of a process that has the same model and predicts one batch.
"""

import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import machine
import numpy as np
import tensorflow as tf
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

import tfpeft
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.subjects import FileSubject, KerasSubject
from tfpeft.reports.tables import markdown_table

FLAGS = flags.FLAGS
flags.DEFINE_integer("samples", 60_000, "Images of a pass.")
flags.DEFINE_integer("batch_size", 128, "Images of a batch.")
flags.DEFINE_integer("rounds", 3, "Passes of each kind.")
flags.DEFINE_float("stream_gb", 20.0, "Size of the stream that memory is measured on, in GB.")
flags.DEFINE_enum("child", None, ["predict", "evaluate"], "Used inside: what a process runs.")

SIDE = 128  # of the images of the stream
MARGIN_GB = 2.0  # beyond the model


def cnn():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def small_cnn():
    """Returns a model that takes less time than it takes to make the images of the stream."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.Conv2D(16, 4, strides=4, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def images(samples):
    """Returns a dataset of as many random images as Fashion-MNIST has, with classes."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (samples, 28, 28, 1), "uint8")
    pairs = (x, rng.integers(0, 10, samples))
    return tf.data.Dataset.from_tensor_slices(pairs).batch(FLAGS.batch_size).prefetch(2)


def bare_loop(path, data):
    """Runs an interpreter on all cores on each batch of a dataset."""
    interpreter = Interpreter(str(path), num_threads=os.cpu_count())
    (given,), (made,) = interpreter.get_input_details(), interpreter.get_output_details()
    size, outputs = None, []
    for x, _ in data:
        if len(x) != size:
            size = len(x)
            interpreter.resize_tensor_input(given["index"], x.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given["index"], x.numpy().astype("float32"))
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(made["index"]))
    return np.concatenate(outputs)


def seconds(function):
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def both_seconds(function):
    """Returns the seconds of a function, and those that all its threads compute."""
    started = time.process_time()
    return seconds(function), time.process_time() - started


def time_passes():
    """Returns rows of the table of times."""
    model, data = cnn(), images(FLAGS.samples)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        tfpeft.export_tflite(model, path)
        file = tfpeft.TFLiteFile(path)
        kinds = {
            "Keras model, beside `predict`": (
                lambda: model.predict(data, verbose=0),
                lambda: measure_quality({"model": KerasSubject(model)}, data),
                model,
            ),
            ".tflite file, beside a bare loop": (
                lambda: bare_loop(path, data),
                lambda: measure_quality({"file": FileSubject(file, None)}, data),
                path,
            ),
        }
        for name, (baseline, one_pass, evaluated) in kinds.items():
            baseline(), one_pass()  # both are traced, and their memory is there
            times = [
                (*both_seconds(baseline), *both_seconds(one_pass)) for _ in range(FLAGS.rounds)
            ]
            before, cpu_before, after, cpu_after = map(statistics.median, zip(*times, strict=True))
            few = data.take(1)
            fixed = seconds(lambda few=few, model=evaluated: tfpeft.evaluate(model, few))
            ratios = (f"{after / before:.2f}", f"{cpu_after / cpu_before:.2f}")
            rows.append([name, f"{before:.2f}", f"{after:.2f}", *ratios, f"{fixed:.2f}"])
            print(rows[-1], flush=True)
    return rows


def stream():
    """Returns a dataset of random images, made one batch at a time, of `stream_gb` in float32."""
    batch = FLAGS.batch_size
    count = int(FLAGS.stream_gb * 1e9 / (batch * SIDE * SIDE * 3 * 4))

    def pair(i):
        x = tf.random.stateless_uniform((batch, SIDE, SIDE, 3), (0, i), 0.0, 255.0)
        return x, tf.random.stateless_uniform((batch,), (1, i), 0, 10, tf.int32)

    return tf.data.Dataset.range(count).map(pair).prefetch(1)


def run_child():
    """Prints the peak memory of this process, in GB, and the seconds of its work."""
    model, data = small_cnn(), stream()
    if FLAGS.child == "predict":
        spent = seconds(lambda: model.predict(data.take(1), verbose=0))
    else:
        spent = seconds(lambda: tfpeft.evaluate(model, data))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, spent)


def peak_memory():
    """Returns the peak of evaluate beyond the model's, in GB, and its seconds."""
    found = {}
    for child in ("predict", "evaluate"):
        given = [f"--stream_gb={FLAGS.stream_gb}", f"--batch_size={FLAGS.batch_size}"]
        command = [sys.executable, __file__, f"--child={child}", *given]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        found[child] = [float(each) for each in output.split()[-2:]]
    return found["predict"][0], found["evaluate"][0], found["evaluate"][1]


def main(argv):
    del argv
    if FLAGS.child:
        run_child()
        return
    print(machine.describe(), flush=True)
    columns = ("seconds", "a pass of evaluate", "ratio", "ratio of CPU time")
    header = ["", *columns, "evaluate of one batch"]
    print(f"\n{FLAGS.samples:,} images of 28x28, batches of {FLAGS.batch_size}\n", flush=True)
    print(markdown_table(header, time_passes()), flush=True)
    own, peak, spent = peak_memory()
    print(
        f"\nA stream of {FLAGS.stream_gb:g} GB in {spent:.0f} s: a peak of {peak:.2f} GB, where "
        f"the model and a batch take {own:.2f} GB: {peak - own:.2f} GB more, of {MARGIN_GB:g}."
    )
    if peak - own > MARGIN_GB:
        sys.exit(1)


if __name__ == "__main__":
    app.run(main)
