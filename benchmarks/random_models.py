"""Small functional models out of the layers of Keras, drawn at random from a seed.

A model begins with one to three inputs: vectors, sequences, images, volumes or tokens. Then steps
are drawn that fit the rank of a tensor: layers, operations, blocks of several layers, calls of
layers and nested models that were called before. It ends in one to three outputs.
"""

import keras
import numpy as np
from keras import layers, ops
from random_layers import RandomLayers, global_pooling

_ELEMENTS = 4096
"""The largest tensor."""


def random_model(seed, *, steps=None):
    """Returns a model with random weights.

    Args:
        seed: Integer.
        steps: How many steps are drawn; by default from 3 to 12.
    """
    rng = np.random.default_rng(seed)
    builder = _Builder(rng)
    inputs = [builder.input() for _ in range(rng.choice([1, 1, 1, 2, 3]))]
    builder.live = [builder.begin(tensor) for tensor in inputs]
    for _ in range(steps or int(rng.integers(3, 13))):
        builder.step()
    outputs = builder.outputs()
    model = keras.Model(inputs, outputs if len(outputs) > 1 else outputs[0], name=f"random_{seed}")
    set_random_weights(model, rng)
    return model


def set_random_weights(model, rng):
    """Sets all weights of a model, statistics too, so that values stay near 1 in deep ones."""
    for weight in model.weights:
        shape = tuple(weight.shape)
        if not keras.backend.is_float_dtype(weight.dtype):
            continue
        if weight.name in ("gamma", "moving_variance", "scale"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) < 2:
            value = 0.3 * rng.normal(size=shape)
        else:
            value = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        weight.assign(value)


