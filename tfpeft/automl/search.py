"""search: the best model under a budget, over techniques, their settings and architectures."""

import dataclasses
import hashlib
import os
import pathlib
import tempfile
import typing
from collections.abc import Callable, Sequence

import keras

from tfpeft.automl.advice.figures import digest_of
from tfpeft.automl.students.architecture import Architecture
from tfpeft.automl.students.inputs import inputs_of
from tfpeft.automl.trials import workers
from tfpeft.automl.trials.budget import Budget, check_budget
from tfpeft.automl.trials.folder import opened_folder
from tfpeft.automl.trials.objective import Objective
from tfpeft.automl.trials.results import SearchResult
from tfpeft.automl.trials.subjects import FunctionSubject, is_function, subject_of
from tfpeft.automl.trials.techniques import Techniques, TechniqueSpace
from tfpeft.core.arguments import (
    check_boolean,
    check_choice,
    check_positive,
    check_positive_integer,
    check_seed,
    invalid,
    unexpected,
)
from tfpeft.core.compiling import described
from tfpeft.core.packages import check_packages
from tfpeft.core.random_states import random_states_kept
from tfpeft.core.weight_files import fingerprint
from tfpeft.evaluation.recognition import check_task

ORACLES = ("hyperband", "bayesian", "random", "netadapt")


