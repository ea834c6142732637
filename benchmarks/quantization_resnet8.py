"""MLPerf Tiny's ResNet8 in fewer bytes: 4-bit weights, fewer channels, distillation.

    python benchmarks/quantization_resnet8.py --data_dir=data --mlperf_dir=mlperf_tiny

The bar is the public int8 file of MLPerf Tiny: 98,496 bytes, 86.97% of the 10,000 test images of
CIFAR-10. Each try takes the trained float32 model without its softmax, removes channels, and tunes
the quantise-aware model by distillation from the float32 model (alpha = 0.5, T = 2) with Adam whose
rate falls from 3e-4 to 0 as a cosine, on all 50,000 images flipped and shifted by up to 4 pixels.
Then the model runs on 300 more batches in training mode, with its weights as they are: the moving
statistics of BatchNormalization lag behind weights that jump from step to step of a coarse grid.
Then the file is written, and its own accuracy measured; milliseconds are of one sample on one
thread, all files in turn.

- "inner": channels between the two convolutions of the last block, which hold 70% of the weights.
- "macs": the fraction of the multiply-accumulates that is left, of channels everywhere ("taylor").

The accuracy is that of the last epoch, whatever those before had. Runs that are in --output already
are not run again. After each epoch the model is saved beside it; `--trained` goes
on from there, with --epochs=0 it only settles and writes.

--data_dir has cifar10.npz, --mlperf_dir pretrainedResnet.h5 and pretrainedResnet_quant.tflite.
Cost: 100 seconds an epoch on one core, that is 20 minutes on 2 cores for one try. The tables are in
README.md, with the tries that were run.
"""

import json
import pathlib
import time
import typing

import channels_quality
import keras
import machine
import numpy as np
import tensorflow as tf
from absl import app, flags

import tfpeft
from tfpeft.evaluation.latency import round_robin

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 8, "Of each try.", lower_bound=0)
flags.DEFINE_integer("images", 50_000, "Training images, the first ones.", lower_bound=1000)
flags.DEFINE_list("tries", [], "Only these; default: all.")
flags.DEFINE_bool("trained", False, "Begin with the saved models, as of a run that was cut.")
flags.DEFINE_float("learning_rate", 3e-4, "At the beginning.")
flags.DEFINE_integer("threads", 0, "Threads of TensorFlow; 0 for all cores.")

BATCH_SIZE, ALPHA, TEMPERATURE = 128, 0.5, 2.0
SCORED, CALIBRATED, SETTLING = 2000, 400, 300
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Try(typing.NamedTuple):
    """What is done before tuning."""

    weight_bits: int = 8
    inner: int = 64
    macs: float = 1.0
    ranges: str = "moving_average"


TRIES = {
    "8 bits": Try(),
    "4 bits": Try(4),
    "4 bits and 63 inner": Try(4, inner=63),
    "8 bits and 0.7 of the MACs": Try(macs=0.7),
    "8 bits and 0.5 of the MACs": Try(macs=0.5),
}


def original():
    """Returns MLPerf Tiny's model without its softmax."""
    path = pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet.h5"
    model = keras.models.load_model(path, compile=False)
    config = model.get_config()
    config["layers"][-1]["config"]["activation"] = "linear"
    logits = keras.Model.from_config(config)
    logits.set_weights(model.get_weights())
    logits.compile("adam", LOSS)
    return logits


def smaller(model, tried, data):
    """Returns the model without the channels that a try removes."""
    sample = data[0][:SCORED].astype("float32"), data[1][:SCORED]
    if tried.inner < 64:
        others = [layer.name for layer in model.layers if layer.name != "conv2d_6"]
        kernels = [n for n in others if n.startswith(("conv2d", "dense"))]
        model = tfpeft.prune_channels(
            model, ratio=1 - tried.inner / 64, data=sample, scope="layer", exclude=kernels
        )
    if tried.macs < 1:
        model = tfpeft.prune_channels(model, max_macs=tried.macs, data=sample)
    return model


class Saved(keras.callbacks.Callback):
    """Saves the model after each epoch, and prints the accuracy on test images."""

    def __init__(self, path, student, test):
        super().__init__()
        self._path, self._student, self._test = path, student, test

    def on_epoch_end(self, epoch, logs=None):
        self._student.save(self._path)
        share = channels_quality.accuracy(self._student, self._test)
        print(f"{self._path.stem}: epoch {epoch + 1}, {share:.2%}", flush=True)


