"""What distillation costs: against the student's plain `fit`, Keras's Distiller, and one pass.

    python benchmarks/distillation.py

The teacher's forward pass costs four times the student's or more (printed first). Epochs of 40
batches of 128 images are run in turn for all in one process; an epoch is the sum over its steps of
the median over the rounds, without the first step, which waits for the data. Computing the answers
to 60,000 images once is compared with one pass of the teacher, medians over rounds.

Cost: about 4 minutes on 2 cores. The table with machine and date is in README.md.
"""

import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from timing import Clock, without_autotuning

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 9, "Epochs of each.", lower_bound=1)
flags.DEFINE_integer("passes", 3, "Rounds of a whole pass over 60,000 images.", lower_bound=1)

BATCH_SIZE, STEPS = 128, 40
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
rng = np.random.default_rng(0)


def network(depth):
    """Three stages of `depth` convolutions; stages of any depth end in the same shapes."""
    inputs = hidden = keras.Input((28, 28, 1))
    for stage, filters in enumerate((16, 32, 64)):
        for index in range(depth):
            stride = 2 if index == 0 else 1
            convolution = keras.layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)
            hidden = keras.layers.BatchNormalization()(convolution(hidden))
            name = f"stage_{stage}" if index == depth - 1 else None
            hidden = keras.layers.ReLU(name=name)(hidden)
    hidden = keras.layers.Flatten()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


def keras_terms():
    """What both Distillers take, with the loss that Keras computes right."""
    return [
        keras.distillation.LogitsDistillation(temperature=4.0, loss=keras.losses.KLDivergence()),
        keras.distillation.FeatureDistillation("mse", "stage_1", "stage_1"),
        keras.distillation.FeatureDistillation("mse", "stage_2", "stage_2"),
    ]


def forward_seconds(model, x):
    forward = tf.function(lambda x: model(x, training=False))
    forward(x)
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        forward(x)
        seconds.append(time.perf_counter() - started)
    return np.median(seconds)


def measure_epochs(folder):
    """Returns {name: (reference, milliseconds a step)}, and the teacher's cost in students."""
    count = BATCH_SIZE * STEPS
    x = rng.normal(size=(count, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, count)
    plain = tf.data.Dataset.from_tensor_slices((x, y)).batch(BATCH_SIZE)
    teacher, clock = network(9), Clock()
    layers = [{"teacher_layer": name, "student_layer": name} for name in ("stage_1", "stage_2")]
    names = ["stage_1", "stage_2"]
    features = [tfpeft.SoftLabels(), *(tfpeft.FeatureMatching(**each) for each in layers)]
    in_memory = tfpeft.precompute(teacher, (x, y))
    in_folder = tfpeft.precompute(teacher, (x, y), folder / "logits")
    with_features = tfpeft.precompute(
        teacher, (x, y), folder / "features", features=names, float16=True
    )

    def precomputed(losses=None):
        return tfpeft.Distiller(
            None, network(2), distillation_losses=losses, teacher_from_logits=True
        )

    models = {
        "student alone": (network(2), plain),
        "tfpeft, logits computed once, in memory": (precomputed(), in_memory.join(plain)),
        "tfpeft, logits computed once, in a folder": (precomputed(), in_folder.join(plain)),
        "tfpeft, logits and two features computed once, in a folder": (
            precomputed(features),
            with_features.join(plain),
        ),
        "tfpeft, soft labels": (tfpeft.Distiller(teacher, network(2)), plain),
        "tfpeft, soft labels and two features": (
            tfpeft.Distiller(teacher, network(2), distillation_losses=keras_terms()),
            plain,
        ),
        "keras.distillation, soft labels": (
            keras.distillation.Distiller(
                teacher, network(2), distillation_losses=keras_terms()[0], student_loss_weight=0.1
            ),
            plain,
        ),
        "keras.distillation, soft labels and two features": (
            keras.distillation.Distiller(
                teacher, network(2), distillation_losses=keras_terms(), student_loss_weight=0.1
            ),
            plain,
        ),
    }
    seconds = {}
    for model, data in models.values():
        model.compile(keras.optimizers.Adam(1e-4), HARD)
        model.fit(without_autotuning(data), verbose=0)
    for round_number in range(FLAGS.rounds):
        # Back and forth, so that none is always next to the same one.
        for name in list(models)[:: -1 if round_number % 2 else 1]:
            model, data = models[name]
            model.fit(without_autotuning(data), verbose=0, callbacks=[clock])
            seconds.setdefault(name, []).append(clock.steps())
    steps = {name: np.mean(np.median(each, axis=0)) for name, each in seconds.items()}
    batch = tf.constant(x[:BATCH_SIZE])
    cost = forward_seconds(teacher, batch) / forward_seconds(models["student alone"][0], batch)
    return steps, cost


def measure_pass():
    """Returns seconds of (one pass by `predict`, one by a bare loop, `precompute`)."""
    x = rng.normal(size=(60000, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, 60000)
    teacher = network(9)
    forward = tf.function(lambda x: teacher(x, training=False))

    def loop():
        rows = range(0, len(x), 256)
        return np.concatenate([forward(tf.constant(x[i : i + 256])).numpy() for i in rows])

    ways = {
        "a bare loop": loop,
        "predict": lambda: teacher.predict(x, batch_size=256, verbose=0),
        "tfpeft.precompute": lambda: tfpeft.precompute(teacher, (x, y)).outputs,
    }
    seconds, results = {name: [] for name in ways}, {}
    for _ in range(FLAGS.passes):
        for name, way in ways.items():
            started = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - started)
    np.testing.assert_allclose(results["a bare loop"], results["tfpeft.precompute"], atol=1e-5)
    return {name: np.median(each) for name, each in seconds.items()}


def main(_):
    with tempfile.TemporaryDirectory() as folder:
        steps, cost = measure_epochs(pathlib.Path(folder))
    print(f"The teacher's forward pass costs {cost:.1f} of the student's.\n")
    print("| a step | ms | to the student alone | to keras.distillation |\n|---|---|---|---|")
    for name, step in steps.items():
        keras_name = name.replace("tfpeft", "keras.distillation")
        compared = f"{step / steps[keras_name]:.2f}" if keras_name in steps else ""
        ratio = step / steps["student alone"]
        print(f"| {name} | {1000 * step:.1f} | {ratio:.2f} | {compared} |")
    seconds = measure_pass()
    print("\n| a pass over 60,000 images | s | to a bare loop |\n|---|---|---|")
    for name, each in seconds.items():
        print(f"| {name} | {each:.1f} | {each / seconds['a bare loop']:.3f} |")


if __name__ == "__main__":
    app.run(main)
