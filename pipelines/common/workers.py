"""Workers: a script that runs on all machines of TF_CONFIG, which train together."""

import contextlib
import os
import pathlib

import keras
import tensorflow as tf

from tfpeft.core.arguments import unexpected
from tfpeft.core.files import remove
from tfpeft.core.locks import LOCK
from tfpeft.distribution.cluster import read_cluster
from tfpeft.distribution.strategy import MultiWorkerStrategy

_ENDED = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError)
_scope = contextlib.ExitStack()  # holds the scope of the strategy of this process


@contextlib.contextmanager
def together():
    """A context in which models are trained by all workers that TF_CONFIG names, if it is set.

    All workers run the same script with the same flags. Only the chief prints.
    """
    if read_cluster() is None:
        yield
        return
    strategy = MultiWorkerStrategy()
    with contextlib.ExitStack() as stack:
        if not strategy.is_chief:
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        stack.callback(_scope.close)
        _scope.enter_context(strategy.scope())
        try:
            yield
        except _ENDED as error:
            expected = "all workers of TF_CONFIG to run to the end: start all of them again"
            raise unexpected(expected, f"a worker that ended: {_first_line(error)}") from error


def is_no_chief():
    """Whether TF_CONFIG makes this process one that leaves to the chief what is no training."""
    cluster = read_cluster()
    return cluster is not None and not cluster.is_chief


def clear_session():
    """As of Keras, which replaces the graph that holds the scope of the strategy, too."""
    strategy = tf.distribute.get_strategy()
    _scope.close()
    keras.backend.clear_session()
    if isinstance(strategy, MultiWorkerStrategy):
        _scope.enter_context(strategy.scope())


def own_path(path):
    """Returns the folder of a run: on workers that are no chief a temporary copy of the chief's.

    So all workers resume a run at the same place, and only the chief writes to `path`.
    """
    strategy = tf.distribute.get_strategy()
    if not isinstance(strategy, MultiWorkerStrategy):
        return path
    own = pathlib.Path(strategy.worker_path(path))
    if not strategy.is_chief:
        remove(own / LOCK)
    return own


def _first_line(error):
    """Returns what TensorFlow knows of a worker that ended."""
    lines = [line for line in error.message.splitlines() if "/job:" in line or "peer" in line]
    return lines[0].strip() if lines else error.message.splitlines()[0]
