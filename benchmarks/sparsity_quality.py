"""Accuracy at 80 to 98% zeros on Fashion-MNIST: tfpeft's techniques and TFMOT's, side by side.

    python benchmarks/sparsity_quality.py --data_dir=data        # fashion_mnist.npz is in data/

Every technique trains the same network from the same weights, on the same batches, for the same
epochs with Adam(1e-3): tfpeft's on Keras 3, TFMOT's on the equal tf_keras model. The accuracy is
that of the last epoch on the 10,000 test images. Pruning is gradual, from 10% to 75% of the run;
sparse training is sparse throughout. Runs that are in --output already are not run again.

Cost: about 90 minutes on 2 cores, or an hour with a process a network. The table with its machine
and date is in README.md.
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
from tfpeft.sparsity.schedules import tfmot

import tf_keras  # isort: skip  (after tfpeft: see tfpeft/sparsity/tfmot_import.py)

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz.")
flags.DEFINE_string("output", "sparsity_quality.jsonl", "A line for each run that is done.")
flags.DEFINE_list("networks", ["mlp", "cnn"], "Networks to train.")
flags.DEFINE_list("sparsities", ["0.8", "0.9", "0.95", "0.98"], "Fractions of zeros in kernels.")
flags.DEFINE_list("techniques", [], "Only these; default: all.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run each.")

BATCH_SIZE = 128
STEPS_PER_EPOCH = 60000 // BATCH_SIZE
EPOCHS = {"mlp": 12, "cnn": 8}


def schedule(sparsity, steps):
    return tfpeft.polynomial_decay(sparsity, begin=0.1, end=0.75, total_steps=steps, frequency=100)


def pruning(criterion, **options):
    return lambda optimizer, sparsity, steps: criterion(
        optimizer, schedule(sparsity, steps), **options
    )


TECHNIQUES = {
    "TFMOT": None,
    "magnitude": pruning(tfpeft.MagnitudePruning),
    "magnitude, global": pruning(tfpeft.MagnitudePruning, scope="global"),
    "magnitude, ERK": pruning(tfpeft.MagnitudePruning, scope="erk"),
    "magnitude, ERK, straight-through": pruning(
        tfpeft.MagnitudePruning, scope="erk", straight_through=True
    ),
    "gradient, global": pruning(tfpeft.GradientPruning, scope="global"),
    "movement, ERK": pruning(tfpeft.MovementPruning, scope="erk"),
    "RigL": lambda optimizer, sparsity, steps: tfpeft.RigL(
        optimizer, sparsity, end_step=int(0.75 * steps)
    ),
}


def network(name, layers, sequential, input_layer):
    """The same network in Keras 3 or tf_keras."""
    if name == "mlp":  # LeNet-300-100
        body = [
            layers.Flatten(),
            layers.Dense(300, activation="relu"),
            layers.Dense(100, activation="relu"),
        ]
    else:
        body = [
            layers.Conv2D(16, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
        ]
    return sequential([input_layer((28, 28, 1)), *body, layers.Dense(10)])


def train(name, technique, sparsity, seed, data):
    """Returns (test accuracy, zeros of all kernels, zeros of the last kernel), in [0, 1]."""
    (x_train, y_train), test = data
    epochs = EPOCHS[name]
    steps = epochs * STEPS_PER_EPOCH
    keras.utils.set_random_seed(seed)
    model = network(name, keras.layers, keras.Sequential, keras.Input)
    x_train, y_train = tf.constant(x_train), tf.constant(y_train)
    order = tf.data.Dataset.range(len(y_train)).shuffle(len(y_train), seed=seed)
    dataset = order.batch(BATCH_SIZE, drop_remainder=True).map(
        lambda rows: (tf.gather(x_train, rows), tf.gather(y_train, rows))
    )
    if technique == "TFMOT":
        kind, start = tf_keras, model.get_weights()
        model = network(name, tf_keras.layers, tf_keras.Sequential, tf_keras.layers.InputLayer)
        model.set_weights(start)
        sparsity_module = tfmot.sparsity.keras
        model = sparsity_module.prune_low_magnitude(model, schedule(sparsity, steps))
        callbacks, optimizer = [sparsity_module.UpdatePruningStep()], tf_keras.optimizers.Adam(1e-3)
    else:
        kind, callbacks, optimizer = keras, [], keras.optimizers.Adam(1e-3)
        if technique != "dense":
            optimizer = TECHNIQUES[technique](optimizer, sparsity, steps)
    model.compile(
        optimizer=optimizer,
        # TFMOT's callback has to see every step.
        steps_per_execution=1 if technique == "TFMOT" else STEPS_PER_EPOCH // 12,
        loss=kind.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        without_autotuning(dataset.prefetch(4)), epochs=epochs, verbose=0, callbacks=callbacks
    )
    if technique != "dense":
        model = tfpeft.strip_pruning(model)
    logits = model.predict(test[0], batch_size=1000, verbose=0)
    kernels = [np.asarray(w) for w in model.get_weights() if np.ndim(w) > 1]
    zeros = sum(np.sum(k == 0) for k in kernels) / sum(k.size for k in kernels)
    return (
        float(np.mean(np.argmax(logits, -1) == test[1])),
        float(zeros),
        float(np.mean(kernels[-1] == 0)),
    )


def table(rows):
    """Mean and spread (largest minus smallest) of the seeds, in percent, as Markdown."""
    lines = []
    for name in dict.fromkeys(row["network"] for row in rows):
        of_network = [row for row in rows if row["network"] == name]
        sparsities = sorted({r["sparsity"] for r in of_network if r["sparsity"]})
        lines += [
            f"| {name}, {EPOCHS[name]} epochs | "
            + " | ".join(f"{s:.0%}" for s in sparsities)
            + " |",
            "|---|" + "---|" * len(sparsities),
        ]
        for technique in ["dense", *TECHNIQUES]:
            cells = []
            for sparsity in sparsities:
                found = [
                    100 * r["accuracy"]
                    for r in of_network
                    if r["technique"] == technique
                    and r["sparsity"] == (sparsity if technique != "dense" else 0.0)
                ]
                cells.append(
                    f"{np.mean(found):.2f} ({max(found) - min(found):.2f})" if found else ""
                )
            if any(cells):
                lines.append(f"| {technique} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def main(_):
    with np.load(pathlib.Path(FLAGS.data_dir) / "fashion_mnist.npz") as file:
        data = [
            (
                file[f"x_{part}"][..., None].astype("float32") / 255,
                file[f"y_{part}"].astype("int32"),
            )
            for part in ("train", "test")
        ]
    output = pathlib.Path(FLAGS.output)
    lines = output.read_text().splitlines() if output.exists() else []
    rows = [json.loads(line) for line in lines]
    keys = ("network", "technique", "sparsity", "seed")
    for seed in map(int, FLAGS.seeds):
        for name in FLAGS.networks:
            runs = [("dense", 0.0)]
            runs += [(t, float(s)) for s in FLAGS.sparsities for t in TECHNIQUES]
            for technique, sparsity in runs:
                key = dict(zip(keys, (name, technique, sparsity, seed), strict=True))
                done = any(key.items() <= row.items() for row in rows)
                if done or (FLAGS.techniques and technique not in FLAGS.techniques):
                    continue
                started = time.perf_counter()
                accuracy, zeros, last = train(name, technique, sparsity, seed, data)
                seconds = round(time.perf_counter() - started, 1)
                row = {**key, "accuracy": accuracy, "zeros": zeros, "zeros_of_last_kernel": last}
                rows.append({**row, "seconds": seconds})
                print(json.dumps(rows[-1]), flush=True)
                with output.open("a") as file:
                    file.write(json.dumps(rows[-1]) + "\n")
                tf_keras.backend.clear_session()
                keras.backend.clear_session()
    print(table(rows))


if __name__ == "__main__":
    app.run(main)
