"""What a student of Fashion-MNIST or CIFAR-10 gains from a teacher: tfpeft's and Keras's Distiller.

    python benchmarks/distillation_quality.py --data_dir=data    # NAME.npz are in data/

A teacher is trained once for each dataset, on all of its training images. Then every method trains
the same student from the same weights, on the same batches, for the same epochs, with Adam(1e-3)
that falls to 0 as a cosine, alpha = 0.1 and T = 4 where no other is named. Students of CIFAR-10
train on its first 20,000 training images, as convolutions take their time. The accuracy is that of
the last epoch on the 10,000 test images. tfpeft's methods learn from answers that were computed
once, Keras's run the teacher in every step. Runs that are in --output already are not run again,
and a teacher beside it is used again.

Cost: about 50 minutes on 2 cores. The table with its machine and date is in README.md.
"""

import json
import pathlib
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from timing import without_autotuning

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz and cifar10.npz.")
flags.DEFINE_string("output", "distillation_quality.jsonl", "A line for each run that is done.")
flags.DEFINE_list("datasets", ["fashion_mnist", "cifar10"], "Data to train on.")
flags.DEFINE_multi_string("methods", [], "One to run, any number of times; default: all.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run each.")

BATCH_SIZE = 128
ALPHA, TEMPERATURE = 0.1, 4.0
TEACHER_EPOCHS = {"fashion_mnist": 10, "cifar10": 12}
STUDENT_EPOCHS = {"fashion_mnist": 15, "cifar10": 15}
STUDENT_SAMPLES = {"fashion_mnist": 60000, "cifar10": 20000}
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def features(weight):
    return tfpeft.FeatureMatching(teacher_layer="features", student_layer="features", weight=weight)


def keras_distiller(loss):
    return lambda teacher, student: keras.distillation.Distiller(
        teacher, student, distillation_losses=loss(), student_loss_weight=ALPHA
    )


def tfpeft_distiller(losses):
    return lambda teacher, student: tfpeft.Distiller(
        None,
        student,
        alpha=ALPHA,
        temperature=TEMPERATURE,
        distillation_losses=losses(),
        teacher_from_logits=True,
    )


METHODS = {
    "student alone": lambda teacher, student: student,
    "keras.distillation, default loss": keras_distiller(
        lambda: keras.distillation.LogitsDistillation(temperature=TEMPERATURE)
    ),
    "keras.distillation, KLDivergence()": keras_distiller(
        lambda: keras.distillation.LogitsDistillation(
            temperature=TEMPERATURE, loss=keras.losses.KLDivergence()
        )
    ),
    "tfpeft, soft labels": tfpeft_distiller(lambda: [tfpeft.SoftLabels()]),
    "tfpeft, soft labels, T = 1": tfpeft_distiller(lambda: [tfpeft.SoftLabels(temperature=1.0)]),
    "tfpeft, soft labels and features": tfpeft_distiller(
        lambda: [tfpeft.SoftLabels(), features(1.0)]
    ),
}


def convolutions(shape, filters, strides, flips=False):
    inputs = hidden = keras.Input(shape)
    if flips:
        hidden = keras.layers.RandomFlip("horizontal")(hidden)
    for count, stride in zip(filters, strides, strict=True):
        hidden = keras.layers.Conv2D(count, 3, stride, padding="same", use_bias=False)(hidden)
        hidden = keras.layers.BatchNormalization()(hidden)
        hidden = keras.layers.ReLU()(hidden)
    hidden = keras.layers.GlobalAveragePooling2D(name="features")(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


def teacher_network(dataset):
    if dataset == "cifar10":
        return convolutions((32, 32, 3), (48, 96, 96, 192), (2, 2, 1, 2), flips=True)
    return convolutions((28, 28, 1), (32, 64, 128), (2, 2, 2))


def student_network(dataset):
    if dataset == "cifar10":
        return convolutions((32, 32, 3), (16, 32, 64), (2, 2, 2))
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Flatten(),
            keras.layers.Dense(32, activation="relu", name="features"),
            keras.layers.Dense(10),
        ]
    )


