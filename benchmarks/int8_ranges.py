"""Ranges of activations in int8 files: least and largest value, percentiles, least error.

    python benchmarks/int8_ranges.py --data_dir=data --mlperf_dir=mlperf_tiny

Each model is exported with each way to choose ranges, from the same 400 samples: what the samples
have ("min-max"), extended as by `export_tflite` ("extended"), without the outermost values
("99.99%", "99.9%"), the range of least squared error of rounding and clipping ("error"), and
99.99% of tensors of 100,000 values or more, others extended ("both").
On other samples: the error relative to the spread of the float model's outputs (root of the mean
of squares, of the worst column unless they are probabilities), and the accuracy, or without labels
the agreement with the float model.

--data_dir has cifar10.npz, --mlperf_dir pretrainedResnet.h5 and vww_96.h5 of MLPerf Tiny; without
them the small models alone are measured. Cost: 12 minutes on 2 busy
cores. The table is in README.md.
"""

import json
import pathlib
import tempfile

import h5py
import keras
import machine
import numpy as np
from absl import app, flags
from sklearn.datasets import load_digits

import tfpeft
from tfpeft.export import int8
from tfpeft.export.float_graph import FloatGraph

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder of cifar10.npz.")
flags.DEFINE_string("mlperf_dir", None, "Folder of MLPerf Tiny's trained models.")

BINS = 4096
layers = keras.layers


def percentile(counts, low, high, percent):
    """Returns the range without the outermost values of a histogram, half of them per side."""
    edges = np.linspace(low, high, BINS + 1)
    share, outside = np.cumsum(counts) / counts.sum(), (1 - percent / 100) / 2
    first = np.searchsorted(share, outside, side="right")
    last = np.searchsorted(share, 1 - outside, side="left")
    return edges[first], edges[last + 1]


def least_error(counts, low, high):
    """Returns the range of least mean squared error, of parts of the whole one around zero."""
    middles = np.linspace(low, high, BINS + 1)[:-1] + (high - low) / BINS / 2
    parts, best = np.linspace(0.2, 1.0, 41), (np.inf, low, high)
    for below in parts if low < 0 else parts[-1:]:
        for above in parts if high > 0 else parts[-1:]:
            least, most = min(0.0, low * below), max(0.0, high * above)
            clipped = np.clip(middles, least, most) - middles
            rounding = ((most - least) / 255) ** 2 / 12
            inside = counts[clipped == 0].sum() / counts.sum()
            error = np.sum(counts * clipped**2) / counts.sum() + inside * rounding
            best = min(best, (error, least, most))
    return best[1:]


METHODS = {
    "min-max": lambda counts, low, high: (low, high),
    "extended": None,
    "99.99%": lambda *histogram: percentile(*histogram, 99.99),
    "99.9%": lambda *histogram: percentile(*histogram, 99.9),
    "error": least_error,
    "both": lambda *histogram: percentile(*histogram, 99.99),
}
_MANY = 100_000


class Histograms(FloatGraph):
    """A graph whose ranges are chosen by `method` from the histograms of its tensors."""

    method = None
    is_extended = True

    def observe(self, program, samples):
        samples = list(samples)
        super().observe(program, samples)
        self._bounds = {t: (self.low[t], self.high[t]) for t in self.low}
        self._histograms = {tensor: np.zeros(BINS) for tensor in self.low}
        for arrays in samples:
            program.feed(dict(zip(program.inputs, arrays, strict=True)))
            program.invoke()
            for tensor, counts in self._histograms.items():
                counts += np.histogram(program.tensor(tensor), BINS, self._bounds[tensor])[0]

    def extend_ranges(self):
        for tensor, counts in self._histograms.items() if self.method else ():
            low, high = self._bounds[tensor]
            is_mask = (low, high) != (self.low[tensor], self.high[tensor])
            if not is_mask and low < high and counts.sum() >= (_MANY if self.is_extended else 1):
                self.low[tensor], self.high[tensor] = self.method(counts, low, high)
        if self.is_extended:
            super().extend_ranges()


def trained(model, x, y, epochs):
    """Returns the model after training, with logits for classes, or numbers."""
    loss = "mse" if y.dtype.kind == "f" else keras.losses.SparseCategoricalCrossentropy(True)
    model.compile(keras.optimizers.Adam(3e-3), loss)
    model.fit(x, y, epochs=epochs, batch_size=32, verbose=0)
    return model


