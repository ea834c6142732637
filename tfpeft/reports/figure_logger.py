"""`FigureLogger`: figures of training and of evaluation in TensorBoard, MLflow or W&B."""

import math
import numbers
import os
import typing

import keras
import numpy as np

from tfpeft.core.arguments import check_choice, invalid
from tfpeft.core.graph import flatten_layers
from tfpeft.core.kernel_axes import is_kernel
from tfpeft.core.packages import check_packages
from tfpeft.core.paths import folder_to_write

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")


class FigureLogger(keras.callbacks.Callback):
    """Logs the figures of each epoch, and of evaluations, to TensorBoard, MLflow or W&B.

    An epoch has the loss and the metrics of `fit`, with those of validation data, and

        sparsity = 1 - nonzero_parameters / parameters, of all kernels,

    in [0, 1], unless the logs have a "sparsity" already, as those after `SparsityLogger` do. The
    step of an epoch is its number, from 0.

    Args:
        to: "tensorboard", "mlflow" or "wandb".
        folder: Folder of the event files, for "tensorboard" alone. MLflow and W&B write to the run
            that is active; where none is, one is started.

    Raises:
        InputError: for other arguments, and if the package is not installed: the extras are
            `pip install tfpeft[tensorboard]`, `tfpeft[mlflow]` and `tfpeft[wandb]`.

    What it does not give: weights, graphs and histograms, which Keras's own callback for
    TensorBoard writes.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.ones((8, 8)), np.ones((8, 4))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(tfpeft.StaticSparse(keras.optimizers.Adam(1e-3), 0.5), loss="mse")
    logger = tfpeft.FigureLogger("tensorboard", folder="logs")
    model.fit(x, y, epochs=2, verbose=0, callbacks=[logger])
    logger.log(tfpeft.evaluate(model, (x, y)).as_dict(), step=2)  # bytes, latency, quality
    logger.close()
    ```
    """

    def __init__(self, to: str, *, folder: str | os.PathLike | None = None):
        super().__init__()
        check_choice("to", to, tuple(_TRACKERS))
        if (folder is None) == (to == "tensorboard"):
            expected = "a folder" if folder is None else "None, as only TensorBoard has a folder"
            raise invalid("folder", expected, folder)
        check_packages([to], to)
        if folder is not None:
            folder = folder_to_write(folder, "`folder`")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise invalid("folder", "a folder that can be written", folder) from error
        self.to, self.folder = to, folder
        self._tracker = None

    def log(self, figures: dict[str, typing.Any], *, step: int = 0) -> None:
        """Logs all finite numbers of a dict.

        Args:
            figures: {name: value}; what is inside of dicts is called "name/inner name", and other
                values, such as texts and lists, are left out.
            step: The step, an integer of at least 0. W&B takes no lower step than the last one.

        Raises:
            InputError: for other arguments, and a dict without a number.
        """
        if not isinstance(figures, dict):
            raise invalid("figures", "a dict {name: number}", figures)
        if isinstance(step, bool) or not isinstance(step, numbers.Integral) or step < 0:
            raise invalid("step", "an integer of at least 0", step)
        found = dict(_numbers(figures))
        if not found:
            raise invalid("figures", "a dict with a finite number or more", figures)
        if self._tracker is None:
            self._tracker = _TRACKERS[self.to](self.folder)
        self._tracker.write(found, int(step))

    def on_epoch_end(self, epoch, logs=None):
        kernels = [np.asarray(kernel) for kernel in _kernels(self.model)]
        parameters = sum(kernel.size for kernel in kernels)
        found = {}
        if parameters:
            nonzero = sum(int(np.count_nonzero(kernel)) for kernel in kernels)
            found = {"nonzero_parameters": nonzero, "sparsity": 1 - nonzero / parameters}
        self.log({**found, **(logs or {})}, step=epoch)

    def close(self) -> None:
        """Writes what is left, and ends a run that this logger has started."""
        if self._tracker is not None:
            self._tracker.close()
            self._tracker = None


def _kernels(model):
    """Returns the kernels of all layers in a model."""
    found = (
        getattr(layer, name, None)
        for layer in flatten_layers(model)
        for name in _KERNELS
        if is_kernel(layer, name)
    )
    return [kernel for kernel in found if kernel is not None]


def _numbers(figures, prefix=""):
    """Yields (name, number) of a dict, and of the dicts in it."""
    for name, value in figures.items():
        name = f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _numbers(value, f"{name}/")
        elif _is_finite(value):
            yield name, float(value)


def _is_finite(value):
    is_number = isinstance(value, (numbers.Real, np.number)) and not isinstance(value, bool)
    return is_number and math.isfinite(value)


class _TensorBoard:
    def __init__(self, folder):
        import tensorflow as tf  # late: its summaries import TensorBoard

        self._summary = tf.summary
        self._writer = tf.summary.create_file_writer(str(folder))

    def write(self, figures, step):
        with self._writer.as_default():
            for name, value in figures.items():
                self._summary.scalar(name, value, step=step)
        self._writer.flush()

    def close(self):
        self._writer.close()


class _MLflow:
    def __init__(self, folder):
        import mlflow  # an extra

        self._mlflow = mlflow
        active = mlflow.active_run()
        self._run = active or mlflow.start_run()
        self._is_own = active is None

    def write(self, figures, step):
        self._mlflow.log_metrics(figures, step=step, run_id=self._run.info.run_id)

    def close(self):
        if self._is_own:
            self._mlflow.end_run()


class _WandB:
    def __init__(self, folder):
        import wandb  # an extra

        active = wandb.run
        self._run = active or wandb.init()
        self._is_own = active is None

    def write(self, figures, step):
        self._run.log(figures, step=step)

    def close(self):
        if self._is_own:
            self._run.finish()


_TRACKERS = {"tensorboard": _TensorBoard, "mlflow": _MLflow, "wandb": _WandB}
