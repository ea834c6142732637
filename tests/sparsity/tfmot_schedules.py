"""Schedules of TFMOT, and pruning by them."""

import keras
import tensorflow as tf

import tfpeft
from tfpeft.sparsity import schedules

tfmot = schedules.tfmot


def schedule(final=0.5, begin=2, end=6, frequency=2):
    return tfmot.sparsity.keras.PolynomialDecay(0.0, final, begin, end, frequency=frequency)


def pruning(**options):
    return tfpeft.MagnitudePruning(keras.optimizers.SGD(0.1, momentum=0.9), schedule(), **options)


def at(sparsity, *steps):
    """A schedule that updates at these steps only."""
    return lambda step: (tf.reduce_any([step == s for s in steps]), sparsity)
