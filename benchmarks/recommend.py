"""What `recommend` said of eight models, beside what measured best when all was trained in full.

    python benchmarks/recommend.py --data_dir=data
    python benchmarks/recommend.py --models=regressor,tiny

For each model: a call of `recommend` with a few minutes; after all of these another one for each,
whose trials train for --full_steps updates, or as many as the longest trial of the first call, and
are measured on test data that nobody saw, so that each chain of stages is carried out in full, also
what the short call did not come to. Wanted: the first recommendation is the best measured, or
within its interval or 5% of it, in seven of eight.

- MobileNet: keras.applications' at width 0.25, 2,000 images of Fashion-MNIST; latency here.
- dense: two wide layers on scikit-learn's digits; size.
- Transformer: an encoder, trained to say which words a sequence has, for two tasks; tasks.
- 1-D CNN: the digits as sequences of 64 values; memory on TFLite Micro.
- regressor: scikit-learn's diabetes; download.
- U-Net: a class a pixel, squares and circles in noise; latency here.
- pruned: a network of the digits with 90% zeros already; download.
- tiny: three weights; size. It needs nothing.

Cost: two hours on 2 cores. Stopped and started again, it goes on. The table is in README.md.
"""

import json
import os
import pathlib
import sys

import keras
import machine
import numpy as np
from absl import app, flags, logging
from sklearn.datasets import load_diabetes, load_digits

import tfpeft
from tfpeft.automl.advice.chains import Chain
from tfpeft.automl.advice.figures import Metric
from tfpeft.automl.advice.goals import device_of, goal_on
from tfpeft.automl.advice.ranking import LEAST_GAIN, TOO_MUCH, loss_is, ranked
from tfpeft.automl.advice.training import Training
from tfpeft.automl.advice.trials import Clock, FileTrials, open_store
from tfpeft.core.data import Batch
from tfpeft.reports.tables import markdown_table

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "recommendations", "Folder of models and trials.")
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz.")
flags.DEFINE_list("models", None, "Models that run; default: all.")
flags.DEFINE_float("minutes", 5.0, "Of the call whose recommendation counts.", lower_bound=0.01)
flags.DEFINE_integer("full_steps", 2000, "Updates of training in full, at least.", lower_bound=1)

DIGITS = load_digits()
_MOST = 0.01  # of the metric, may be lost


def parts(x, y, seed=0):
    """Returns ((x, y) to train on, to validate on, and of tests): 60, 20 and 20%."""
    order = np.random.default_rng(seed).permutation(len(y))
    cuts = np.split(order, [int(0.6 * len(y)), int(0.8 * len(y))])
    return [(x[rows], y[rows]) for rows in cuts]


def trained(model, data, epochs, loss="sparse_categorical_crossentropy", rate=1e-3):
    """Returns the model after training to the end: the learning rate falls to 0."""
    steps = epochs * -(-len(data[1]) // 32)
    model.compile(keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss)
    model.fit(*data, epochs=epochs, verbose=0)
    return model


def mobilenet():
    with np.load(pathlib.Path(FLAGS.data_dir) / "fashion_mnist.npz") as stored:
        images, y = stored["x_train"][:3400], stored["y_train"][:3400].astype("int64")
    x = np.pad(images, ((0, 0), (2, 2), (2, 2)))[..., None].astype("float32") / 127.5 - 1
    data = parts(x, y)
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 1), alpha=0.25, weights=None, classes=10, dropout=0.1
    )
    return trained(model, data[0], 40, rate=3e-3), data, {"goal": "latency"}


def dense():
    data = parts((DIGITS.data / 16).astype("float32"), DIGITS.target)
    layers = [keras.layers.Dense(256, "relu"), keras.layers.Dense(128, "relu")]
    head = keras.layers.Dense(10, "softmax")
    model = keras.Sequential([keras.Input((64,)), *layers, head])
    return trained(model, data[0], 20), data, {"goal": "size"}


def transformer():
    rng = np.random.default_rng(0)
    x = rng.integers(0, 40, (1500, 16))
    words = np.stack([np.any(x == word, axis=1) for word in range(40)], axis=1)
    fours = np.sum(x % 4 == 0, axis=1) // 3
    odd = (np.sum(x % 2, axis=1) > 8) + (x.max(axis=1) > 37)
    inputs = keras.Input((16,), dtype="int32")
    hidden = keras.layers.Embedding(40, 48)(inputs)
    for i in range(2):
        attended = keras.layers.MultiHeadAttention(4, 12, name=f"attention_{i}")(hidden, hidden)
        hidden = keras.layers.LayerNormalization(name=f"norm_{i}")(hidden + attended)
        wide = keras.layers.Dense(96, "gelu", name=f"wide_{i}")(hidden)
        wide = keras.layers.Dense(48, name=f"narrow_{i}")(wide)
        hidden = keras.layers.LayerNormalization(name=f"last_norm_{i}")(hidden + wide)
    backbone = keras.Model(inputs, hidden)
    pooled = keras.layers.GlobalAveragePooling1D()(hidden)
    whole = keras.Model(inputs, keras.layers.Dense(40, "sigmoid")(pooled))
    trained(whole, (x, words.astype("float32")), 20, loss="binary_crossentropy")
    tasks = {"fours": fours.astype("int64"), "odd": odd.astype("int64")}
    data = [{name: parts(x, y)[number] for name, y in tasks.items()} for number in range(3)]
    return backbone, data, {"goal": "tasks"}


