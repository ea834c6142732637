"""int8 files by the options of `export_tflite`: ranges, equalisation and bias correction.

    python benchmarks/int8_options.py --data_dir=data --mlperf_dir=mlperf_tiny

Each model is exported with each of `OPTIONS`, from the same 400 samples. On other samples: the
error relative to the spread of the float model's outputs (root of the mean of squares, of the
worst column unless they are probabilities), and the accuracy, or without labels the agreement with
the float model.

--data_dir has cifar10.npz, --mlperf_dir pretrainedResnet.h5 and vww_96.h5 of MLPerf Tiny; without
them the small models alone are measured. --only=TEXT measures the models of such a name. Cost: 20
minutes on 2 busy cores. The table is in README.md.
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

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Folder of cifar10.npz.")
flags.DEFINE_string("mlperf_dir", None, "Folder of MLPerf Tiny's trained models.")

flags.DEFINE_string("only", "", "Text in the names of the models to measure.")
layers = keras.layers


OPTIONS = {
    "extended": {"ranges": "extended"},
    "percentile": {"ranges": "percentile"},
    "mse": {"ranges": "mse"},
    "equalize": {"ranges": "extended", "equalize": True},
    "correct_bias": {"ranges": "extended", "correct_bias": True},
    "mse, both": {"ranges": "mse", "equalize": True, "correct_bias": True},
}


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


def mobilenet():
    """A small MobileNet with BatchNorm and ReLU, trained on 20,000 images of CIFAR-10."""
    with np.load(pathlib.Path(FLAGS.data_dir) / "cifar10.npz") as data:
        x, test = (data[name].astype("float32") / 255 for name in ("x_train", "x_test"))
        y, labels = data["y_train"].astype("int32"), data["y_test"]
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((32, 32, 3))])
    convolutions = [layers.Conv2D(24, 3, 2, padding="same", use_bias=False)]
    for filters, strides in ((32, 1), (64, 2), (64, 1), (128, 2), (128, 1)):
        depthwise = layers.DepthwiseConv2D(3, strides, padding="same", use_bias=False)
        convolutions += [depthwise, layers.Conv2D(filters, 1, use_bias=False)]
    for convolution in convolutions:
        for layer in (convolution, layers.BatchNormalization(momentum=0.9), layers.ReLU()):
            model.add(layer)
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(10))
    return trained(model, x[:20000], y[:20000], 4), x[:2000], test, labels


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
        models["CIFAR-10, MobileNet"] = mobilenet
        models["MobileNetV1 0.25"] = visual_wake_words
    print(f"{machine.describe()}\n\n| model | float | {' | '.join(OPTIONS)} |")
    print(f"|---|---:|{'---:|' * len(OPTIONS)}")
    for name, make in models.items():
        if FLAGS.only not in name:
            continue
        model, train, test, labels = make()
        expected = model.predict(test, verbose=0)
        target = expected.argmax(axis=1) if labels is None else labels
        row = [name, f"{np.mean(expected.argmax(axis=1) == target):.2%}"]
        for options in OPTIONS.values():
            row.append(measure(model, train, test, expected, target, options))
        print(f"| {' | '.join(row)} |", flush=True)


def measure(model, train, test, expected, target, options):
    """Returns the error and the accuracy of a file, in words; "-" if there is nothing to do."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "model.tflite"
        try:
            tfpeft.export_tflite(
                model,
                path,
                quantization="int8",
                representative_data=train,
                allow_deviation=1e9,
                **options,
            )
        except tfpeft.NoMatchError:
            return "-"
        found = tfpeft.TFLiteFile(path).predict(test)
    return f"{relative(found, expected):.1%}, {np.mean(found.argmax(axis=1) == target):.2%}"


if __name__ == "__main__":
    app.run(main)
