"""MultiWorkerStrategy: a tf.distribute strategy with which Keras 3 trains on several machines."""

import contextlib
import os
import pathlib
import random
import shutil
import tempfile
import weakref

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.paths import as_path
from tfpeft.distribution import batches, transfer
from tfpeft.distribution.cluster import read_cluster

_BY_SAMPLES = (
    tf.data.experimental.AutoShardPolicy.AUTO,
    tf.data.experimental.AutoShardPolicy.DATA,
)


class MultiWorkerStrategy(tf.distribute.MultiWorkerMirroredStrategy):
    """Trains one model on several machines: a `MultiWorkerMirroredStrategy` for Keras 3.

    Each worker has all weights and computes the gradient of its part of the global batch; the sum
    of the gradients is the same on all of them, so weights, masks and optimizer states stay equal.
    `loss = sum over the replicas of (mean over the part of the replica) / number of replicas`.

    Keras 3 cannot use TensorFlow's own class: `fit` fails with more than one worker. This class
    works in `fit`, `evaluate` and `predict` of any Keras 3 model, with every optimizer, and with
    arrays, `tf.data.Dataset` and `keras.utils.PyDataset`. Keras itself is not changed. With more
    than one worker it also

    - gives each replica its part of each batch, in order: `predict` returns what one machine
      returns. Batches are cut evenly, and no replica gets an empty part where the last batch is
      small, as the mean of an empty part is NaN.
    - averages the moving statistics of `BatchNormalization` over all replicas. Keras leaves those
      of each replica as they are, and workers would save different models.
    - sets the random seeds of Python, NumPy and TensorFlow of all workers to one number, which the
      chief draws, so that all workers shuffle data in the same order, draw the same Dropout, and
      each sample reaches one worker. `keras.utils.set_random_seed` before makes that number, and
      the training, the same each time.

    Create it before any other call of TensorFlow, run the same program on all workers, and create
    and compile models within `scope()`. Call `fit`, `evaluate`, `predict` and `save` on all
    workers. With the environment variable TF_CONFIG, or a `cluster_resolver`, it waits until all
    workers have started. Without one it is a strategy for the devices of this machine, and the
    program runs as it is. Where a worker ends early, the others raise a
    `tf.errors.UnavailableError` in about ten seconds; start all of them again, with
    `keras.callbacks.BackupAndRestore` (see `worker_path`) to continue where they were.

    What it does not give: workers that come and go during a training; parts of a model on several
    machines, as each of them holds all of it; the gradient of one machine where parts differ in
    size, as a sample of a smaller part weighs more; equal weights to the last bit on processors of
    different kinds. Variables of custom layers that change in the forward pass need
    `aggregation="mean"`, or another one, in `add_weight`. TensorFlow cannot send variables of int8
    or uint8, such as those of `model.quantize("int8")`. `jit_compile=True` needs GPUs, and
    `gradient_accumulation_steps` works with no strategy. Data of
    `tf.SparseTensor` and `tf.RaggedTensor`, and datasets whose `auto_shard_policy` is FILE, HINT
    or OFF, are cut as TensorFlow does it.

    Args:
        cluster_resolver: A `tf.distribute.cluster_resolver.ClusterResolver`, such as that of
            Slurm. By default the environment variable TF_CONFIG names the cluster.
        communication_options: A `tf.distribute.experimental.CommunicationOptions`.

    Attributes:
        is_chief: Whether this process is the one that writes files.
        num_workers: The number of processes.

    Raises:
        InputError: if TF_CONFIG is not JSON of the form that TensorFlow documents, or names a task
            that is not in its cluster; or if TensorFlow has run before.

    Example:

    ```python
    import keras, numpy as np, tensorflow as tf, tfpeft

    strategy = tfpeft.MultiWorkerStrategy()
    with strategy.scope():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        schedule = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=4)
        model.compile(
            optimizer=tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    backup = keras.callbacks.BackupAndRestore(strategy.worker_path("backup"))
    model.fit(x, y, batch_size=32, epochs=2, callbacks=[backup], verbose=2 * strategy.is_chief)
    model.save(strategy.worker_path("model.keras"))
    ```

    Reference: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017,
    https://arxiv.org/abs/1706.02677, for the learning rate of a larger global batch
    """

    def __init__(
        self,
        cluster_resolver: tf.distribute.cluster_resolver.ClusterResolver | None = None,
        communication_options: tf.distribute.experimental.CommunicationOptions | None = None,
    ):
        _check_arguments(cluster_resolver, communication_options)
        if cluster_resolver is None:
            read_cluster()  # raises
        try:
            super().__init__(cluster_resolver, communication_options)
        except RuntimeError as error:
            if "program startup" not in str(error):
                raise
            raise unexpected(
                "a MultiWorkerStrategy before any other call of TensorFlow", "one after such a call"
            ) from error
        self._folders = {}  # path on the chief -> folder with this worker's copy
        if self.num_workers > 1:
            seed = random.getrandbits(31) if self.is_chief else 0
            keras.utils.set_random_seed(int(transfer.total(self, np.int64(seed))))

    @property
    def is_chief(self) -> bool:
        return self.extended.should_checkpoint

    @property
    def num_workers(self) -> int:
        spec = self.cluster_resolver.cluster_spec()
        return max(1, sum(spec.num_tasks(job) for job in spec.jobs if job in ("chief", "worker")))

    def worker_path(self, path: str | os.PathLike) -> str:
        """Returns where this worker writes what the chief writes to `path`.

        That is `path` on the chief, and the same name in a temporary folder on other workers, which
        is removed when the process ends. What the chief has at `path`, a file or a folder, is
        copied there first, through the network. So the machines need no shared folder, each worker
        reads what the chief has, and only the chief's files stay:

        - `keras.callbacks.BackupAndRestore(strategy.worker_path("backup"))`
        - `keras.callbacks.ModelCheckpoint(strategy.worker_path("best.keras"))`
        - `keras.models.load_model(strategy.worker_path("best.keras"))`

        Call it on all workers, with the same paths in the same order.

        Args:
            path: A path of a file or a folder, whether it exists or not.

        Raises:
            InputError: if it is not a path.
            OSError: if it cannot be read or copied.
        """
        path = as_path(path)
        if self.num_workers == 1:
            return str(path)
        if self.is_chief:
            transfer.send(self, path)
            return str(path)
        if path not in self._folders:
            self._folders[path] = pathlib.Path(tempfile.mkdtemp(prefix="tfpeft-worker-"))
            weakref.finalize(self, shutil.rmtree, self._folders[path], ignore_errors=True)
        copy = self._folders[path] / (path.absolute().resolve().name or "root")
        transfer.receive(self, copy)
        return str(copy)

    def scope(self):
        """Returns a context in which models are created and compiled, as of `tf.distribute`."""
        return super().scope() if self.num_workers == 1 else self._scope(super().scope())

    @contextlib.contextmanager
    def _scope(self, scope):
        with scope, tf.variable_creator_scope(_average_moving_statistics):
            yield self

    def run(self, fn, args=(), kwargs=None, options=None):
        """As of `tf.distribute`; also in the loop of Keras's `steps_per_execution`."""
        _let_loops_take_values_from_their_function()
        return super().run(fn, args, kwargs, options)

    def reduce(self, reduce_op, value, axis):
        """As of `tf.distribute`; also of scalars with an axis, and of a structure of batches."""
        leaves = tf.nest.flatten(value) if isinstance(value, (tuple, list, dict)) else ()
        if any(_is_distributed(leaf) for leaf in leaves):
            # Keras infers shapes from a batch, and asks for the mean of all parts, which differ in
            # size, and may be text. This worker's first part serves as well.
            return tf.nest.map_structure(self._first_part, value)
        if axis is not None and getattr(self._first_part(value), "shape", None) == ():
            axis = None  # Keras names the axis of samples for the mean of scalars, too
        if axis is None and tf.executing_eagerly() and self._are_parts_of_a_batch(value):
            return self._first_part(value)
        return super().reduce(reduce_op, value, axis)

    def experimental_local_results(self, value):
        """As of `tf.distribute`; a condition in a training step holds where it does on all workers.

        Keras's `LossScaleOptimizer` decides so whether to skip a step. Workers that decide
        differently would wait for each other.
        """
        results = super().experimental_local_results(value)
        if self.num_workers == 1 or tf.executing_eagerly() or not _are_conditions(results):
            return results
        failed = tf.cast(tf.logical_not(tf.reduce_all(results)), tf.int32)
        return (super().reduce("SUM", failed, axis=None) == 0,) * len(results)

    def _first_part(self, value):
        return super().experimental_local_results(value)[0]

    def _are_parts_of_a_batch(self, value):
        """Whether values of the replicas differ in size, or are text: none that can be added up."""
        if not _is_distributed(value) or self._first_part(value).shape.rank == 0:
            return False
        parts = super().experimental_local_results(value)
        if not (parts[0].dtype.is_floating or parts[0].dtype.is_integer):
            return True
        sizes = np.array([len(part) for part in parts], np.int64)
        # All workers come to the same conclusion: sizes are equal where their variance is zero.
        total, squares = transfer.total(self, np.array([sizes.sum(), (sizes**2).sum()]))
        return self.num_replicas_in_sync * squares != total**2

    def experimental_distribute_dataset(self, dataset, options=None):
        """As of `tf.distribute`, with parts of which none is empty; see the class."""
        policy = dataset.options().experimental_distribute.auto_shard_policy
        if self.num_workers == 1 or policy not in _BY_SAMPLES or not batches.can_be_cut(dataset):
            return super().experimental_distribute_dataset(dataset, options)

        def parts(context):
            replicas = context.num_replicas_in_sync
            count = replicas // context.num_input_pipelines
            first = context.input_pipeline_id * count
            return batches.parts_of(dataset, replicas, first, count)

        return self.distribute_datasets_from_function(parts, options)


