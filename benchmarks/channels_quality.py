"""ResNet8 on CIFAR-10 with half and a quarter of its MACs: what pruned channels cost in accuracy.

    python benchmarks/channels_quality.py --data_dir=data --mlperf_dir=mlperf_tiny

MLPerf Tiny's trained ResNet8 (87.19% of the 10,000 test images) is pruned (importance "l2"),
then tuned on the training images by distillation from itself, with Adam whose rate falls to 0 as a
cosine, on images flipped and shifted by up to 4 pixels: 20 epochs of all 50,000 (alpha = 0.5,
T = 2, 3e-3), or 200 of 1,000 (alpha = 0.1, T = 4, 1e-3). Beside it, on the same batches, for as
many epochs:

- "equal ratio": every layer loses the same fraction of its channels (scope="layer").
- "random weights": the widths of the pruned model, trained from random weights, by the same
  distillation, and from the labels alone.
- "Torch-Pruning": what benchmarks/channels_torch.py has kept of the same weights, with
  --torch_dir. Its weights come back into Keras, so that training is the same.

The accuracy is that of the last epoch. Runs that are in --output already are not run again.

--data_dir has cifar10.npz, --mlperf_dir pretrainedResnet.h5 of MLPerf Tiny. Cost: about three hours
on 2 cores with the defaults, of one seed. The tables are in README.md.
"""

import json
import pathlib
import time
import typing

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from timing import without_autotuning

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of cifar10.npz.")
flags.DEFINE_string("mlperf_dir", "mlperf_tiny", "Folder of MLPerf Tiny's trained models.")
flags.DEFINE_string("torch_dir", None, "Folder that channels_torch.py has written.")
flags.DEFINE_string("output", "channels_quality.jsonl", "A line for each run that is done.")
flags.DEFINE_list("shares", ["0.5", "0.25"], "Fractions of the MACs that are left.")
flags.DEFINE_list("samples", ["1000", "50000"], "How many training images there are.")
flags.DEFINE_multi_string("methods", [], "One to run, any number of times; default: all.")
flags.DEFINE_string("importance", "l2", "Of `prune_channels`.")
flags.DEFINE_list("seeds", ["0"], "A run each.")


class Tuning(typing.NamedTuple):
    """How a model is trained on a number of images."""

    epochs: int
    batch_size: int
    learning_rate: float
    alpha: float
    temperature: float


TUNING = {1000: Tuning(200, 50, 1e-3, 0.1, 4.0), 50000: Tuning(20, 128, 3e-3, 0.5, 2.0)}
SCORED = 2000
"""How many training images the scores are computed on, at most."""
SHIFT = 4
HARD = keras.losses.SparseCategoricalCrossentropy()


def original():
    path = pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet.h5"
    model = keras.models.load_model(path, compile=False)
    model.compile("adam", HARD)
    return model


def pruned(scope):
    def make(model, share, data, seed):
        sample = tuple(array[:SCORED] for array in data)
        return tfpeft.prune_channels(
            model, max_macs=share, importance=FLAGS.importance, data=sample, scope=scope
        )

    return make


def with_random_weights(model, share, data, seed):
    small = pruned("global")(model, share, data, seed)
    keras.utils.set_random_seed(seed)
    return keras.Model.from_config(small.get_config())


def by_torch_pruning(scope):
    def make(model, share, data, seed):
        path = pathlib.Path(FLAGS.torch_dir or "") / f"{scope}_{share}.npz"
        if FLAGS.torch_dir is None or not path.exists():
            return None
        return from_torch(model, path)

    return make


def from_torch(model, path):
    """Returns a model with the widths and weights of a file of channels_torch.py."""
    with np.load(path) as file:
        arrays = dict(file)
    config = model.get_config()
    for layer in config["layers"]:
        layer.pop("build_config", None)  # the widths of before
        if "filters" in layer["config"]:
            layer["config"]["filters"] = arrays[f"{layer['config']['name']}/kernel"].shape[-1]
    small = keras.Model.from_config(config)
    for layer in small.layers:
        for weight in layer.weights:
            weight.assign(arrays[f"{layer.name}/{weight.name}"])
    found = small.predict(arrays["images"], verbose=0)
    np.testing.assert_allclose(found, arrays["outputs"], rtol=1e-3, atol=1e-4)
    return small


def is_equal(model, path, ratio):
    """Whether tfpeft keeps the channels that Torch-Pruning keeps, with the importance "l2"."""
    small = tfpeft.prune_channels(model, ratio=ratio, importance="l2", scope="layer")
    others = from_torch(model, path)
    return all(map(np.array_equal, small.get_weights(), others.get_weights()))


METHODS = {
    "pruned": pruned("global"),
    "pruned, equal ratio": pruned("layer"),
    "random weights": with_random_weights,
    "random weights, labels alone": with_random_weights,
    "Torch-Pruning": by_torch_pruning("global"),
    "Torch-Pruning, equal ratio": by_torch_pruning("layer"),
}
"""Functions of (model, share, data, seed) that return the model to train, or None."""


