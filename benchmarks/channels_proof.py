"""Channel pruning of keras.applications and other networks to half of their MACs, with the proof.

    python benchmarks/channels_proof.py
    python benchmarks/channels_proof.py --models=ResNet50,Xception

Each network has random weights and random statistics of BatchNormalization, and small inputs.
`prune_channels(max_macs=0.5, importance="l2")` ranks all channels together and ends by comparing
every layer with the network whose removed channels are zero. A row of the table is

- "pruned": to half of the MACs; all layers but those of the outputs lost channels or could have.
- "pruned, parts fixed": to half of the MACs, with layers whose channels have to stay, and why.
- "refused": with the error.

The difference is the largest one of any layer's output, as a fraction of its largest value; above
1e-4 it is an error. Cost: about 20 minutes on 2 cores. The table is in README.md.
"""

import collections
import time

import keras
import keras_hub
import machine
import numpy as np
from absl import app, flags
from keras import layers, ops

import tfpeft
from tfpeft.core.graph import origin

FLAGS = flags.FLAGS
flags.DEFINE_list("models", [], "Only these; default: all.")
flags.DEFINE_boolean("large", False, "The large ones of keras.applications, too.")

_SIDES = {"InceptionV3": 75, "InceptionResNetV2": 75, "Xception": 71}
APPLICATIONS = (
    "VGG16 VGG19 ResNet50 ResNet101 ResNet152 ResNet50V2 ResNet101V2 ResNet152V2 InceptionV3 "
    "InceptionResNetV2 Xception DenseNet121 DenseNet169 DenseNet201 MobileNet MobileNetV2 "
    "MobileNetV3Small MobileNetV3Large EfficientNetB0 EfficientNetB1 EfficientNetV2B0 "
    "EfficientNetV2S ConvNeXtTiny ConvNeXtSmall NASNetMobile"
)
LARGE = (
    "EfficientNetB2 EfficientNetB3 EfficientNetB4 EfficientNetB5 EfficientNetB6 EfficientNetB7 "
    "EfficientNetV2B1 EfficientNetV2B2 EfficientNetV2B3 EfficientNetV2M EfficientNetV2L "
    "ConvNeXtBase ConvNeXtLarge ConvNeXtXLarge NASNetLarge"
)


def application(name):
    side = _SIDES.get(name, 32)
    make = getattr(keras.applications, name)
    return make(weights=None, input_shape=(side, side, 3), classes=10)


def unet():
    inputs = h = keras.Input((32, 32, 3))
    joined = []
    for filters in (16, 32):
        h = layers.Conv2D(filters, 3, padding="same", activation="relu")(h)
        joined.append(h)
        h = layers.MaxPooling2D()(h)
    h = layers.Conv2D(64, 3, padding="same", activation="relu")(h)
    for filters in (32, 16):
        h = layers.Conv2DTranspose(filters, 2, strides=2)(h)
        h = layers.Concatenate()([h, joined.pop()])
        h = layers.BatchNormalization()(h)
        h = layers.Conv2D(filters, 3, padding="same", activation="relu")(h)
    return keras.Model(inputs, layers.Conv2D(2, 1, activation="softmax")(h))


def dilated():
    inputs = keras.Input((64, 4))
    h = layers.Conv1D(32, 3, padding="causal")(inputs)
    for rate in (1, 2, 4):
        y = layers.Conv1D(32, 3, padding="causal", dilation_rate=rate, activation="relu")(h)
        h = layers.Add()([h, layers.Conv1D(32, 1)(y)])
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))


def tagger():
    inputs = keras.Input((12,), dtype="int32")
    h = layers.Embedding(50, 32, mask_zero=True)(inputs)
    h = layers.Bidirectional(layers.LSTM(24, return_sequences=True))(h)
    return keras.Model(inputs, layers.Dense(5, activation="softmax")(h))


def vision_transformer():
    inputs = keras.Input((32, 32, 3))
    h = layers.Reshape((16, 64))(layers.Conv2D(64, 8, strides=8)(inputs))
    h = keras_hub.layers.PositionEmbedding(16)(h)
    for _ in range(2):
        y = layers.LayerNormalization()(h)
        h = h + layers.MultiHeadAttention(4, 16)(y, y)
        y = layers.Dense(256, activation="gelu")(layers.LayerNormalization()(h))
        h = h + layers.Dense(64)(y)
    h = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(h))
    return keras.Model(inputs, layers.Dense(10)(h))