def search(
    model_or_space: keras.Model | Architecture | Sequence[Architecture] | Callable,
    data: typing.Any,
    budget: Budget,
    *,
    minutes: float,
    validation_data: typing.Any = None,
    test_data: typing.Any = None,
    teacher: typing.Any = None,
    techniques: Techniques | None = None,
    oracle: str = "hyperband",
    epochs: int | None = None,
    max_trials: int | None = None,
    batch_size: int | None = None,
    task: str | None = None,
    loss: typing.Any = None,
    metrics: typing.Any = None,
    monitor: str | None = None,
    mode: str | None = None,
    folder: str | os.PathLike | None = None,
    seed: int = 0,
    verbose: bool = True,
) -> SearchResult | None:
    """Searches the best model under a budget: techniques, their settings, and architectures.

    Of a trained model, a trial removes channels, trains what is left (distilled from the model
    itself, or `teacher`), with zeros and clusters where the budget gains from them, quantizes, and
    writes a .tflite file. Of a space, it draws a student and trains it in the same way.

    What is known before training is checked before: weights, multiply-accumulates, and the
    bytes, latency and arena of the untrained file. A point over the budget is recorded, and the
    choices that make it large are lowered until it is inside; many are checked for one that is
    trained. The trained file is checked again: what is returned keeps every limit.

    Trials take 60% of the minutes: no trial starts that would not end in them. With "hyperband"
    most have a ninth or a third of a whole training, and only the best go on with their weights.
    With "bayesian" and "random" a trial stops that is worse than the median of the others after a
    ninth or a third. In the rest of the minutes the best trial is trained further, up to
    four times as long, and the better of both is returned. The choice is made on validation data.

    All that has ended is in `folder`, and the same call goes on after a kill. For several processes
    or machines run the same program with KerasTuner's variables: one with
    KERASTUNER_TUNER_ID=chief, which trains no trials, the others with other names, all with
    KERASTUNER_ORACLE_IP and KERASTUNER_ORACLE_PORT of the chief, and one `folder` that all see. In
    a worker `search` returns None.

    Args:
        model_or_space: A trained Keras model; an architecture (`SmallCNN`, `MobileBlocks`,
            `Small1D`, `TinyTransformer`), a list of these; or a function hp -> `keras.Model` of
            KerasTuner's `HyperParameters`.
        data: (x, y) or (x, y, sample_weight), a dataset or PyDataset: what is trained on. It is
            held in memory, and in each process and call in the same order: seed what shuffles it.
        budget: A `Budget`. With `min_metric` alone the smallest file with this metric is searched.
        minutes: How long the search takes, above 0: of training, not of reading data. A search in
            `folder` that has ended goes on with more of them.
        validation_data: What trials are chosen by; None for a random fifth of `data`.
        test_data: What the result is measured on in the end; None for validation data.
        teacher: What a `Distiller` takes as its teacher. None for the trained model itself, and
            without distillation for a space.
        techniques: `Techniques`, to narrow what is drawn; None for what the budget gains from.
        oracle: "hyperband", "bayesian" or "random" of KerasTuner; or, for a trained model,
            "netadapt": in each round every group of channels is cut to a lower measured figure,
            trained shortly, and the best of these cuts is kept.
        epochs: Of a whole training. None chooses them by the minutes and the speed of a step:
            trials have equal times then, so that what trains fast has more steps.
        max_trials: Trials at most; None for as many as the minutes allow.
        batch_size: Samples of a step. None for a power of 2 from 16 to 128 with which an epoch has
            a hundred steps, if there are so many.
        task: As of `evaluate`; None to recognise it.
        loss: As `compile` takes it. None for that of the compiled model, or of the task.
        metrics: Metrics beside those of the task, as `evaluate` takes them.
        monitor: The figure that decides, of the task or of `metrics`; None for the task's first.
            With another one no trial is stopped early; rounds of "netadapt" go by the first.
        mode: "min" or "max", what is better of it; None finds it by its name.
        folder: New, empty, or of the same search. None for a temporary one, which is removed with
            the result.
        seed: Integer.
        verbose: Whether a line is printed for each trial.

    Returns:
        A `SearchResult`; None in a worker.

    Raises:
        InputError: for arguments that are not of their kinds, without KerasTuner
            (`pip install tfpeft[search]`), for a space without a valid point, and if the first
            trials all fail.
        BudgetError: before training, for a budget that no point of the space keeps, with the
            smallest figures; in the end, if no trained file kept it.

    What it does not give: models of several outputs; data that does not fit into memory; the best
    model of the space, of which it sees a small part; the latency of another machine.

    Example:

    ```python
    import numpy as np, tfpeft

    x, y = np.random.rand(256, 8, 8, 1), np.random.randint(0, 3, 256)
    space = tfpeft.SmallCNN(stages=(1,), depth=(1,), width=(4, 8), block=("plain",))
    result = tfpeft.search(
        space,
        (x, y),
        tfpeft.Budget(max_size_bytes=8_000),
        techniques=tfpeft.Techniques(quantization=("int8",), learning_rate=(1e-3,)),
        minutes=1,
        epochs=1,
        max_trials=1,
    )
    print(result)
    print(result.path, result.evaluation.size_bytes)
    ```

    Reference: Li et al., "Hyperband: A Novel Bandit-Based Approach to Hyperparameter Optimization",
    2018, https://arxiv.org/abs/1603.06560; Yang et al., "NetAdapt: Platform-Aware Neural Network
    Adaptation for Mobile Applications", 2018, https://arxiv.org/abs/1804.03230
    """
    check_budget(budget)
    check_positive("minutes", minutes)
    check_choice("oracle", oracle, ORACLES)
    optional = {"epochs": epochs, "max_trials": max_trials, "batch_size": batch_size}
    for name, value in optional.items():
        if value is not None:
            check_positive_integer(name, value)
    check_seed("seed", seed)
    check_task(task)
    if techniques is not None and not isinstance(techniques, Techniques):
        raise invalid("techniques", "a tfpeft.Techniques, or None", techniques)
    for name, model in {"model_or_space": model_or_space, "teacher": teacher}.items():
        if _is_model(model) and not model.built:
            raise invalid(name, "a trained model, which has weights", model)
    if monitor is not None and not isinstance(monitor, str):
        raise invalid("monitor", "the name of a figure, or None", monitor)
    check_boolean("verbose", verbose)
    check_packages(["keras_tuner"], "search")
    role = workers.role()
    if role != workers.ALONE and folder is None:
        raise invalid("folder", "a folder that chief and workers see", folder)
    if oracle == "netadapt" and (role != workers.ALONE or not _is_model(model_or_space)):
        expected = "a trained model in one process for oracle='netadapt'"
        raise unexpected(expected, f"{type(model_or_space).__name__}, {role}")
    if oracle == "netadapt" and not budget.figures:
        expected = "a budget of bytes, latency, MACs or arena for oracle='netadapt'"
        raise unexpected(expected, str(budget))
    # Late: KerasTuner need not be there, and is slow to import.
    from tfpeft.automl.trials.job import SearchJob

    with random_states_kept():
        own = model_or_space if _is_model(model_or_space) else None
        inputs = inputs_of(
            own if own is not None else _first_model(model_or_space, teacher),
            data,
            validation_data,
            teacher=own if teacher is None else teacher,
            task=task,
            loss=loss,
            seed=seed,
        )
        objective = Objective(
            inputs.task,
            inputs.outputs,
            budget,
            metrics=metrics,
            monitor=monitor,
            mode=mode,
            seed=seed,
        )
        subject = subject_of(model_or_space, inputs.interface, inputs.train, inputs.loss)
        techniques = techniques or Techniques()
        if oracle == "netadapt":  # which finds the widths itself
            techniques = dataclasses.replace(techniques, channel_ratio=(0.0,))
        space = TechniqueSpace(
            techniques,
            budget,
            has_teacher=inputs.teacher is not None,
            is_trained=subject.is_trained,
        )
        if subject.is_trained and oracle != "netadapt":
            space.limit_channels(subject.largest_ratio)
        plan = {
            "minutes": minutes,
            "epochs": epochs,
            "max_trials": max_trials,
            "batch_size": batch_size or _batch_size(inputs.train.size),
            "oracle": oracle,
            "seed": seed,
        }
        settings = {
            "job": "search",
            "space": subject.as_dict(),
            "techniques": space.as_dict(),
            "budget": budget.as_dict(),
            "monitor": objective.name,
            "data and its order": digest_of([inputs.train, inputs.validation]),
            "teacher": _identity(inputs.teacher),
            "task": inputs.task.name,
            "loss": described(inputs.loss),
            "metrics": described(metrics),
            "mode": mode,
            **plan,
        }
        temporary = tempfile.TemporaryDirectory() if folder is None else None
        with opened_folder(temporary.name if temporary else folder, settings, role) as path:
            job = SearchJob(path, role, inputs, objective, subject, space, plan, bool(verbose))
            job.run()
            if role == workers.WORKER:
                return None
            return job.result(test_data, temporary)