def load(dataset):
    arrays = np.load(pathlib.Path(FLAGS.data_dir) / f"{dataset}.npz")

    def images(x):
        return x.reshape(len(x), *x.shape[1:3], -1).astype("float32") / 255.0

    return [
        (images(arrays[f"x_{part}"]), arrays[f"y_{part}"].ravel().astype("int64"))
        for part in ("train", "test")
    ]


def fit(model, data, epochs, seed):
    """Trains on arrays of any structure, shuffled alike for every method."""
    data = keras.tree.map_structure(tf.constant, data)
    count = len(data[-1])
    steps = count // BATCH_SIZE
    order = tf.data.Dataset.range(count).shuffle(count, seed=seed)
    batches = order.batch(BATCH_SIZE, drop_remainder=True).map(
        lambda rows: keras.tree.map_structure(lambda array: tf.gather(array, rows), data)
    )
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(1e-3, epochs * steps)),
        HARD,
        steps_per_execution=steps // 6,
    )
    model.fit(without_autotuning(batches.prefetch(4)), epochs=epochs, verbose=0)


def accuracy(model, test):
    logits = model.predict(test[0], batch_size=1000, verbose=0)
    return float(np.mean(np.argmax(logits, -1) == test[1]))


def teacher_of(dataset, train, test, path):
    if path.exists():
        return keras.models.load_model(path)
    keras.utils.set_random_seed(0)
    teacher = teacher_network(dataset)
    fit(teacher, train, TEACHER_EPOCHS[dataset], seed=0)
    print(f"{dataset}: teacher {accuracy(teacher, test):.4f}", flush=True)
    teacher.save(path)
    return teacher


def train(dataset, method, seed, teacher, taught, data, test):
    keras.utils.set_random_seed(seed)
    student = student_network(dataset)
    model = METHODS[method](teacher, student)
    if method.startswith("tfpeft"):
        data = taught.join(data)
    fit(model, data, STUDENT_EPOCHS[dataset], seed)
    return accuracy(student, test)


def table(rows):
    """Mean and spread (largest minus smallest) of the seeds, in percent, as Markdown."""
    datasets = list(dict.fromkeys(row["dataset"] for row in rows))
    lines = [f"| test accuracy, % | {' | '.join(datasets)} |", "|---|" + "---|" * len(datasets)]
    for method in ["teacher", *METHODS]:
        cells = []
        for dataset in datasets:
            found = [
                100 * row["accuracy"]
                for row in rows
                if row["dataset"] == dataset and row["method"] == method
            ]
            spread = f" ({max(found) - min(found):.2f})" if len(found) > 1 else ""
            cells.append(f"{np.mean(found):.2f}{spread}" if found else "")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    output = pathlib.Path(FLAGS.output)
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    done = {(row["dataset"], row["method"], row["seed"]) for row in rows}
    for dataset in FLAGS.datasets:
        data, test = load(dataset)
        teacher = teacher_of(dataset, data, test, output.with_suffix(f".{dataset}.keras"))
        data = tuple(array[: STUDENT_SAMPLES[dataset]] for array in data)
        taught = tfpeft.precompute(teacher, data, features=["features"])

        def record(dataset, method, seed, value, start):
            row = {"dataset": dataset, "method": method, "seed": seed, "accuracy": value}
            rows.append(row)
            with output.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{row} {time.time() - start:.0f} s", flush=True)

        if (dataset, "teacher", 0) not in done:
            record(dataset, "teacher", 0, accuracy(teacher, test), time.time())
        for seed in map(int, FLAGS.seeds):
            for method in FLAGS.methods or METHODS:
                if (dataset, method, seed) not in done:
                    start = time.time()
                    value = train(dataset, method, seed, teacher, taught, data, test)
                    record(dataset, method, seed, value, start)
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
