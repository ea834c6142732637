"""What a sparse optimizer costs: training steps against the plain optimizer's, and against TFMOT.

    python benchmarks/sparse_optimizers.py

Blocks of 100 steps of `fit`, with one update of the masks in each, are run in turn for all
techniques in one process. A technique's step is the mean over the positions in a block of the
median over the rounds; its ratio is to the plain optimizer's, and TFMOT's to that of tf_keras.

Then the masks of 10 million weights with one global threshold, on one core.

On a busy machine use `--cpu_time`: one thread, and the seconds that it computes, which other
processes change less.

Cost: about 8 minutes on 2 cores. The tables with machine and date are in README.md.
"""

import functools
import subprocess
import sys
import time

import keras
import machine
import numpy as np
import tensorflow as tf
import timing
from absl import app, flags

import tfpeft
from tfpeft.sparsity import masks
from tfpeft.sparsity.schedules import tfmot

import tf_keras  # isort: skip  (after tfpeft: see tfpeft/sparsity/tfmot_import.py)

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 10, "Blocks of 100 steps of each technique.", lower_bound=1)
flags.DEFINE_list("networks", ["mlp", "cnn"], "Networks to train.")
flags.DEFINE_list("techniques", [], "Only these; default: all.")
flags.DEFINE_bool("cpu_time", False, "Time that one thread computes, not time that passes.")
flags.DEFINE_bool("masks_only", False, "Only the masks of 10 million weights, in this process.")

STEPS, BATCH_SIZE = 100, 128


def schedule(frequency=STEPS):
    # Far from its end, so that masks change in every block.
    return tfmot.sparsity.keras.PolynomialDecay(0.0, 0.9, 0, 100_000, frequency=frequency)


TECHNIQUES = {
    "MagnitudePruning": lambda o: tfpeft.MagnitudePruning(o, schedule()),
    "MagnitudePruning (global)": lambda o: tfpeft.MagnitudePruning(o, schedule(), scope="global"),
    "MagnitudePruning (ERK)": lambda o: tfpeft.MagnitudePruning(o, schedule(), scope="erk"),
    "MagnitudePruning (straight-through)": lambda o: tfpeft.MagnitudePruning(
        o, schedule(), straight_through=True
    ),
    "GradientPruning": lambda o: tfpeft.GradientPruning(o, schedule()),
    "MovementPruning": lambda o: tfpeft.MovementPruning(o, schedule()),
    "RandomPruning": lambda o: tfpeft.RandomPruning(o, schedule()),
    "FixedMask": tfpeft.FixedMask,
    "ProximalL1": lambda o: tfpeft.ProximalL1(o, 1e-5),
    "ProximalGroupL1": lambda o: tfpeft.ProximalGroupL1(o, 1e-5),
    "TargetedDropout": lambda o: tfpeft.TargetedDropout(o, 0.5, 0.5, frequency=STEPS),
    "StaticSparse": lambda o: tfpeft.StaticSparse(o, 0.9),
    "SET": lambda o: tfpeft.SET(o, 0.9, end_step=100_000, frequency=STEPS),
    "RigL": lambda o: tfpeft.RigL(o, 0.9, end_step=100_000, frequency=STEPS),
    "WeightClustering": lambda o: tfpeft.WeightClustering(o, 16),
    "WeightClustering (per channel)": lambda o: tfpeft.WeightClustering(o, 16, per_channel=True),
    "WeightClustering (fixed clusters)": lambda o: tfpeft.WeightClustering(
        o, 16, straight_through=False
    ),
}


def network(name, layers, sequential, input_layer):
    """The same network in Keras 3 or tf_keras."""
    if name == "mlp":  # 1.3 million weights
        body = [
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dense(512, activation="relu"),
        ]
    else:
        body = [
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(128, 3, strides=2, padding="same", activation="relu"),
            layers.Flatten(),
        ]
    return sequential([input_layer((28, 28, 1)), *body, layers.Dense(10)])