def digits_cnn(outliers):
    """A convolutional network on digits; with outliers, one image of 100 is 10 times brighter."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    if outliers:
        x[::100] *= 10
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 1))])
    for filters in (16, 32):
        model.add(layers.Conv2D(filters, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        model.add(layers.MaxPooling2D())
    model.add(layers.Flatten())
    model.add(layers.Dense(10))
    return trained(model, x[:1000], y[:1000], 30), x[:1000], x[1000:], y[1000:]


def numbers():
    """A network for numbers of heavy tails, as a table of amounts has them."""
    rng = np.random.default_rng(0)
    x = (rng.gamma(1.0, 2.0, (3000, 1)) * rng.normal(size=(3000, 6))).astype("float32")
    y = np.stack([x[:, 0] * 2 - x[:, 1], np.abs(x[:, 2])], axis=1)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(32, "relu"), layers.Dense(2)])
    return trained(model, x[:2000], y[:2000], 10), x[:2000], x[2000:], None


def attention():
    """A transformer block on rows of digits."""
    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8)
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8))
    h = layers.Dense(32)(inputs)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(4, 8)(h, h))
    h = layers.LayerNormalization()(h + layers.Dense(32)(layers.Dense(64, "gelu")(h)))
    model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(h)))
    return trained(model, x[:1000], y[:1000], 30), x[:1000], x[1000:], y[1000:]


def resnet8():
    """MLPerf Tiny's ResNet8 on CIFAR-10."""
    model = keras.models.load_model(
        pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet.h5", compile=False
    )
    with np.load(pathlib.Path(FLAGS.data_dir) / "cifar10.npz") as data:
        x, y = data["x_test"].astype("float32"), data["y_test"]
        return model, data["x_train"][:2000].astype("float32"), x, y


def visual_wake_words():
    """MLPerf Tiny's MobileNet of 0.25 of its width, on CIFAR-10 enlarged, for want of its data."""
    path = pathlib.Path(FLAGS.mlperf_dir) / "vww_96.h5"
    with h5py.File(path) as file:
        config = json.loads(file.attrs["model_config"])["config"]
    for layer in config["layers"]:
        layer["config"].pop("groups", None)  # of Keras 2, always 1
    model = keras.Model.from_config(config)
    model.load_weights(path)
    with np.load(pathlib.Path(FLAGS.data_dir) / "cifar10.npz") as data:
        sides = data["x_train"][:1000], data["x_test"][:500]
    train, test = (side.repeat(3, 1).repeat(3, 2).astype("float32") / 255 for side in sides)
    return model, train, test, None


def relative(found, expected):
    """Returns the error relative to the spread, of probabilities together, else the worst."""
    error, spread = np.mean((found - expected) ** 2, axis=0), np.var(expected, axis=0)
    if np.allclose(expected.sum(axis=1), 1.0, atol=1e-2):
        error, spread = error.mean(), spread.mean()
    return float(np.sqrt(np.max(error / spread)))


def main(_):
    models = {
        "digits, CNN": lambda: digits_cnn(False),
        "digits with outliers, CNN": lambda: digits_cnn(True),
        "digits, attention": attention,
        "amounts, Dense": numbers,
    }
    if FLAGS.data_dir and FLAGS.mlperf_dir:
        models["CIFAR-10, ResNet8"] = resnet8
        models["MobileNetV1 0.25"] = visual_wake_words
    int8.FloatGraph = Histograms
    print(f"{machine.describe()}\n\n| model | float | {' | '.join(METHODS)} |")
    print(f"|---|---:|{'---:|' * len(METHODS)}")
    for name, make in models.items():
        model, train, test, labels = make()
        expected = model.predict(test, verbose=0)
        target = expected.argmax(axis=1) if labels is None else labels
        row = [name, f"{np.mean(expected.argmax(axis=1) == target):.2%}"]
        for title, method in METHODS.items():
            Histograms.method = staticmethod(method) if method else None
            Histograms.is_extended = title in ("extended", "both")
            with tempfile.TemporaryDirectory() as folder:
                path = pathlib.Path(folder) / "model.tflite"
                tfpeft.export_tflite(
                    model, path, quantization="int8", representative_data=train, allow_deviation=1e9
                )
                found = tfpeft.TFLiteFile(path).predict(test)
            accuracy = np.mean(found.argmax(axis=1) == target)
            row.append(f"{relative(found, expected):.1%}, {accuracy:.2%}")
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    app.run(main)
