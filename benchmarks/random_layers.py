"""Layers with weights, and activations, of random models: each one is drawn at random."""

from keras import layers, ops

_ACTIVATIONS = (None, "relu", "tanh", "gelu", "sigmoid", "relu6", "softplus", "leaky_relu")


class RandomLayers:
    """Methods that call a random layer with a tensor, and return its outputs.

    Attributes:
        rng: The generator of random numbers.
        live: The tensors that can be used.
        called: [(layer, shape of its input)], of layers that can be called again.
    """

    rng, live, called = None, (), ()

    def choice(self, values):
        return values[int(self.rng.integers(len(values)))]

    def width(self):
        return int(self.choice([2, 3, 4, 5, 6, 8, 12]))

    def activation(self):
        return self.choice(_ACTIVATIONS)

    def call(self, layer, x):
        self.called.append((layer, x.shape))
        return layer(x)

    def _coin(self):
        return bool(self.rng.random() < 0.7)

    # Layers that make channels.

    def _dense(self, x):
        return self.call(layers.Dense(self.width(), self.activation(), self._coin()), x)

    def _einsum_dense(self, x):
        width = self.width()
        if len(x.shape) == 3:
            kind = self.choice(["abc,cd->abd", "abc,cde->abde", "...c,cd->...d", "abc,bcd->abd"])
            shape = {
                "abc,cd->abd": (None, width),
                "abc,cde->abde": (None, 2, width),
                "...c,cd->...d": width,
                "abc,bcd->abd": (x.shape[1], width),
            }[kind]
            bias = {"abc,cde->abde": "de"}.get(kind, "d")
        else:
            kind, shape, bias = "...c,cd->...d", width, "d"
        bias = bias if self._coin() else None
        return self.call(layers.EinsumDense(kind, shape, self.activation(), bias), x)

    def _convolution(self, x):
        rank = len(x.shape) - 2
        kind = (layers.Conv1D, layers.Conv2D, layers.Conv3D)[rank - 1]
        channels, width = x.shape[-1], self.width()
        groups = self.choice([g for g in range(1, channels + 1) if channels % g == 0])
        groups = groups if self.rng.random() < 0.4 else 1
        width = -(-width // groups) * groups
        options = self.choice([{"strides": 1}, {"strides": 2}, {"dilation_rate": 2}])
        if groups > 1 and rank == 3:
            groups = 1  # TensorFlow has no grouped ones on a CPU
        padding = "same" if min(x.shape[1:-1]) < 3 or "dilation_rate" in options else "valid"
        if rank == 1 and self._coin():
            padding = "causal"
        return self.call(
            kind(
                width,
                self.choice([1, 3]) if min(x.shape[1:-1]) >= 3 else 1,
                padding=padding,
                groups=groups,
                activation=self.activation(),
                use_bias=self._coin(),
                **options,
            ),
            x,
        )

    def _transposed(self, x):
        rank = len(x.shape) - 2
        kind = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)[rank - 1]
        padding = self.choice(["same", "valid"])
        return self.call(
            kind(self.width(), 2, strides=2, padding=padding, use_bias=self._coin()), x
        )

    def _separable(self, x):
        kind = (layers.SeparableConv1D, layers.SeparableConv2D)[len(x.shape) - 3]
        options = {"depth_multiplier": self.choice([1, 2]), "use_bias": self._coin()}
        return self.call(
            kind(self.width(), 3, padding="same", activation=self.activation(), **options), x
        )

    def _depthwise(self, x):
        kind = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)[len(x.shape) - 3]
        options = {"depth_multiplier": self.choice([1, 1, 2]), "use_bias": self._coin()}
        return self.call(kind(3, padding="same", activation=self.activation(), **options), x)

    def _recurrent_layer(self, width=None):
        kind = self.choice([layers.SimpleRNN, layers.LSTM, layers.GRU])
        options = {"use_bias": self._coin()}
        if kind is layers.GRU:
            options["reset_after"] = self._coin()
        return kind(width or self.width(), return_sequences=self._coin(), **options)

    def _recurrent(self, x):
        if self.rng.random() < 0.2:
            layer = layers.LSTM(self.width(), return_sequences=True, return_state=True)
            outputs, state, _ = layer(x)
            return [state, outputs]
        return self.call(self._recurrent_layer(), x)

    def _bidirectional(self, x):
        layer = self._recurrent_layer()
        mode = self.choice(["concat", "sum", "mul", "ave"])
        return self.call(layers.Bidirectional(layer, merge_mode=mode), x)

    def _attention(self, x):
        heads, width = self.choice([1, 2, 3, 4]), self.choice([2, 3])
        others = [y for y in self.live if len(y.shape) == 3]
        y = x if self._coin() else self.choice(others)
        if self.rng.random() < 0.3:
            layer = layers.GroupQueryAttention(width, 2 * heads, heads, use_bias=self._coin())
            return layer(x, y)  # of one width, or Keras raises
        layer = layers.MultiHeadAttention(
            heads, width, value_dim=self.choice([None, 4]), use_bias=self._coin()
        )
        if self.rng.random() < 0.2:
            return layer(x, y, return_attention_scores=True)
        made = layer(x, y, use_causal_mask=not self._coin())
        return layers.Add()([x, made]) if self._coin() else made

    def _time_distributed(self, x):
        if len(x.shape) == 4:
            inner = layers.Conv1D(self.width(), 1, activation=self.activation())
        else:
            inner = layers.Dense(self.width(), activation=self.activation())
        return self.call(layers.TimeDistributed(inner), x)

    # Layers that carry channels.

    def _batch_normalization(self, x):
        return self.call(layers.BatchNormalization(scale=self._coin(), center=self._coin()), x)

    def _layer_normalization(self, x):
        kind = self.choice([layers.LayerNormalization, layers.RMSNormalization])
        return self.call(kind(), x)

    def _group_normalization(self, x):
        channels = x.shape[-1]
        groups = self.choice([-1, 1, *[g for g in (2, channels) if channels % g == 0]])
        return self.call(layers.GroupNormalization(groups), x)

    def _prelu(self, x):
        shared = self.choice([None, list(range(1, len(x.shape) - 1))])
        return self.call(layers.PReLU(shared_axes=shared or None), x)

    def _activation(self, x):
        return self.call(
            self.choice(
                [
                    *(layers.ReLU(), layers.ReLU(6.0), layers.LeakyReLU(), layers.ELU()),
                    *(layers.Activation("tanh"), layers.Activation("swish")),
                    *(layers.Activation(ops.square), layers.Activation("elu")),
                    self.choice([layers.Softmax(), layers.Activation("softmax"), layers.ReLU()]),
                ]
            ),
            x,
        )

    def _elementwise_layer(self, x):
        return self.call(
            self.choice([layers.Dropout(0.3), layers.GaussianNoise(0.1), layers.Identity()]), x
        )


def global_pooling(x, rng, keepdims=False):
    """Returns a layer that pools all positions of a tensor; Identity if it has none."""
    kind = ("GlobalAveragePooling", "GlobalMaxPooling")[int(rng.integers(2))]
    if len(x.shape) == 2:
        return layers.Identity()
    return getattr(layers, f"{kind}{len(x.shape) - 2}D")(keepdims=keepdims)