def compiled(kind, model, optimizer):
    model.compile(optimizer, kind.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def runs(name, clock):
    """Returns {technique: function that trains a block of steps}."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH_SIZE, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, BATCH_SIZE).astype("int32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat(STEPS).prefetch(4)
    data = timing.without_autotuning(data)
    models, callbacks = {}, {"TFMOT": [tfmot.sparsity.keras.UpdatePruningStep()]}
    wanted = {k: v for k, v in TECHNIQUES.items() if k in FLAGS.techniques or not FLAGS.techniques}
    for technique, wrap in {"plain": lambda o: o, **wanted}.items():
        keras.utils.set_random_seed(0)
        model = network(name, keras.layers, keras.Sequential, keras.Input)
        if technique == "FixedMask":
            for layer in model.layers:
                for weight in layer.trainable_weights[:1]:
                    weight.assign(weight * rng.integers(0, 2, weight.shape))
        models[technique] = compiled(keras, model, wrap(keras.optimizers.Adam(1e-3)))
    for technique in ("plain tf_keras", "TFMOT", "TFMOT (clustering)"):
        model = network(name, tf_keras.layers, tf_keras.Sequential, tf_keras.layers.InputLayer)
        if technique == "TFMOT":
            model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule())
        if technique == "TFMOT (clustering)":
            linear = tfmot.clustering.keras.CentroidInitialization.LINEAR
            model = tfmot.clustering.keras.cluster_weights(model, 16, linear)
        models[technique] = compiled(tf_keras, model, tf_keras.optimizers.Adam(1e-3))
    return {
        technique: functools.partial(
            model.fit, data, verbose=0, callbacks=[*callbacks.get(technique, []), clock]
        )
        for technique, model in models.items()
    }


class Clock(timing.Clock, tf_keras.callbacks.Callback):
    """For models of both kinds."""


def measure(name):
    """Returns {technique: (ratio to its plain step, milliseconds a step)}."""
    clock = Clock(time.process_time if FLAGS.cpu_time else time.perf_counter)
    seconds = {}
    blocks = runs(name, clock)
    for block in blocks.values():
        block()
    for round_number in range(FLAGS.rounds):
        # Back and forth, so that none is always next to the same one.
        for technique in list(blocks)[:: -1 if round_number % 2 else 1]:
            blocks[technique]()
            seconds.setdefault(technique, []).append(clock.steps())
    # The median over the rounds at each position of a block: the update of the masks, at one of
    # them, counts by its own median, and the machine's interruptions do not.
    steps = {technique: np.mean(np.median(each, axis=0)) for technique, each in seconds.items()}
    plain = {
        name: "plain tf_keras" if "TFMOT" in name or "tf_keras" in name else "plain"
        for name in steps
    }
    return {
        technique: (step / steps[plain[technique]], step * 1000)
        for technique, step in steps.items()
    }


def use_one_thread():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def measure_masks():
    """Prints what one global threshold over 10 million weights costs on one core."""
    use_one_thread()
    rng = np.random.default_rng(0)
    kernels = [tf.Variable(rng.normal(size=(5, 1_000_000)).astype("float32")) for _ in range(2)]

    @tf.function
    def update():
        return masks.global_masks([tf.abs(kernel) for kernel in kernels], 0.9)

    @tf.function
    def by_sorting():
        scores = tf.concat([tf.reshape(tf.abs(kernel), [-1]) for kernel in kernels], 0)
        threshold = tf.sort(scores)[-1_000_000]
        return [tf.abs(kernel) >= threshold for kernel in kernels]

    now = time.process_time if FLAGS.cpu_time else time.perf_counter
    seconds = {update: [], by_sorting: []}
    for _ in range(6):
        for function, each in seconds.items():
            started = now()
            result = [mask.numpy() for mask in function()]
            each.append(now() - started)
            assert sum(mask.sum() for mask in result) == 1_000_000
    for expected, mask in zip(by_sorting(), update(), strict=True):
        np.testing.assert_array_equal(mask, expected)
    medians = [np.median(each[1:]) for each in seconds.values()]
    print(f"{machine.describe()}\n")
    print("| 10M weights, one global threshold, one core | seconds |\n|---|---|")
    print(f"| global_masks | {medians[0]:.3f} |\n| by tf.sort | {medians[1]:.3f} |")


def main(_):
    if FLAGS.masks_only:
        measure_masks()
        return
    if FLAGS.cpu_time:
        use_one_thread()
    results = {name: measure(name) for name in FLAGS.networks}
    print(f"{machine.describe()}\n")
    print("| step, ratio to the plain optimizer's | " + " | ".join(results) + " |")
    print("|---|" + "---|" * len(results))
    for technique in next(iter(results.values())):
        cells = [
            f"{each[technique][0]:.3f} ({each[technique][1]:.1f} ms)" for each in results.values()
        ]
        print(f"| {technique} | " + " | ".join(cells) + " |")
    print(flush=True)
    # Its own process: TensorFlow takes the number of threads before anything has run.
    options = ["--masks_only", f"--cpu_time={FLAGS.cpu_time}"]
    subprocess.run([sys.executable, __file__, *options], check=True)


if __name__ == "__main__":
    app.run(main)