def bert():
    return keras_hub.models.BertBackbone(
        vocabulary_size=100,
        num_layers=2,
        num_heads=4,
        hidden_dim=64,
        intermediate_dim=256,
        max_sequence_length=16,
    )


def siamese():
    image = keras.Input((16, 16, 1))
    h = layers.Conv2D(32, 3, activation="relu")(image)
    h = layers.Conv2D(32, 3, activation="relu")(h)
    embed = keras.Model(image, layers.Dense(16)(layers.GlobalAveragePooling2D()(h)))
    inputs = [keras.Input((16, 16, 1)), keras.Input((16, 16, 1))]
    first, second = map(embed, inputs)
    return keras.Model(inputs, layers.Dense(1)(ops.abs(first - second)))


def several():
    image, numbers = keras.Input((16, 16, 3)), keras.Input((8,))
    h = layers.Conv2D(32, 3, activation="relu", padding="same")(image)
    gate = layers.Dense(32, activation="sigmoid")(numbers)
    h = layers.Multiply()([h, layers.Reshape((1, 1, 32))(gate)])
    h = layers.Conv2D(32, 3, groups=4, activation="relu")(h)
    h = layers.Flatten()(layers.MaxPooling2D()(h))
    return keras.Model([image, numbers], [layers.Dense(3)(h), layers.Dense(1)(h)])


def mini_xception():
    inputs = keras.Input((32, 32, 3))
    h = layers.Conv2D(16, 3, padding="same", use_bias=False)(inputs)
    h = layers.ReLU()(layers.BatchNormalization()(h))
    for filters in (32, 64):
        y = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False)(h)
        y = layers.MaxPooling2D(3, 2, padding="same")(layers.BatchNormalization()(y))
        h = layers.Add()([y, layers.Conv2D(filters, 1, strides=2)(h)])
    return keras.Model(inputs, layers.Dense(6)(layers.GlobalAveragePooling2D()(h)))


OTHERS = {
    "U-Net": unet,
    "residual dilated Conv1D": dilated,
    "LSTM tagger": tagger,
    "small Vision Transformer": vision_transformer,
    "small BERT of KerasHub": bert,
    "siamese with shared layers": siamese,
    "two inputs and two outputs": several,
    "mini-Xception": mini_xception,
}
OPTIONS = {}
"""Arguments of `prune_channels` that differ for a model; the table names them."""


def randomize(model):
    """Gives biases, scales and statistics values that the proof would notice."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        name = weight.path.rsplit("/", 1)[-1]
        if name in ("gamma", "moving_variance", "scale"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(0.1 * rng.normal(size=weight.shape))


def row(name, model, options):
    """Returns a row of the table."""
    randomize(model)
    started = time.perf_counter()
    try:
        small = tfpeft.prune_channels(model, max_macs=0.5, importance="l2", **options)
    except tfpeft.InputError as error:
        return [name, f"refused: {error}", "", "", "", f"{time.perf_counter() - started:.1f}"]
    seconds = time.perf_counter() - started
    report = small.channel_report
    outputs = {origin(tensor).operation.name for tensor in model.outputs}
    why = collections.Counter(
        reason
        for layer, reason in report.fixed.items()
        if layer not in outputs and reason.split(" ")[0] not in outputs
    )
    result = "pruned"
    if why:
        reasons = "; ".join(f"{count}: {reason}" for reason, count in why.most_common(2))
        result = f"pruned, {sum(why.values())} of {len(report.widths)} layers fixed ({reasons})"
    if options:
        result += "; " + ", ".join(f"{key}={value}" for key, value in options.items())
    costs = [
        f"{before:,} -> {after:,} ({after / before:.2f})"
        for before, after in (report.macs, report.params)
    ]
    return [name, result, *costs, f"{report.difference:.0e}", f"{seconds:.1f}"]


def main(_):
    names = [*APPLICATIONS.split(), *(LARGE.split() if FLAGS.large else ()), *OTHERS]
    print(f"{machine.describe()}\n")
    print("| model | result | MACs | parameters | difference | seconds |")
    print("|---|---|---:|---:|---:|---:|", flush=True)
    for name in FLAGS.models or names:
        keras.backend.clear_session()
        keras.utils.set_random_seed(0)
        model = OTHERS[name]() if name in OTHERS else application(name)
        print(f"| {' | '.join(row(name, model, OPTIONS.get(name, {})))} |", flush=True)


if __name__ == "__main__":
    app.run(main)
