"""What several workers train: equal weights and masks, and samples per second of each worker.

    python benchmarks/multi_worker.py

1, 2 and 4 workers on this machine, one core each as far as there are cores, train a network with
RigL. Each is a process with TF_CONFIG, and they talk over loopback. The samples of a worker in
each step are as many however many workers there are, and the dataset has as many steps.

The table has the seconds that a worker computes for a step (its processor time) and the samples
that pass per second, without the first epoch; and whether all weights, statistics, masks and
states of the optimizer are equal on all workers, to the last bit.

Workers that share cores share their speed: on few cores the samples of a worker per second of
processor time are the figure that machines of their own would have, without a network's time.

Cost: about 6 minutes on 2 cores that do other work, too, with --steps=20. The table with machine
and date is in README.md.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time

import keras
import machine
import numpy as np
import tensorflow as tf
import timing
from absl import app, flags

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_list("workers", ["1", "2", "4"], "Numbers of workers.")
flags.DEFINE_integer("samples", 128, "Samples of a worker in each step.", lower_bound=1)
flags.DEFINE_integer("steps", 40, "Steps of an epoch; there are three.", lower_bound=2)
flags.DEFINE_string("result", None, "The file that a worker writes; set for its process.")


def main(_):
    if FLAGS.result is not None:
        train(FLAGS.result)
        return
    print(machine.describe())
    print("| workers | samples/s of all | samples/s of each | of each, in processor time | equal |")
    print("|---:|---:|---:|---:|---|")
    for count in map(int, FLAGS.workers):
        results = launch(count)
        samples = FLAGS.samples * FLAGS.steps * 2
        each = samples / max(result["seconds"] for result in results)
        computed = np.mean([samples / result["processor_seconds"] for result in results])
        equal = len({json.dumps(result["digests"], sort_keys=True) for result in results}) == 1
        masks = results[0]["masks"]
        verdict = f"all {len(results[0]['digests'])} variables, {masks} of them masks"
        print(
            f"| {count} | {each * count:,.0f} | {each:,.0f} | {computed:,.0f} | "
            f"{verdict if equal else 'NO'} |",
            flush=True,
        )


def launch(count):
    """Runs `count` workers; returns their results."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        files = [os.path.join(folder, str(index)) for index in range(count)]
        processes = []
        for index, file in enumerate(files):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            command = [sys.executable, __file__, f"--result={file}"]
            command += [f"--samples={FLAGS.samples}", f"--steps={FLAGS.steps}"]
            environment = {**os.environ, "TF_CONFIG": config, "TF_CPP_MIN_LOG_LEVEL": "3"}
            core = cores[index % len(cores)]
            process = subprocess.Popen(
                ["taskset", "-c", str(core), *command], env=environment, stderr=subprocess.DEVNULL
            )
            processes.append(process)
        statuses = [process.wait() for process in processes]
        if any(statuses):
            raise SystemExit(f"workers ended with {statuses}")
        return [json.loads(open(file).read()) for file in files]


def train(file):
    """Trains as the worker that TF_CONFIG names, and writes what it took and what it has."""
    tf.config.threading.set_intra_op_parallelism_threads(1)
    keras.utils.set_random_seed(0)
    strategy = tfpeft.MultiWorkerStrategy()
    batch = FLAGS.samples * strategy.num_replicas_in_sync
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch * FLAGS.steps, 28, 28, 1)).astype("float32")
    y = rng.integers(0, 10, len(x))
    with strategy.scope():
        model = network()
        rigl = tfpeft.RigL(keras.optimizers.Adam(1e-3), 0.8, frequency=10, end_step=3 * FLAGS.steps)
        model.compile(rigl, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(1000).batch(batch)
    data = timing.without_autotuning(data)
    model.fit(data, epochs=1, verbose=0)
    start, processor_start = time.perf_counter(), time.process_time()
    model.fit(data, epochs=2, verbose=0)
    result = {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - processor_start,
        "digests": {
            f"{i} {variable.path}": hashlib.sha256(np.asarray(variable).tobytes()).hexdigest()
            for i, variable in enumerate([*model.variables, *rigl.variables])
        },
        "masks": sum(variable.path.endswith("_mask") for variable in rigl.variables),
    }
    with open(file, "w") as written:
        json.dump(result, written)


def network():
    """Returns a network of 0.2 million weights, with BatchNormalization and Dropout."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(160, activation="relu"),
            layers.Dense(10),
        ]
    )


if __name__ == "__main__":
    app.run(main)
