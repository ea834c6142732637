"""A network, its figures by NumPy, and a file that `export_tflite` did not write."""

import keras
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 6, 6, 2)).astype("float32")
Y = rng.integers(0, 4, 50)


def net(activation=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation=activation),
        ]
    )


def by_hand(logits, y):
    logits = logits.astype("float64")
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    predictions = p.argmax(1)
    precision, recall, f1 = [], [], []
    for c in range(p.shape[1]):
        hits = np.sum((predictions == c) & (y == c))
        predicted, there = np.sum(predictions == c), np.sum(y == c)
        precision.append(hits / predicted if predicted else 0.0)
        recall.append(hits / there if there else 0.0)
        total = precision[-1] + recall[-1]
        f1.append(2 * precision[-1] * recall[-1] / total if total else 0.0)
    return {
        "accuracy": np.mean(predictions == y),
        "precision": np.mean(precision),
        "recall": np.mean(recall),
        "f1": np.mean(f1),
        "loss": -np.mean(np.log(p[np.arange(len(y)), y])),
    }


def write(path, models, specs):
    """Writes a file of a signature a model, without `export_tflite`."""
    archive = keras.export.ExportArchive()
    for name, model in models.items():
        archive.track(model)
        archive.add_endpoint(name, model, input_signature=specs)
    archive.write_out(path.with_suffix(""), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path.with_suffix("")), signature_keys=list(models)
    )
    path.write_bytes(converter.convert())