def tuned(teacher, student, data, test, path):
    """Trains a quantise-aware model by distillation."""
    steps = len(data[1]) // BATCH_SIZE
    schedule = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, FLAGS.epochs * steps)
    model = tfpeft.Distiller(
        teacher, student, alpha=ALPHA, temperature=TEMPERATURE, student_from_logits=True
    )
    model.compile(keras.optimizers.Adam(schedule), LOSS, steps_per_execution=10)
    keras.utils.set_random_seed(0)
    batches = channels_quality.batches(data, BATCH_SIZE, 0)
    callbacks = [Saved(path, student, test)]
    model.fit(batches, epochs=FLAGS.epochs, shuffle=False, verbose=0, callbacks=callbacks)


def settle(student, data):
    """Moves BatchNormalization and ranges towards batches, with the weights as they are."""
    step = tf.function(lambda x: student(x, training=True))
    for images, _ in channels_quality.batches(data, BATCH_SIZE, 1).take(SETTLING):
        step(images)


def run(name, teacher, data, test, folder):
    """Returns what a try gives; its file is in the folder."""
    started, tried = time.perf_counter(), TRIES[name]
    student = tfpeft.quantize_aware(
        smaller(teacher, tried, data),
        weight_bits=tried.weight_bits,
        ranges=tried.ranges,
        representative_data=data[0][:CALIBRATED].astype("float32"),
    )
    before = channels_quality.accuracy(student, test)
    path = folder / f"{name.replace(' ', '_')}.tflite"
    if FLAGS.trained:
        student = keras.models.load_model(path.with_suffix(".keras"), compile=False)
    if FLAGS.epochs:
        tuned(teacher, student, data, test, path.with_suffix(".keras"))
    unsettled = channels_quality.accuracy(student, test)
    settle(student, data)
    tfpeft.export_tflite(
        student, path, quantization="int8", representative_data=test[0][:200], compact=True
    )
    file = tfpeft.TFLiteFile(path)
    classes = file.predict(test[0]).argmax(-1)
    expected = student.predict(test[0], batch_size=500, verbose=0).argmax(-1)
    return {
        "name": name,
        "path": str(path),
        "epochs": FLAGS.epochs,
        "images": len(data[1]),
        "untuned": before,
        "unsettled": unsettled,
        "accuracy": float(np.mean(classes == test[1])),
        "agreement": float(np.mean(classes == expected)),
        "bytes": file.contents.size_bytes,
        "gzip": file.contents.gzip_bytes,
        "macs": file.macs(),
        "seconds": time.perf_counter() - started,
    }


def table(rows, test):
    """Returns all files, theirs first, as Markdown."""
    path = str(pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet_quant.tflite")
    theirs = tfpeft.TFLiteFile(path)
    found = np.concatenate([theirs.predict(test[0][i : i + 1]) for i in range(len(test[1]))])
    contents = theirs.contents
    first = {
        "name": "MLPerf Tiny's int8 file",
        "path": path,
        "epochs": 0,
        "accuracy": float(np.mean(found.argmax(-1) == test[1])),
        "agreement": None,
        "bytes": contents.size_bytes,
        "gzip": contents.gzip_bytes,
        "macs": theirs.macs(),
    }
    rows = [first, *rows]
    files = {row["path"]: tfpeft.TFLiteFile(row["path"]) for row in rows}
    times = round_robin({p: file.prepare(test[0][:1]) for p, file in files.items()})
    lines = [
        "| file | epochs | accuracy, % | as in Keras, % | bytes | gzip bytes | MACs | ms | x |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        agreement = "" if row["agreement"] is None else f"{100 * row['agreement']:.2f}"
        ms = times[row["path"]][0]
        lines.append(
            f"| {row['name']} | {row['epochs']} | {100 * row['accuracy']:.2f} | {agreement} "
            f"| {row['bytes']:,} | {row['gzip']:,} | {row['macs'] / 1e6:.1f} M | {ms:.3f} "
            f"| {ms / times[path][0]:.2f} |"
        )
    return "\n".join(lines)


def main(_):
    if FLAGS.threads:
        tf.config.threading.set_intra_op_parallelism_threads(FLAGS.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / "results.jsonl"
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    data, test = channels_quality.load()
    data = tuple(array[: FLAGS.images] for array in data)
    test = test[0].astype("float32"), test[1]
    teacher = original()
    print(f"float32: {channels_quality.accuracy(teacher, test):.2%}", flush=True)
    for name in FLAGS.tries or TRIES:
        key = {"name": name, "epochs": FLAGS.epochs, "images": len(data[1])}
        if any(key.items() <= row.items() for row in rows):
            continue
        rows.append(run(name, teacher, data, test, folder))
        print(json.dumps(rows[-1]), flush=True)
        with output.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
    print(f"{machine.describe()}\n\n{table(rows, test)}")


if __name__ == "__main__":
    flags.FLAGS.set_default("output", "quantization_resnet8")
    app.run(main)
