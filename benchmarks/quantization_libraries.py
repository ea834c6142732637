"""Pruning, clustering, quantisation and export of one network through tfpeft, and through TFMOT.

Both classes have the same methods, and train from the same weights, on the same batches.
"""

import keras
import quantization_networks as networks
import tensorflow as tf

import tfpeft
from tfpeft.sparsity.schedules import tfmot

import tf_keras  # isort: skip  (after tfpeft: see tfpeft/sparsity/tfmot_import.py)

CALIBRATED = 400
ALPHA = 0.1
TEMPERATURE = 4.0
EXCLUDED = ("*depthwise*",)
"""Kernels that TFMOT neither prunes nor clusters."""


class Library:
    """What both classes share.

    Args:
        x: Training images.
        y: Their labels.
        batch_size: Images in a batch.
        seed: Of the order of the batches.
        sparsity: Fraction of zeros in pruned kernels.
        clusters: Distinct values of clustered kernels, zero included.
        learning_rate: Of Adam, at the beginning; it falls to 0 as a cosine.
    """

    kind = keras

    def __init__(self, x, y, *, batch_size, seed, sparsity, clusters, learning_rate):
        self.x, self.y, self.batch_size, self.seed = x, y, batch_size, seed
        self.sparsity, self.clusters, self.learning_rate = sparsity, clusters, learning_rate
        self.steps_per_epoch = len(y) // batch_size

    def _adam(self, epochs, learning_rate=None):
        steps = epochs * self.steps_per_epoch
        schedule = self.kind.optimizers.schedules.CosineDecay(
            learning_rate or self.learning_rate, steps
        )
        return self.kind.optimizers.Adam(schedule)

    def _fit(self, model, optimizer, epochs, callbacks=()):
        keras.utils.set_random_seed(self.seed)
        x, y = tf.constant(self.x), tf.constant(self.y)
        order = tf.data.Dataset.range(len(self.y)).shuffle(len(self.y), seed=self.seed)
        batches = order.batch(self.batch_size, drop_remainder=True)
        data = batches.map(lambda rows: (tf.gather(x, rows), tf.gather(y, rows))).prefetch(4)
        loss = self.kind.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(optimizer, loss)
        model.fit(data, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
        return model

    def _schedule(self, epochs):
        steps = epochs * self.steps_per_epoch
        return tfpeft.polynomial_decay(
            self.sparsity, begin=0.0, end=0.6, total_steps=steps, frequency=max(1, steps // 50)
        )


class Tfpeft(Library):
    """Keras 3 and tfpeft."""

    def trained(self, network, epochs, learning_rate):
        """Returns a network trained from random weights."""
        keras.utils.set_random_seed(self.seed)
        model = networks.in_keras(network, self.x.shape[1:])
        return self._fit(model, self._adam(epochs, learning_rate), epochs)

    def pruned(self, model, epochs):
        """Returns the model tuned to `sparsity` zeros, all kernels ranked together."""
        optimizer = tfpeft.MagnitudePruning(
            self._adam(epochs), self._schedule(epochs), scope="global", exclude=EXCLUDED
        )
        return tfpeft.strip_pruning(self._fit(_copy(model), optimizer, epochs))

    def clustered(self, model, epochs):
        """Returns the model tuned to `clusters` distinct values in each kernel; zeros stay."""
        optimizer = tfpeft.WeightClustering(self._adam(epochs), self.clusters, exclude=EXCLUDED)
        return tfpeft.strip_clustering(self._fit(_copy(model), optimizer, epochs))

    def quantized(self, model, epochs, kept=None):
        """Returns the quantise-aware model; kept are "zeros" or "clusters" with their zeros."""
        optimizer = self._adam(epochs)
        if kept == "zeros":
            optimizer = tfpeft.FixedMask(optimizer, exclude=EXCLUDED)
        elif kept == "clusters":
            optimizer = tfpeft.WeightClustering(
                optimizer, self.clusters, initialization="kmeans++", exclude=EXCLUDED
            )
        return self._fit(tfpeft.quantize_aware(model), optimizer, epochs)

    def all_in_one(self, model, epochs):
        """Returns the quantise-aware model, pruned and clustered while the model teaches it."""
        pruning = tfpeft.MagnitudePruning(
            self._adam(epochs), self._schedule(epochs), scope="global", exclude=EXCLUDED
        )
        optimizer = tfpeft.WeightClustering(pruning, self.clusters, exclude=EXCLUDED)
        distiller = tfpeft.Distiller(
            model, tfpeft.quantize_aware(model), alpha=ALPHA, temperature=TEMPERATURE
        )
        return self._fit(distiller, optimizer, epochs).student

    def export(self, model, path, quantization):
        """Writes the file of a model; "int8" of one that is not quantise-aware calibrates."""
        tfpeft.export_tflite(
            model,
            path,
            quantization=quantization,
            representative_data=self.x[:CALIBRATED] if quantization == "int8" else None,
            allow_deviation=1e9,
            compact=quantization == "int8",
        )


class Tfmot(Library):
    """tf_keras, TFMOT and TensorFlow's converter."""

    kind = tf_keras

    def copied(self, model, network):
        """Returns the tf_keras network with the weights of the Keras 3 model."""
        copy = networks.in_tf_keras(network, self.x.shape[1:])
        copy.set_weights(model.get_weights())
        return copy

    def pruned(self, model, epochs):
        prune = tfmot.sparsity.keras.prune_low_magnitude(_copy(model), self._schedule(epochs))
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
        self._fit(prune, self._adam(epochs), epochs, callbacks)
        return tfmot.sparsity.keras.strip_pruning(prune)

    def clustered(self, model, epochs):
        from tensorflow_model_optimization.python.core.clustering.keras.experimental import cluster

        clustering = tfmot.clustering.keras
        clustered = cluster.cluster_weights(
            _copy(model),
            number_of_clusters=self.clusters,
            cluster_centroids_init=clustering.CentroidInitialization.LINEAR,
            preserve_sparsity=_has_zeros(model),
        )
        self._fit(clustered, self._adam(epochs), epochs)
        return clustering.strip_clustering(clustered)

    def quantized(self, model, epochs, kept=None):
        quantization, experimental = tfmot.quantization.keras, tfmot.experimental.combine
        if kept == "zeros":
            scheme = experimental.Default8BitPrunePreserveQuantizeScheme()
        elif kept == "clusters":
            scheme = experimental.Default8BitClusterPreserveQuantizeScheme(
                preserve_sparsity=_has_zeros(model)
            )
        else:
            scheme = quantization.default_8bit.Default8BitQuantizeScheme()
        annotated = quantization.quantize_annotate_model(_copy(model))
        return self._fit(quantization.quantize_apply(annotated, scheme), self._adam(epochs), epochs)

    def export(self, model, path, quantization):
        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        if quantization == "int8":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if not _is_quantized(model):
                converter.representative_dataset = lambda: (
                    [self.x[i : i + 1]] for i in range(CALIBRATED)
                )
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        path.write_bytes(converter.convert())


def _copy(model):
    kind = keras if isinstance(model, keras.Model) else tf_keras
    copy = kind.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _is_quantized(model):
    return any("quantize" in layer.name for layer in model.layers)


def _has_zeros(model):
    kernels = [w.numpy() for w in model.trainable_weights if len(w.shape) >= 2]
    return sum((kernel == 0).sum() for kernel in kernels) > 0.1 * sum(k.size for k in kernels)
