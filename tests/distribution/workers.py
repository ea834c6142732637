"""What the workers of the tests do, in processes that are forked after the imports."""

import contextlib
import json
import os
import pathlib
import random
import signal
import sys
import tempfile
import traceback

import keras
import numpy as np
import tensorflow as tf

import tfpeft
from pipelines.common import workers as scripts
from tfpeft.core.locks import LOCK

# The last of the global batches of 9 has a single sample for two workers.
X = np.random.default_rng(0).normal(size=(37, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 37)
EPOCHS, KILLED_IN = 4, 2


def run(job, index, addresses, folder):
    """Does a job as worker `index` in `folder`, and writes its results there, or its error."""
    folder = pathlib.Path(folder)
    os.environ["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )
    os.chdir(folder)
    tempfile.tempdir = str(folder)  # forked processes remove nothing when they end
    with open(folder / f"{job}-{index}.log", "w") as log, contextlib.redirect_stdout(log):
        os.dup2(log.fileno(), sys.stderr.fileno())
        try:
            for number, results in enumerate(JOBS[job]()):
                (folder / f"{job}-{index}-{number}.json").write_text(json.dumps(results))
        except Exception:
            traceback.print_exc()
            raise


def start():
    """Returns the strategy of a worker whose graphs need not be optimized, as they run shortly."""
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    keras.utils.set_random_seed(os.getpid())  # workers that agree have the chief's
    return tfpeft.MultiWorkerStrategy()


def variables(model):
    """Returns the values, to the last bit, of all weights and optimizer states, as texts."""
    return [np.asarray(v).tobytes().hex() for v in (*model.variables, *model.optimizer.variables)]


def loss():
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def adam():
    return keras.optimizers.Adam(1e-2)


def train_and_be_killed():
    """Trains models of several kinds, and then one during which worker 1 is killed."""
    strategy = start()
    yield {
        "seed": random.getrandbits(31),
        "sequential": sequential(strategy),
        "two_inputs": two_inputs(strategy),
        "overflow": overflow(strategy),
        "copies": copies(strategy),
    }
    try:
        trained_with_backup(strategy, kills=not strategy.is_chief)
    except tf.errors.OpError as error:
        yield {"error": error.message}


def sequential(strategy):
    """A model that is not built, with statistics and chance, whose masks move."""
    with strategy.scope():
        model = keras.Sequential(
            [
                keras.layers.Dense(8, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dropout(0.2),
                keras.layers.Dense(3),
            ]
        )
        rigl = tfpeft.RigL(adam(), 0.5, frequency=2, end_step=8)
        model.compile(rigl, loss(), metrics=["accuracy"])
    fitted = model.fit(X, Y, batch_size=9, epochs=2, verbose=0, validation_data=(X, Y))
    logits = keras.ops.convert_to_numpy(model(X, training=False))
    return {
        "variables": variables(model),
        "history": fitted.history,
        "zeros": [int(np.sum(np.asarray(v) == 0)) for v in rigl.sparse_variables],
        "predicted": model.predict(X, batch_size=9, verbose=0).tolist(),
        "logits": logits.tolist(),
        "loss": float(loss()(Y, logits)),
        "accuracy": float(np.mean(logits.argmax(1) == Y)),
    }


class Batches(keras.utils.PyDataset):
    """Named inputs and outputs."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        inputs = {"left": X[rows], "right": X[rows]}
        return inputs, {"kind": Y[rows], "first": X[rows, :1]}


def two_inputs(strategy):
    """A functional model whose masks follow gradients, and whose weights are clustered."""
    with strategy.scope():
        inputs = {name: keras.Input((6,), name=name) for name in ("left", "right")}
        hidden = keras.layers.Dense(5)(keras.layers.Concatenate()(list(inputs.values())))
        model = keras.Model(
            inputs,
            {
                "kind": keras.layers.Dense(3, name="kind")(hidden),
                "first": keras.layers.Dense(1, name="first")(hidden),
            },
        )
        schedule = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=5)
        pruning = tfpeft.GradientPruning(adam(), schedule)
        model.compile(
            tfpeft.WeightClustering(pruning, 4, begin_step=7),
            {"kind": loss(), "first": "mse"},
            steps_per_execution=2,
        )
    model.fit(Batches(), epochs=2, verbose=0)
    kernels = [layer.kernel for layer in model.layers if layer.weights]
    return {
        "variables": variables(model),
        "values": [len(np.unique(np.asarray(kernel))) for kernel in kernels],
    }


def overflow(strategy):
    """A step that one worker would skip, as only its part of the batch overflows."""
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
        model.compile(optimizer, "mse")
    before = np.asarray(model.layers[0].kernel)
    x = X[:4].copy()
    x[3] = 1e38
    model.fit(x, X[:4, :1], batch_size=4, shuffle=False, verbose=0)
    return {
        "variables": variables(model),
        "is_skipped": bool(np.all(before == np.asarray(model.layers[0].kernel))),
    }


def copies(strategy):
    """Reads what only the chief has, and writes what only the chief keeps."""
    if strategy.is_chief:
        pathlib.Path("of_chief").mkdir()
        pathlib.Path("of_chief/text").write_text("chief")
    path = pathlib.Path(strategy.worker_path("of_chief"))
    read = (path / "text").read_text()
    (path / ("by_chief" if strategy.is_chief else "by_other")).write_text("")
    return {"read": read, "nothing": os.path.exists(strategy.worker_path("not_there"))}


class KillItself(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == KILLED_IN:
            os.kill(os.getpid(), signal.SIGKILL)


def trained_with_backup(strategy, *, backup="backup", kills=False):
    """Trains from equal weights; returns the model, and the epochs that this process trained."""
    keras.utils.set_random_seed(5)
    with strategy.scope():
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(8), keras.layers.Dense(3)])
        schedule = tfpeft.polynomial_decay(0.8, begin=0.0, end=0.9, total_steps=20, frequency=3)
        model.compile(tfpeft.MagnitudePruning(adam(), schedule), loss())
    callbacks = [keras.callbacks.BackupAndRestore(strategy.worker_path(backup))]
    callbacks += [KillItself()] if kills else []
    fitted = model.fit(
        X, Y, batch_size=9, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks
    )
    return model, fitted.epoch


def resume():
    """Ends the training that was killed, and trains the same without an end in between.

    As a script of pipelines/ does: in the scope of a strategy, with a folder of a run.
    """
    pathlib.Path("run").mkdir(exist_ok=True)
    pathlib.Path(f"run/{LOCK}").write_text("of a chief that was killed")
    pathlib.Path("run/run.json").write_text("{}")
    with scripts.together():
        scripts.clear_session()
        strategy = tf.distribute.get_strategy()
        run_folder = scripts.own_path(pathlib.Path("run"))
        resumed, epochs = trained_with_backup(strategy)
        whole, all_epochs = trained_with_backup(strategy, backup="another")
        yield {
            "is_chief": strategy.is_chief,
            "run": str(run_folder),
            "files": sorted(path.name for path in run_folder.iterdir()),
            "resumed": variables(resumed),
            "whole": variables(whole),
            "epochs": epochs,
            "all_epochs": all_epochs,
        }


JOBS = {"train_and_be_killed": train_and_be_killed, "resume": resume}
