"""What rounding costs in training: a step of a quantise-aware model against the plain model's.

    python benchmarks/quantization_cost.py

Blocks of 50 steps of `fit` are run in turn for all models in one process: the plain model and
`quantize_aware` of it in Keras 3, and beside them the equal tf_keras model, plain and with TFMOT's
`quantize_model`. The ratio is that of the medians of the steps, to the plain model of the same
Keras. Every model is trained with Adam on the same batch of 128 images of 28x28.

On a busy machine use `--cpu_time`: one thread, and the seconds that it computes, which other
processes change less.

Cost: about 3 minutes on 2 cores. The table is in README.md.
"""

import functools
import time

import keras
import machine
import numpy as np
import quantization_networks as networks
import tensorflow as tf
import timing
from absl import app, flags
from quantization_networks import NETWORKS

import tfpeft
from tfpeft.sparsity.schedules import tfmot

import tf_keras  # isort: skip  (after tfpeft: see tfpeft/sparsity/tfmot_import.py)

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 10, "Blocks of steps of each model.", lower_bound=1)
flags.DEFINE_integer("steps", 50, "Steps of a block.", lower_bound=3)
flags.DEFINE_list("networks", list(NETWORKS), "Networks to train.")
flags.DEFINE_bool("cpu_time", False, "Time that one thread computes, not time that passes.")

BATCH_SIZE, SHAPE = 128, (28, 28, 1)
PLAIN = {
    "plain": "plain",
    "quantize_aware": "plain",
    'quantize_aware, ranges="learned"': "plain",
    "tf_keras, plain": "tf_keras, plain",
    "TFMOT quantize_model": "tf_keras, plain",
}
"""{model: the plain model that it is compared with}."""


def models(network):
    """Returns {name: compiled model}."""
    keras.utils.set_random_seed(0)
    plain, old = networks.in_keras(network, SHAPE), networks.in_tf_keras(network, SHAPE)
    quantized = [
        tfpeft.quantize_aware(plain),
        tfpeft.quantize_aware(plain, ranges="learned"),
        old,
        tfmot.quantization.keras.quantize_model(old),
    ]
    made = dict(zip(PLAIN, [plain, *quantized], strict=True))
    for name, model in made.items():
        kind = tf_keras if PLAIN[name].startswith("tf_keras") else keras
        loss = kind.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(kind.optimizers.Adam(1e-3), loss)
    return made


class Clock(timing.Clock, tf_keras.callbacks.Callback):
    """For models of both kinds."""


def measure(network):
    """Returns {model: (ratio to its plain model's step, milliseconds a step)}."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(BATCH_SIZE, *SHAPE)).astype("float32")
    y = rng.integers(0, 10, BATCH_SIZE).astype("int32")
    data = tf.data.Dataset.from_tensors((x, y)).repeat(FLAGS.steps).prefetch(4)
    data = timing.without_autotuning(data)
    clock = Clock(time.process_time if FLAGS.cpu_time else time.perf_counter)
    blocks = {
        name: functools.partial(model.fit, data, verbose=0, callbacks=[clock])
        for name, model in models(network).items()
    }
    for block in blocks.values():
        block()
    seconds = {}
    for round_number in range(FLAGS.rounds):
        # Back and forth, so that none is always next to the same one.
        for name in list(blocks)[:: -1 if round_number % 2 else 1]:
            blocks[name]()
            seconds.setdefault(name, []).extend(clock.steps())
    steps = {name: np.median(each) for name, each in seconds.items()}
    return {name: (step / steps[PLAIN[name]], step * 1000) for name, step in steps.items()}


def main(_):
    if FLAGS.cpu_time:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    results = {name: measure(NETWORKS[name]) for name in FLAGS.networks}
    print(f"{machine.describe()}\n")
    print("| step, ratio to the plain model's | " + " | ".join(results) + " |")
    print("|---|" + "---:|" * len(results))
    for name in PLAIN:
        cells = [f"{each[name][0]:.2f} ({each[name][1]:.1f} ms)" for each in results.values()]
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    app.run(main)
