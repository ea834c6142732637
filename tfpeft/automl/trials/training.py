"""How a trial is trained: on labels and precomputed outputs of a teacher, with its techniques."""

import contextlib

import keras
import numpy as np
import tensorflow as tf

from tfpeft.automl.trials.clock import StepTimer
from tfpeft.automl.trials.techniques import TRAINED_BITS
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.core.arguments import InputError
from tfpeft.core.checks import input_errors
from tfpeft.core.data import Batch
from tfpeft.core.model_files import not_finite
from tfpeft.core.moving_statistics import following_statistics
from tfpeft.distillation.distiller import Distiller
from tfpeft.distillation.logits_losses import BinarySoftLabels, SoftLabels, SquaredError
from tfpeft.quantization.clustering import WeightClustering
from tfpeft.quantization.quantize_aware import quantize_aware
from tfpeft.sparsity.criteria import MagnitudePruning
from tfpeft.sparsity.fixed_mask import FixedMask
from tfpeft.sparsity.kernels import select_kernels
from tfpeft.sparsity.schedules import polynomial_decay

_QUANTIZED_PART = {8: 0.2, 4: 0.4}  # {bits: part of the steps with the rounding of the file}
_QUANTIZED_RATE = 0.2  # of the learning rate
_CALIBRATED = 400  # samples
_MASK_UPDATES = 20  # while zeros grow
_TIMED = 25  # steps that are done to take their time
_FEWEST_PER_PART = 5  # steps, below which a metric says nothing
PARTS = 9
"""Parts of a watched training, after 1 and 3 of which it may be stopped."""