def augmented(images, seed):
    """Returns images flipped or not, and shifted, each by its own amount; borders are zeros."""
    count, size = tf.shape(images)[0], images.shape[1]
    shifts = tf.random.stateless_uniform((count, 2), [seed, 0], 0, 2 * SHIFT + 1, tf.int64)
    flips = tf.random.stateless_uniform((count, 1), [seed, 1]) < 0.5
    places = tf.range(size, dtype=tf.int64)[None]
    padded = tf.pad(images, [[0, 0], [SHIFT, SHIFT], [SHIFT, SHIFT], [0, 0]])
    rows = tf.gather(padded, places + shifts[:, :1], axis=1, batch_dims=1)
    rows = tf.transpose(rows, [0, 2, 1, 3])
    columns = tf.where(flips, places[:, ::-1], places) + shifts[:, 1:]
    return tf.transpose(tf.gather(rows, columns, axis=1, batch_dims=1), [0, 2, 1, 3])


def batches(data, batch_size, seed):
    """Returns a dataset of augmented batches, alike for every method of a seed."""
    x, y = map(tf.constant, data)
    order = tf.data.Dataset.range(len(y)).shuffle(len(y), seed=seed)
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)

    def images(rows, seed):
        return tf.cast(augmented(tf.gather(x, rows), seed), tf.float32), tf.gather(y, rows)

    order = order.batch(batch_size, drop_remainder=True)
    return without_autotuning(tf.data.Dataset.zip(order, seeds).map(images).prefetch(4))


def tune(teacher, student, data, seed):
    """Trains a student; without a teacher from the labels alone."""
    how = TUNING[len(data[1])]
    steps = len(data[1]) // how.batch_size
    schedule = keras.optimizers.schedules.CosineDecay(how.learning_rate, how.epochs * steps)
    model = student
    if teacher is not None:
        model = tfpeft.Distiller(teacher, student, alpha=how.alpha, temperature=how.temperature)
    model.compile(keras.optimizers.Adam(schedule), HARD, steps_per_execution=max(1, steps // 10))
    keras.utils.set_random_seed(seed)
    dataset = batches(data, how.batch_size, seed)
    model.fit(dataset, epochs=how.epochs, shuffle=False, verbose=0)


def accuracy(model, test):
    found = model.predict(test[0], batch_size=500, verbose=0)
    return float(np.mean(np.argmax(found, -1) == test[1]))


def load():
    with np.load(pathlib.Path(FLAGS.data_dir) / "cifar10.npz") as arrays:
        return [
            (arrays[f"x_{part}"], arrays[f"y_{part}"].ravel().astype("int64"))
            for part in ("train", "test")
        ]


def subset(data, samples):
    """Returns the first training images, the same number of each class."""
    if samples == len(data[1]):
        return data
    chosen = [np.flatnonzero(data[1] == label)[: samples // 10] for label in range(10)]
    rows = np.sort(np.concatenate(chosen))
    return tuple(array[rows] for array in data)


def table(rows):
    """Mean and spread (largest minus smallest) of the seeds, in percent, as Markdown."""
    columns = sorted({(row["share"], row["samples"]) for row in rows}, key=lambda c: (-c[1], -c[0]))
    titles = [f"{share:g} of MACs, {samples:,} images" for share, samples in columns]
    lines = [f"| test accuracy, % | {' | '.join(titles)} |", "|---|" + "---:|" * len(titles)]
    for method in dict.fromkeys(row["method"] for row in rows):
        cells = []
        for share, samples in columns:
            key = {"method": method, "share": share, "samples": samples}
            found = [100 * row["accuracy"] for row in rows if key.items() <= row.items()]
            spread = f" ({max(found) - min(found):.2f})" if len(found) > 1 else ""
            cells.append(f"{np.mean(found):.2f}{spread}" if found else "")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    output = pathlib.Path(FLAGS.output)
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    images, test = load()
    model = original()
    print(f"original: {accuracy(model, (test[0].astype('float32'), test[1])):.2%}", flush=True)
    torch_files = pathlib.Path(FLAGS.torch_dir).glob("equal_*.npz") if FLAGS.torch_dir else []
    for path in sorted(torch_files):
        ratio = float(path.stem.removeprefix("equal_"))
        print(f"ratio {ratio}, same channels as Torch-Pruning: {is_equal(model, path, ratio)}")
    runs = [
        (int(samples), float(share), method, int(seed))
        for seed in FLAGS.seeds
        for samples in FLAGS.samples
        for share in FLAGS.shares
        for method in FLAGS.methods or METHODS
    ]
    for samples, share, method, seed in runs:
        key = {"samples": samples, "share": share, "method": method, "seed": seed}
        if any(key.items() <= row.items() for row in rows):
            continue
        started = time.perf_counter()
        data = subset(images, samples)
        student = METHODS[method](model, share, data, seed)
        if student is None:
            continue
        float_test = test[0].astype("float32"), test[1]
        before = accuracy(student, float_test)
        tune(None if "labels alone" in method else model, student, data, seed)
        row = {**key, "untuned": before, "accuracy": accuracy(student, float_test)}
        row |= {"params": student.count_params(), "seconds": time.perf_counter() - started}
        rows.append(row)
        print(json.dumps(row), flush=True)
        with output.open("a") as file:
            file.write(json.dumps(row) + "\n")
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