def _let_loops_take_values_from_their_function():
    """Sends values that are only known when a function is called past the loops inside it.

    Each call of a function gives its collective operations a new number. Keras calls the function
    of a step within a branch of a loop, and TensorFlow leaves the numbers of functions that are
    called there without a value.
    """
    graph = getattr(tf.compat.v1.get_default_graph(), "outer_graph", None)
    inside = []
    while getattr(graph, "is_control_flow_graph", False):
        inside.append(graph)
        graph = graph.outer_graph
    for each in inside:
        each.capture_call_time_value = graph.capture_call_time_value


def _is_distributed(value):
    return isinstance(value, tf.types.experimental.distributed.PerReplica)


def _are_conditions(results):
    return all(
        tf.is_tensor(result) and result.dtype == tf.bool and result.shape.rank == 0
        for result in results
    )


def _average_moving_statistics(create, **arguments):
    """Creates a variable; that of a moving statistic is the average of all replicas'."""
    # Keras names no aggregation for them, which leaves each replica with its own.
    moving = not arguments.get("trainable") and str(arguments.get("name")).startswith("moving_")
    if moving and arguments.get("aggregation") in (None, tf.VariableAggregation.NONE):
        arguments["aggregation"] = tf.VariableAggregation.MEAN
    return create(**arguments)


def _check_arguments(resolver, options):
    if not isinstance(resolver, tf.distribute.cluster_resolver.ClusterResolver | None):
        raise invalid("cluster_resolver", "a tf.distribute ClusterResolver or None", resolver)
    if not isinstance(options, tf.distribute.experimental.CommunicationOptions | None):
        raise invalid(
            "communication_options", "a tf.distribute CommunicationOptions or None", options
        )