class Training:
    """Trains models of trials on the same data.

    Args:
        train: A `Batch` of arrays.
        task: The `Task`.
        outputs: The `Outputs` of the models.
        loss: The loss, as `compile` takes it.
        teacher: The outputs of the teacher for `train`, (samples, ...); None without one.
        teacher_from_logits: Whether these are logits.
        batch_size: Samples of a step.
        seed: Of the order of samples.

    Attributes:
        samples: How many samples there are.
        steps_per_epoch: How many steps they are.
    """

    def __init__(
        self, train, task, outputs, loss, *, teacher, teacher_from_logits, batch_size, seed
    ):
        self.samples, self.batch_size = train.size, min(batch_size, train.size)
        self.steps_per_epoch = max(1, train.size // self.batch_size)
        self.calibration = keras.tree.map_structure(
            lambda a: a[:: max(1, train.size // _CALIBRATED)][:_CALIBRATED], train.x
        )
        self._task, self._outputs, self._loss, self._seed = task, outputs, loss, seed
        self._teacher_from_logits = teacher_from_logits
        self._distils = teacher is not None
        x = train.x
        if self._distils:
            x = PrecomputedInputs(x, {"outputs": (teacher,), "features": {}})
        element = Batch(x, train.y, train.sample_weight).element()
        self._tensors = tf.nest.map_structure(tf.convert_to_tensor, element)

    def run(self, model, settings, steps, *, is_continued=False, seed=0, callbacks=(), watch=None):
        """Trains a model, and returns what is exported and what a longer training goes on with.

        The learning rate falls to 0 within the steps.

        Args:
            model: The model, which is trained in place.
            settings: {technique: value}.
            steps: Integer, updates.
            is_continued: Whether the model was trained with these settings before.
            seed: Another order of samples for another number.
            callbacks: Of `fit`.
            watch: A `Watch` of the first fit, or None.

        Returns:
            The trained model, quantise-aware if the settings say so, and the float model.
        """
        bits = TRAINED_BITS.get(settings["quantization"])
        last = max(1, round(_QUANTIZED_PART[bits] * steps)) if bits else 0
        batches = self._batches(self._seed + seed)
        phases = _phases(settings, max(1, steps - last), is_continued and _has_zeros(model))
        rate = settings["learning_rate"]
        for number, (count, wrap) in enumerate(phases):
            is_first = not (number or is_continued)
            with following_statistics(model, count) if is_first else contextlib.nullcontext():
                self._fit(
                    *(model, settings, batches, count, wrap, rate, callbacks),
                    watch=None if number else watch,
                )
        if not bits:
            return model, model
        quantized = quantize_aware(model, weight_bits=bits, representative_data=self.calibration)
        wrap = _kept(settings)
        self._fit(quantized, settings, batches, last, wrap, _QUANTIZED_RATE * rate, callbacks)
        return quantized, model

    def pace(self, model, settings):
        """Returns the seconds of a step of a model, which is trained meanwhile."""
        timer = StepTimer()
        self.run(model, settings, _TIMED, callbacks=[timer])
        return timer.median

    def _fit(self, model, settings, batches, steps, wrap, rate, callbacks, watch=None):
        if steps < _FEWEST_PER_PART * PARTS:
            watch = None
        parts = PARTS if watch else 1
        steps_per_part = -(-steps // parts)
        total = parts * steps_per_part
        optimizer = keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, total))
        trained = self._trained(model, settings)
        trained.compile(
            optimizer=wrap(optimizer, total),
            loss=self._loss,
            metrics=[self._task.training_metric(self._outputs)],
        )
        watching = {} if watch is None else watch.arguments(steps_per_part, self._task.headline)
        with _errors():
            trained.fit(
                batches,
                epochs=parts,
                steps_per_epoch=steps_per_part,
                shuffle=False,
                verbose=0,
                callbacks=[*callbacks, *watching.pop("callbacks", [])],
                **watching,
            )
        where = not_finite(model)
        if where:
            raise InputError(f"training met NaN or infinity in {where}, with {settings}")

    def _trained(self, model, settings):
        """Returns what is fitted: the model, or a `Distiller` of it."""
        if not self._distils:
            return model
        return Distiller(
            None,
            model,
            alpha=settings["alpha"],
            temperature=settings["temperature"],
            distillation_losses=[self._soft_loss()],
            teacher_from_logits=self._teacher_from_logits,
            student_from_logits=self._outputs.from_logits,
        )

    def _soft_loss(self):
        if self._outputs.kind == "values":
            return SquaredError()
        return SoftLabels() if self._outputs.is_softmax else BinarySoftLabels()

    def evaluate(self, model, data):
        """Returns the headline of the task of a Keras model on a `Batch`."""
        model.compile(loss=self._loss, metrics=[self._task.training_metric(self._outputs)])
        with _errors():
            found = model.evaluate(
                *(data.x, data.y),
                sample_weight=data.sample_weight,
                batch_size=1024,
                verbose=0,
                return_dict=True,
            )
        return float(found[self._task.headline])

    def _batches(self, seed):
        """Returns an endless dataset of batches, shuffled by a seed."""
        tensors = self._tensors

        def pick(rows):
            return tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors)

        rows = tf.data.Dataset.range(self.samples).shuffle(self.samples, seed=seed).repeat()
        options = tf.data.Options()
        options.autotune.enabled = False  # its thread makes `fit` wait at the end
        batches = rows.batch(self.batch_size, drop_remainder=True).map(pick).prefetch(2)
        return batches.with_options(options)


class Watch(keras.callbacks.Callback):
    """Measures a model after parts of its training, and stops it where a function says so.

    Args:
        data: A `Batch` of validation data.
        is_worse: A function (part, steps, metric) that returns why the training stops after so many
            of `PARTS` parts, or None.
    """

    def __init__(self, data, is_worse):
        super().__init__()
        self._data, self._is_worse = data, is_worse

    def arguments(self, steps, headline):
        """Returns the arguments of `fit` with which it measures after 1 and 3 of `PARTS` parts."""
        self._steps, self._name = steps, f"val_{headline}"
        return {
            "callbacks": [self],
            "validation_data": self._data.element(),
            "validation_batch_size": 1024,
            "validation_freq": [1, 3],
        }

    def on_epoch_end(self, epoch, logs=None):
        if self._name not in logs:
            return
        metric = float(logs[self._name])
        reason = self._is_worse(epoch + 1, (epoch + 1) * self._steps, metric)
        if reason is not None:
            raise Stopped(reason, metric, (epoch + 1) * self._steps)


class Stopped(Exception):
    """A training that was stopped early, as its model was worse than others.

    Attributes:
        metric: The last value of the metric.
        steps: The updates that were done.
    """

    def __init__(self, reason, metric, steps):
        super().__init__(reason)
        self.metric, self.steps = metric, steps


def _has_zeros(model):
    """Whether kernels of a model have zeros."""
    return any(np.any(kernel.numpy() == 0) for kernel in select_kernels(model.trainable_variables))


def _phases(settings, steps, has_zeros):
    """Returns [(steps, wrap)]: trainings one after the other; `wrap(optimizer, steps)` of each.

    With zeros, which an earlier training of these settings left, all techniques go on together.
    """
    sparsity, clusters = settings["sparsity"], settings["clusters"]
    zeros = [] if not sparsity else [_fixed] if has_zeros else [_pruned(sparsity)]
    is_one = not (sparsity or clusters) or has_zeros or settings["order"] == "together"
    if is_one:
        few = [_clustered(clusters, 0.75)] if clusters else []
        return [(steps, _chained([*zeros, *few]))]
    count = max(1, steps // 4)
    phases = [(count, _chained(zeros))] if sparsity else []
    if clusters:
        kept = [_fixed] if sparsity else []
        phases.append((count, _chained([*kept, _clustered(clusters, 0.0)])))
    return [(max(1, steps - count * len(phases)), _chained([])), *phases]


def _kept(settings):
    """Returns the wrap that keeps zeros and clusters of a trained model."""
    zeros = [_fixed] if settings["sparsity"] else []
    few = [_clustered(settings["clusters"], 0.0)] if settings["clusters"] else []
    return _chained([*zeros, *few])


def _fixed(optimizer, steps):
    return FixedMask(optimizer)


def _pruned(sparsity):
    def wrap(optimizer, steps):
        end = max(1, steps // 2)
        schedule = polynomial_decay(
            sparsity,
            begin=0.0,
            end=end / steps,
            total_steps=steps,
            frequency=max(1, end // _MASK_UPDATES),
        )
        return MagnitudePruning(optimizer, schedule)

    return wrap


def _clustered(clusters, begin):
    def wrap(optimizer, steps):
        return WeightClustering(optimizer, clusters, begin_step=int(begin * steps))

    return wrap


def _chained(wraps):
    def wrap(optimizer, steps):
        for each in wraps:
            optimizer = each(optimizer, steps)
        return optimizer

    return wrap


@contextlib.contextmanager
def _errors():
    """Turns errors of the checks in graphs into an InputError."""
    try:
        with input_errors():
            yield
    except tf.errors.OpError as error:
        raise InputError(f"training failed: {error.message.splitlines()[0]}") from error
