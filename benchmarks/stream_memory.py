"""Peak memory of work on data that is streamed: 20 GB of images through a few hundred MB.

    python benchmarks/stream_memory.py
    python benchmarks/stream_memory.py --gigabytes=2 --jobs=evaluate

The data is a tf.data.Dataset of float32 images (192, 192, 3) that is made while it is read. A job
is a process: `precompute` to a folder, `evaluate` of a model and of a .tflite file, and
`pipelines.compress` (distillation from stored outputs for one epoch, an int8 file, the report). Its
peak memory is compared with that of the same job on 0.1 GB, in which are TensorFlow, the model and
the graphs. Status 1 if any needs 2 GB more.

Cost: about 12 minutes on 2 busy cores. The table with machine and date is in README.md.
"""

import contextlib
import json
import os
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import machine
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_float("gigabytes", 20.0, "Size of the data, in 10^9 bytes.", lower_bound=0.2)
JOBS = ("precompute", "evaluate", "evaluate_file", "compress")
flags.DEFINE_list("jobs", list(JOBS), "Jobs to measure.")
flags.DEFINE_string("child", "", "Used inside: the job that a process measures.")
flags.DEFINE_string("folder", "", "Used inside: the folder of that process.")

_LIMIT = 2e9  # bytes above those of the same job on little data
_SIDE, _CLASSES = 192, 10
_SAMPLE_BYTES = 4 * _SIDE * _SIDE * 3
_LITTLE = 0.1


def images():
    """Returns a dataset of single images and labels, as --dataset=stream_memory:images reads it."""
    import tensorflow as tf

    samples = int(float(os.environ["STREAM_GIGABYTES"]) * 1e9 / _SAMPLE_BYTES)
    patterns = tf.random.stateless_uniform((_CLASSES, _SIDE, _SIDE, 3), (1, 2), maxval=200.0)

    def image(number):
        label = tf.random.stateless_uniform((), [number, 3], 0, _CLASSES, tf.int64)
        brightness = tf.random.stateless_uniform((), [number, 4], 0.8, 1.2)
        return patterns[label] * brightness, label

    return tf.data.Dataset.range(samples).map(image, num_parallel_calls=2)


def network():
    """Returns a small trained network for the images."""
    import keras

    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((_SIDE, _SIDE, 3)),
            layers.Rescaling(1 / 128, -1),
            layers.AveragePooling2D(8),
            layers.Conv2D(16, 3, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(_CLASSES),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(images().take(400).batch(20), epochs=3, verbose=0)
    return model


def run_job(job, folder):
    """Runs a job in this process, or writes the models of the others."""
    import keras

    import tfpeft
    from pipelines import compress

    data = images().batch(32)
    if job == "prepare":
        model = network()
        model.save(folder / "model.keras")
        tfpeft.export_tflite(model, folder / "model.tflite")
    elif job == "compress":
        flags_of_job = [
            *("--dataset=stream_memory:images", "--cache=none", f"--model={folder}/model.keras"),
            *("--stages=distill,quantize", "--student=0.5", "--precompute=folder", "--epochs=1"),
            *("--learning_rate=0.01", f"--name={len(data)}", f"--output_dir={folder}"),
        ]
        with contextlib.redirect_stdout(sys.stderr):
            compress.SCRIPT.call(flags_of_job)
    elif job == "precompute":
        teacher = keras.models.load_model(folder / "model.keras")
        joined = tfpeft.precompute(teacher, data, folder / f"{len(data)}").join(data)
        for _ in joined:
            pass
    else:
        name = "model.keras" if job == "evaluate" else "model.tflite"
        model = folder / name
        if job == "evaluate":
            model = keras.models.load_model(model)
        print(f"accuracy {tfpeft.evaluate(model, data).accuracy:.3f}", file=sys.stderr)


def in_process(job, gigabytes, folder):
    """Runs a job in a new process; returns its peak memory in bytes, and its seconds."""
    environment = {**os.environ, "STREAM_GIGABYTES": str(gigabytes), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, __file__, f"--child={job}", f"--folder={folder}"]
    done = subprocess.run(command, env=environment, text=True, capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{job}: {done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["bytes"], found["seconds"]


def run_child(job, folder):
    """Prints the peak memory and the seconds of a job."""
    started = time.perf_counter()
    run_job(job, folder)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"bytes": peak, "seconds": time.perf_counter() - started}))


def main(_):
    if FLAGS.child:
        run_child(FLAGS.child, pathlib.Path(FLAGS.folder))
        return
    samples = int(FLAGS.gigabytes * 1e9 / _SAMPLE_BYTES)
    print(f"{machine.describe()}; {samples:,} images of {_SAMPLE_BYTES:,} bytes\n", flush=True)
    print(f"| job | peak MB on {_LITTLE} GB | peak MB on {FLAGS.gigabytes:g} GB | more MB | s |")
    print("|---|---:|---:|---:|---:|", flush=True)
    is_more = False
    with tempfile.TemporaryDirectory() as folder:
        in_process("prepare", _LITTLE, folder)
        for job in FLAGS.jobs:
            base, _ = in_process(job, _LITTLE, folder)
            peak, seconds = in_process(job, FLAGS.gigabytes, folder)
            is_more |= peak - base > _LIMIT
            cells = (base / 1e6, peak / 1e6, (peak - base) / 1e6, seconds)
            print(f"| {job} |", " | ".join(f"{cell:,.0f}" for cell in cells), "|", flush=True)
    sys.exit(1 if is_more else 0)


if __name__ == "__main__":
    sys.modules["stream_memory"] = sys.modules[__name__]  # which --dataset names, imported once
    app.run(main)