def cnn_1d():
    data = parts((DIGITS.data / 16).astype("float32")[..., None], DIGITS.target)
    layers = []
    for filters in (24, 48):
        layers += [keras.layers.Conv1D(filters, 5, strides=2, padding="same", use_bias=False)]
        layers += [keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling1D(), keras.layers.Dense(10, "softmax")]
    model = keras.Sequential([keras.Input((64, 1)), *layers])
    return trained(model, data[0], 30, rate=3e-3), data, {"goal": "memory", "target": "tflm"}


def regressor():
    x, y = load_diabetes(return_X_y=True)
    y = (y / 100)[:, None].astype("float32")
    data = parts((20 * x).astype("float32"), y)
    layers = [keras.layers.Dense(128, "relu"), keras.layers.Dense(64, "relu")]
    model = keras.Sequential([keras.Input((10,)), *layers, keras.layers.Dense(1)])
    return trained(model, data[0], 12, loss="mse"), data, {"goal": "download"}


def shapes(count=900, side=32):
    """Returns images of a square and a circle in noise, and a class for each pixel."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:side, :side]
    centres, sizes = rng.integers(6, side - 6, (count, 2, 2)), rng.integers(3, 7, (count, 2))
    y = np.zeros((count, side, side), "int64")
    for i in range(count):
        (a, b), (c, d) = centres[i]
        square = np.maximum(abs(rows - a), abs(columns - b)) < sizes[i, 0]
        circle = (rows - c) ** 2 + (columns - d) ** 2 < sizes[i, 1] ** 2
        y[i] = np.where(circle, 2, square)
    x = (y > 0) + rng.normal(0, 0.4, y.shape)
    return x[..., None].astype("float32"), y


def u_net():
    data = parts(*shapes())

    def block(hidden, filters):
        for _ in range(2):
            hidden = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(hidden)
        return hidden

    inputs = keras.Input((32, 32, 1))
    first = block(inputs, 16)
    second = block(keras.layers.MaxPooling2D()(first), 32)
    hidden = block(keras.layers.MaxPooling2D()(second), 48)
    for filters, skipped in ((32, second), (16, first)):
        hidden = keras.layers.Conv2DTranspose(filters, 2, strides=2)(hidden)
        hidden = block(keras.layers.Concatenate()([hidden, skipped]), filters)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(hidden))
    return trained(model, data[0], 60, rate=2e-3), data, {"goal": "latency"}


def pruned():
    model, data, _ = dense()
    steps = 20 * -(-len(data[0][0]) // 32)
    schedule = tfpeft.polynomial_decay(0.9, begin=0.0, end=0.6, total_steps=steps, frequency=20)
    optimizer = tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    model.fit(*data[0], epochs=20, verbose=0)
    return tfpeft.strip_pruning(model), data, {"goal": "download"}


def tiny():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2)).astype("float32")
    y = (x @ np.float32([[1.0], [-2.0]]) + rng.normal(0, 0.1, (500, 1))).astype("float32")
    data = parts(x, y)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    return trained(model, data[0], 60, loss="mse", rate=1e-2), data, {"goal": "size"}


MODELS = {
    "MobileNet": mobilenet,
    "dense": dense,
    "Transformer": transformer,
    "1-D CNN": cnn_1d,
    "regressor": regressor,
    "U-Net": u_net,
    "pruned": pruned,
    "tiny": tiny,
}


def called(model, data, validation, folder, **arguments):
    """Returns what `recommend` returns, with the data of tasks where it belongs."""
    if arguments["goal"] == "tasks":
        arguments["tasks"], data = data, None
    return tfpeft.recommend(
        model, data, validation_data=validation, folder=folder, verbose=False, **arguments
    )


def prepared(name):
    """Returns the folder of a model, the model, its parts of data, and what is asked for it."""
    folder = pathlib.Path(FLAGS.output) / name
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.set_random_seed(0)
    model, parts_of_data, arguments = MODELS[name]()
    stored = folder / "model.keras"
    if stored.exists():  # of this run before it was stopped: trials are of its weights
        model = tfpeft.load_model(stored)
    else:
        model.save(stored)
    return folder, model, parts_of_data, arguments


def said_of(folder, model, data, arguments):
    """Returns the `Recommendations` that count; of a call that ended before this run, its own."""
    train, validation, _ = data
    ended = folder / "full_steps"
    minutes = 1e-6 if ended.exists() else FLAGS.minutes
    said = called(model, train, validation, folder / "short", minutes=minutes, **arguments)
    if not ended.exists():
        ended.write_text(str(max([FLAGS.full_steps, *map(_updates_of_a_stage, said.trials)])))
    return said


def measured(said, folder, model, data, arguments):
    """Returns the row of a model: what was said of it, beside all trials in full."""
    train, _, test = data
    steps = int((folder / "full_steps").read_text())
    full = called(model, train, test, folder / "full", minutes=600, steps=steps, **arguments)
    trials = {each["name"]: each for each in full.trials if each["gain"]}
    first = None if said.nothing_to_gain else said.recommendations[0]
    if first is not None:
        (short,) = [each for each in said.trials if each["name"] == first.trial]
        chain = Chain.read(short["steps"]) if "steps" in short else None
        if chain is not None and chain.name not in trials:
            found = carried_out(
                model, chain, (train, test), folder / "recommended", steps, arguments
            )
            trials[chain.name] = found
        first = (short, trials[first.trial if chain is None else chain.name])
    return row_of(folder.name, first, trials, arguments)


def _updates_of_a_stage(found):
    """Returns the updates of each stage of a trial, 0 where nothing was trained."""
    stages = len(Chain.read(found["steps"]).trained.steps) if "steps" in found else 1
    return found.get("updates", 0) // max(1, stages)


def carried_out(model, chain, data, folder, steps, arguments):
    """Returns the trial of a `Chain` with training in full, on test data."""
    train, test = (Batch(*pair) for pair in data)
    device = device_of(arguments.get("target"))
    metric = Metric(model, test)
    training = Training.of(model, train, metric.tasks, steps=steps)
    store = open_store(folder, {"steps": steps}, Clock(600, False))
    goal = goal_on(arguments["goal"], device)
    with store.folder:
        trials = FileTrials(store, model, goal, device, metric, training, test.x[:1], True)
        return trials.run(chain)


def _lost_too_much(found):
    """Whether a trial in full clearly lost more than is allowed."""
    return loss_is(found, _MOST, short=1.0) == TOO_MUCH


def row_of(name, first, trials, arguments):
    """Returns what was said, what measured best in full, and whether the first one was right.

    Args:
        name: The model.
        first: The trial of the first recommendation, as it was said and in full, or None.
        trials: {chain: its trial in full}.
        arguments: Of the call.
    """
    said, found = first or (None, None)
    best = next(iter(ranked(trials.values(), _MOST, short=1.0)), None)
    if best is not None and _lost_too_much(best):
        best = None
    if said is None or best is None:
        is_right = (said is None) == (best is None)
    else:
        low = best["gain"]["interval"][0]
        is_right = not _lost_too_much(found) and found["gain"]["factor"] * LEAST_GAIN >= low
    return {
        "model": name,
        "goal": " on ".join(filter(None, (arguments["goal"], arguments.get("target")))),
        "said": said["name"] if said else "nothing to gain",
        "factor": said["gain"]["factor"] if said else 1.0,
        "loss": said["loss"]["relative"] if said else 0.0,
        "in_full": found["gain"]["factor"] if found else None,
        "loss_in_full": found["loss"]["relative"] if found else None,
        "best": best["name"] if best else "nothing to gain",
        "best_factor": best["gain"]["factor"] if best else 1.0,
        "best_loss": best["loss"]["relative"] if best else 0.0,
        "is_right": bool(is_right),
    }


def main(_):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logging.set_verbosity(logging.ERROR)
    keras.config.disable_interactive_logging()
    rows, calls = {}, {}
    for name in FLAGS.models or MODELS:
        path = pathlib.Path(FLAGS.output) / name / "row.json"
        rows[name] = json.loads(path.read_text()) if path.exists() else None
        if rows[name] is None:
            call = prepared(name)
            calls[name] = (said_of(*call), *call)
            print(f"{name}:\n{calls[name][0]}", file=sys.stderr, flush=True)
    for name, (said, folder, *call) in calls.items():
        rows[name] = measured(said, folder, *call)
        (folder / "row.json").write_text(json.dumps(rows[name], indent=2))
        print(rows[name], file=sys.stderr, flush=True)
    rows = list(rows.values())

    def factor(value, loss):
        return "" if value is None else f"{value:.2f}x, {100 * loss:+.1f}%"

    cells = [
        [
            *(row["model"], row["goal"], row["said"], factor(row["factor"], row["loss"])),
            factor(row["in_full"], row["loss_in_full"]),
            *(row["best"], factor(row["best_factor"], row["best_loss"])),
            "yes" if row["is_right"] else "no",
        ]
        for row in rows
    ]
    header = ["model", "goal", "recommended first", "gain, loss in its trial"]
    header += ["in full, on test data", "best in full", "its gain, loss", "right"]
    print(machine.describe())
    print(markdown_table(header, cells, align=["left"] * 8))
    print(f"\n{sum(row['is_right'] for row in rows)} of {len(rows)} right.")


if __name__ == "__main__":
    app.run(main)