def check_reachable(space, data, budget, *, validation_data, task, monitor=None, seed=0):
    """Raises what `search` raises of a space and a budget, before a teacher for it is trained.

    Args:
        space, data, budget: As of `search`; no trained model.
        validation_data, task, monitor, seed: As of `search`.
    """
    check_packages(["keras_tuner"], "search")
    from tfpeft.automl.trials.candidates import Candidates  # late, as above
    from tfpeft.automl.trials.costs import Costs
    from tfpeft.automl.trials.job import whole_space
    from tfpeft.automl.trials.records import Records

    with random_states_kept(), tempfile.TemporaryDirectory() as folder:
        inputs = inputs_of(
            _first_model(space, None),
            data,
            validation_data,
            teacher=None,
            task=task,
            loss=None,
            seed=seed,
        )
        Objective(inputs.task, inputs.outputs, budget, monitor=monitor)
        subject = subject_of(space, inputs.interface, inputs.train, inputs.loss)
        techniques = TechniqueSpace(Techniques(), budget, has_teacher=False, is_trained=False)
        costs = Costs(budget, inputs.train.x)
        candidates = Candidates(subject, techniques, costs, Records(pathlib.Path(folder)))
        candidates.check_reachable(whole_space(candidates), seed)


def _batch_size(samples):
    return next((size for size in (128, 64, 32) if samples >= 100 * size), 16)


def _identity(teacher):
    """Returns what says whether a teacher is the same: of a model its weights, of a file a hash."""
    if _is_model(teacher):
        return fingerprint(teacher)
    if isinstance(teacher, (str, os.PathLike)) and os.path.isfile(teacher):
        with open(teacher, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return described(teacher)


def _is_model(value):
    return isinstance(value, keras.Model)


def _first_model(given, teacher):
    """Returns a Keras model that shows what outputs are: of a function, or the teacher; or None."""
    if is_function(given):
        import keras_tuner

        return FunctionSubject(given).build(keras_tuner.HyperParameters(), {})
    return teacher if _is_model(teacher) else None