class _Builder(RandomLayers):
    """Tensors that further steps can use, and layers that can be called again."""

    def __init__(self, rng):
        self.rng = rng
        self.live = []
        self.called = []  # (layer, shape of its input)
        self.depth = 0

    def input(self):
        kind = self.choice(["vector", "sequence", "sequence", "image", "image", "volume", "tokens"])
        if kind == "tokens":
            return keras.Input((6,), dtype="int32")
        shape = {
            "vector": (self.choice([6, 8, 12]),),
            "sequence": (self.choice([6, 6, None]), self.choice([3, 4])),
            "image": (*self.choice([(6, 6), (6, 6), (None, None)]), self.choice([1, 3, 4])),
            "volume": (4, 4, 4, 2),
        }[kind]
        return keras.Input(shape)

    def begin(self, tensor):
        if tensor.dtype == "int32":
            masked = bool(self.rng.random() < 0.3)
            return layers.Embedding(10, self.width(), mask_zero=masked)(tensor)
        if self.rng.random() < 0.7:  # channels that can go
            kind = {4: layers.Conv2D, 5: layers.Conv3D}.get(len(tensor.shape))
            layer = kind(self.width(), 3, padding="same") if kind else layers.Dense(self.width())
            return layer(tensor)
        return tensor

    def step(self):
        """Adds a tensor, made of one that is there, or of several."""
        x = self.live[-1] if self.rng.random() < 0.7 else self.choice(self.live)
        step = self.choice(self._steps(x))
        try:
            made = step(x)
        except (TypeError, ValueError):  # Keras does not take these shapes, such as free sides
            return
        if made is None:
            return
        for each in made if isinstance(made, (list, tuple)) else [made]:
            if 1 < len(each.shape) < 6 and 0 < _size(each) <= _ELEMENTS:
                self.live.append(each)

    def outputs(self):
        """Returns the last tensor, or several, some through a last layer."""
        made = []
        for _ in range(self.choice([1, 1, 1, 2, 3])):
            x = self.live[-1] if not made else self.choice(self.live)
            if len(x.shape) > 2 and self.rng.random() < 0.5:
                flatten = layers.Flatten() if None not in x.shape[1:] else layers.Identity()
                x = self.choice([flatten, global_pooling(x, self.rng)])(x)
            if x.shape[-1] is not None and self.rng.random() < 0.9:
                x = layers.Dense(3, name=f"output_{len(made)}")(x)
            if self._coin():
                x = layers.Softmax()(x)
            made.append(x)
        return made

    def _steps(self, x):
        common = [
            *(self._dense, self._dense, self._activation, self._batch_normalization, self._prelu),
            *(self._layer_normalization, self._scalars, self._concatenate, self._add, self._merge),
            *(self._split, self._get_item, self._again, self._again, self._nested, self._ops),
            *(self._elementwise_layer, self._residual, self._gate, self._einsum_dense),
        ]
        by_rank = {
            2: [self._to_sequence, self._repeat, self._dense, self._dot, self._stack],
            3: [
                *(self._convolution, self._convolution, self._transposed, self._separable),
                *(self._depthwise, self._pool, self._pad, self._recurrent, self._recurrent),
                *(self._bidirectional, self._attention, self._attention, self._permute),
                *(self._flatten, self._global_pool, self._time_distributed, self._similarities),
                *(self._to_image, self._group_normalization, self._reduce, self._transpose),
                *(self._scores, self._squeeze_excite),
            ],
            4: [
                *(self._convolution, self._convolution, self._convolution, self._transposed),
                *(self._separable, self._depthwise, self._pool, self._pad, self._permute),
                *(self._flatten, self._global_pool, self._squeeze_excite, self._squeeze_excite),
                *(self._to_tokens, self._group_normalization, self._reduce, self._transpose),
                *(self._time_distributed, self._inverted_residual),
            ],
            5: [
                *(self._convolution, self._convolution, self._transposed, self._pool, self._pad),
                *(self._flatten, self._global_pool, self._reduce, self._group_normalization),
            ],
        }
        return common + by_rank[len(x.shape)]

    # Layers that move channels.

    def _pool(self, x):
        rank = len(x.shape) - 2
        names = self.choice(["MaxPooling", "AveragePooling"]), f"{rank}D"
        return self.call(getattr(layers, "".join(names))(2, padding="same"), x)

    def _pad(self, x):
        rank = len(x.shape) - 2
        name = self.choice(["ZeroPadding", "UpSampling", "Cropping"])
        if name == "Cropping" and min(x.shape[1:-1]) < 4:
            return None
        size = 2 if name == "UpSampling" else 1
        return self.call(getattr(layers, f"{name}{rank}D")(size), x)

    def _flatten(self, x):
        return self.call(layers.Flatten(), x)

    def _global_pool(self, x):
        return self.call(global_pooling(x, self.rng), x)

    def _permute(self, x):
        dims = self.rng.permutation(len(x.shape) - 1) + 1
        return self.call(layers.Permute([int(d) for d in dims]), x)

    def _transpose(self, x):
        axes = [0, *(int(a) + 1 for a in self.rng.permutation(len(x.shape) - 1))]
        return ops.transpose(x, axes)

    def _repeat(self, x):
        return self.call(layers.RepeatVector(3), x)

    def _to_sequence(self, x):
        side = self.choice([s for s in range(1, x.shape[1] + 1) if x.shape[1] % s == 0])
        shape = self.choice([(side, -1), (-1, side), (side, x.shape[1] // side)])
        if self._coin():
            return self.call(layers.Reshape(shape), x)
        return ops.reshape(x, (-1, side, x.shape[1] // side))

    def _to_image(self, x):
        length, channels = x.shape[1:]
        side = self.choice([s for s in range(1, length + 1) if length % s == 0])
        shape = self.choice([(side, length // side, channels), (length, 1, channels)])
        heads = self.choice([h for h in range(1, channels + 1) if channels % h == 0])
        shape = self.choice([shape, (length, heads, channels // heads)])
        return self.call(layers.Reshape(shape), x)

    def _to_tokens(self, x):
        return self.call(layers.Reshape((-1, x.shape[-1])), x)

    # Several tensors.

    def _partner(self, x, axis=None):
        """Returns another tensor of the shape, but along an axis, where there is one."""

        def fits(y):
            return (
                y is not x
                and len(y.shape) == len(x.shape)
                and all(
                    i == axis or a == b
                    for i, (a, b) in enumerate(zip(x.shape, y.shape, strict=True))
                )
            )

        found = [y for y in self.live if fits(y)]
        if found and self.rng.random() < 0.7:
            return self.choice(found)
        return layers.Dense(x.shape[-1], self.activation())(x)

    def _add(self, x):
        return layers.Add()([x, self._partner(x)])

    def _merge(self, x):
        kind = self.choice(
            [layers.Subtract, layers.Multiply, layers.Maximum, layers.Average, layers.Minimum]
        )
        y = self._partner(x)
        if len(x.shape) > 2 and self.rng.random() < 0.3:
            y = global_pooling(y, self.rng, keepdims=True)(y)  # spread over the positions
        if self.rng.random() < 0.2:
            y = layers.Dense(1)(y)  # spread over the channels
        return kind()([x, y] if self._coin() else [y, x])

    def _concatenate(self, x):
        axis = len(x.shape) - 1 if self._coin() else int(self.rng.integers(1, len(x.shape)))
        parts = [x, self._partner(x, axis)]
        if self._coin():
            parts.append(x)
        return self.choice([layers.Concatenate(axis), lambda y: ops.concatenate(y, axis)])(parts)

    def _residual(self, x):
        y = layers.Dense(self.width(), self.activation())(x)
        return layers.Add()([x, layers.Dense(x.shape[-1])(y)])

    def _gate(self, x):
        return x * layers.Dense(x.shape[-1], "sigmoid")(x)

    def _squeeze_excite(self, x):
        y = global_pooling(x, self.rng, keepdims=self._coin())(x)
        y = layers.Dense(self.width(), "relu")(y)
        y = layers.Dense(x.shape[-1], "sigmoid")(y)
        if len(y.shape) == 2:
            y = layers.Reshape((*[1] * (len(x.shape) - 2), x.shape[-1]))(y)
        return layers.Multiply()([x, y])

    def _inverted_residual(self, x):
        y = layers.Conv2D(2 * x.shape[-1], 1, use_bias=False)(x)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        return x + layers.BatchNormalization()(layers.Conv2D(x.shape[-1], 1, use_bias=False)(y))

    def _dot(self, x):
        y = self._partner(x)
        return layers.Dot(1, normalize=not self._coin())([x, y])

    def _similarities(self, x):
        y = layers.Dense(self.width())(x)
        z = layers.Dense(y.shape[-1])(x)
        return layers.Dot(axes=self.choice([2, (2, 2)]), normalize=not self._coin())([y, z])

    def _scores(self, x):
        width = self.width()
        y, z = layers.Dense(width)(x), layers.Dense(width)(x)
        if self._coin():
            scores = ops.matmul(y, ops.transpose(z, (0, 2, 1)))
        else:
            scores = ops.einsum("btc,bsc->bts", y, z)
        value = layers.Dense(self.width())(x)
        return ops.matmul(ops.softmax(scores), value)

    # Operations.

    def _scalars(self, x):
        return self.choice([lambda: 2.0 * x - 1.0, lambda: x / 3.0, lambda: -x, lambda: abs(x)])()

    def _ops(self, x):
        return self.choice(
            [
                lambda: ops.relu(x),
                lambda: ops.tanh(x) + x,
                lambda: ops.clip(x, -1.0, 1.0),
                lambda: ops.expand_dims(x, 1) if len(x.shape) < 5 else None,
                lambda: ops.maximum(x, 0.1),
                lambda: ops.flip(x, 1),
                lambda: ops.softmax(x),
                lambda: ops.where(x > 0, x, 0.1 * x),
                lambda: (
                    ops.pad(x, [[0, 0], [1, 1], *[[0, 0]] * (len(x.shape) - 2)])
                    if len(x.shape) > 2
                    else None
                ),
                lambda: ops.roll(x, 1, axis=1),
                lambda: ops.cumsum(x, axis=1),
                lambda: ops.repeat(x, 2, axis=-1),
                lambda: ops.swapaxes(x, 1, -1),
                lambda: x * np.linspace(0.5, 1.5, x.shape[-1], dtype="float32"),
                lambda: layers.Lambda(lambda t: t * t)(x),
            ]
        )()

    def _reduce(self, x):
        function = self.choice([ops.mean, ops.max, ops.sum])
        axis = int(self.rng.integers(1, len(x.shape)))
        return function(x, axis=axis, keepdims=self._coin())

    def _stack(self, x):
        return ops.stack([x, self._partner(x)], axis=1)

    def _split(self, x):
        channels = x.shape[-1]
        parts = [p for p in (2, 3) if channels % p == 0]
        if not parts:
            return None
        made = ops.split(x, self.choice(parts), axis=-1)
        return made[0] * made[1] if self._coin() else list(made)

    def _get_item(self, x):
        keys = [(slice(None), slice(0, 2)), (Ellipsis, slice(0, 2)), (slice(None), slice(1, None))]
        if len(x.shape) > 2:
            keys += [(slice(None), 0), (slice(None), -1), (slice(None), slice(None, None, 2))]
        keys.append((Ellipsis, None) if len(x.shape) < 5 else (Ellipsis, slice(None)))
        return x[self.choice(keys)]

    # Calls of what was called before.

    def _again(self, x):
        found = [layer for layer, shape in self.called if shape == x.shape]
        if not found:
            return None
        return self.choice(found)(x)

    def _nested(self, x):
        if self.depth:
            return None
        inner = _Builder(self.rng)
        inner.depth = 1
        inputs = keras.Input(x.shape[1:])
        inner.live = [inputs]
        for _ in range(int(self.rng.integers(1, 4))):
            inner.step()
        if inner.live[-1] is inputs:
            return None
        model = keras.Model(inputs, inner.live[-1])
        return self.call(model, x)


def _size(tensor):
    return np.prod([side or 6 for side in tensor.shape[1:]])
