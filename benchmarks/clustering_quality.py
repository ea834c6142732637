"""Accuracy with few distinct values on Fashion-MNIST: WeightClustering and TFMOT, side by side.

    python benchmarks/clustering_quality.py --data_dir=data        # fashion_mnist.npz is in data/

A network is trained, and then tuned on with clusters, for fewer epochs; "plain" is tuned without.
tfpeft's networks are Keras 3's, TFMOT's the equal tf_keras ones, all from the same weights. The
accuracy is that of the last epoch on the 10,000 test images; the bytes are those of all kernels,
compressed by gzip.

Cost: with the settings of README.md about 10 minutes on 2 busy cores. The table is there.
"""

import gzip
import pathlib

import keras
import machine
import numpy as np
from absl import app, flags

import tfpeft
from tfpeft.sparsity.schedules import tfmot

import tf_keras  # isort: skip  (after tfpeft: see tfpeft/sparsity/tfmot_import.py)

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz.")
flags.DEFINE_integer("images", 60_000, "Images to train on.", lower_bound=1)
flags.DEFINE_integer("epochs", 6, "Epochs before clustering; half as many with clusters.")
flags.DEFINE_list("clusters", ["4", "8", "16"], "Numbers of clusters.")
flags.DEFINE_list("seeds", ["0", "1", "2"], "A run each.")

LEARNING_RATE = 5e-4
TECHNIQUES = {
    "WeightClustering": lambda o, k: tfpeft.WeightClustering(o, k),
    "WeightClustering, fixed clusters": lambda o, k: tfpeft.WeightClustering(
        o, k, straight_through=False
    ),
    "TFMOT": None,
}


def network(kind, input_layer):
    """The same network in Keras 3 or tf_keras."""
    return kind.Sequential(
        [
            input_layer((28, 28, 1)),
            kind.layers.Conv2D(16, 3, strides=2, activation="relu"),
            kind.layers.Conv2D(32, 3, strides=2, activation="relu"),
            kind.layers.Flatten(),
            kind.layers.Dense(10),
        ]
    )


def trained(kind, model, optimizer, data, epochs):
    loss = kind.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    model.fit(*data["train"], epochs=epochs, batch_size=64, verbose=0)
    return model


def measured(model, data):
    """Returns (accuracy in %, kilobytes of the compressed kernels, most values of a kernel)."""
    accuracy = 100 * model.evaluate(*data["test"], batch_size=500, verbose=0)[1]
    kernels = [np.asarray(weight) for weight in model.get_weights() if weight.ndim > 1]
    size = len(gzip.compress(b"".join(kernel.tobytes() for kernel in kernels))) / 1000
    return accuracy, size, max(len(np.unique(kernel)) for kernel in kernels)


def tuned(technique, clusters, weights, data, epochs):
    """Returns a model that was tuned from `weights` on."""
    if technique == "TFMOT":
        model = network(tf_keras, tf_keras.layers.InputLayer)
        model.set_weights(weights)
        clustering = tfmot.clustering.keras
        linear = clustering.CentroidInitialization.LINEAR
        model = clustering.cluster_weights(model, clusters, linear)
        optimizer = tf_keras.optimizers.Adam(LEARNING_RATE)
        return clustering.strip_clustering(trained(tf_keras, model, optimizer, data, epochs))
    model = network(keras, keras.Input)
    model.set_weights(weights)
    optimizer = keras.optimizers.Adam(LEARNING_RATE)
    if technique is not None:
        optimizer = TECHNIQUES[technique](optimizer, clusters)
    return trained(keras, model, optimizer, data, epochs)


def evaluated(technique, clusters, weights, data, epochs):
    model = tuned(technique, clusters, weights, data, epochs)
    if technique == "TFMOT":  # a stripped model is not compiled
        loss = tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(loss=loss, metrics=["accuracy"])
    return measured(model, data)


def main(_):
    with np.load(pathlib.Path(FLAGS.data_dir) / "fashion_mnist.npz") as file:
        x, y, x_test, y_test = (file[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    x, x_test = (images[..., None].astype("float32") / 255 for images in (x, x_test))
    data = {"train": (x[: FLAGS.images], y[: FLAGS.images]), "test": (x_test, y_test)}
    results = {}
    for seed in map(int, FLAGS.seeds):
        keras.utils.set_random_seed(seed)
        model = network(keras, keras.Input)
        trained(keras, model, keras.optimizers.Adam(1e-3), data, FLAGS.epochs)
        rows = [(None, 0)] + [(t, int(k)) for k in FLAGS.clusters for t in TECHNIQUES]
        for technique, clusters in rows:
            keras.utils.set_random_seed(seed)
            epochs = FLAGS.epochs // 2
            result = evaluated(technique, clusters, model.get_weights(), data, epochs)
            results.setdefault((clusters, technique or "plain"), []).append(result)
            print(seed, clusters, technique or "plain", *result, flush=True)
    print(f"\n{machine.describe()}\n")
    print(
        "| clusters | | accuracy % | gzip kB of kernels | most values |\n|---:|---|---:|---:|---:|"
    )
    for (clusters, technique), runs in results.items():
        accuracy, size, values = np.mean(runs, axis=0)
        spread = np.std([run[0] for run in runs])
        cells = [clusters or "", technique, f"{accuracy:.2f} ({spread:.2f})"]
        print(f"| {' | '.join(map(str, cells))} | {size:.1f} | {values:.0f} |")


if __name__ == "__main__":
    app.run(main)
