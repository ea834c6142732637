"""Training of several tasks on one backbone: the model of --pooling and --adapter, and its fit."""

import keras

import tfpeft
from pipelines.common import training
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from pipelines.common.tasks import first_samples
from tfpeft.core.arguments import InputError, unexpected

_ADAPTERS = {  # functions of --rank
    "lora": lambda rank: tfpeft.LoRA(rank=rank),
    "dora": lambda rank: tfpeft.DoRA(rank=rank),
    "bottleneck": lambda rank: tfpeft.BottleneckAdapter(size=rank),
    "ia3": lambda rank: tfpeft.IA3(),
    "bitfit": lambda rank: tfpeft.BitFit(),
    "none": lambda rank: None,
}
_WITH_RANK = ("lora", "dora", "bottleneck")
FLAGS = (
    Flag(
        "pooling",
        str,
        None,
        "What a head reads: the mean of all positions, the first position, or the one vector that "
        "the backbone returns. By default the mean; none for a backbone that returns a vector.",
        choices=("mean", "first", "none"),
    ),
    Flag(
        "adapter",
        str,
        "lora",
        "What a task trains beside its head. With `none` the backbone runs once, before the "
        "epochs.",
        choices=tuple(_ADAPTERS),
    ),
    Flag("rank", int, 8, f"Channels of the adapters {', '.join(_WITH_RANK)}.", at_least=1),
    Flag(
        "sampling",
        str,
        "proportional",
        "How often a task comes: by its samples, all alike, or by the root of its samples.",
        choices=("proportional", "uniform", "temperature"),
    ),
)


def check(settings):
    """Raises for flags that do not go together."""
    if "rank" in settings.given and settings.adapter not in _WITH_RANK:
        raise unread_flag("rank", f"--adapter={settings.adapter}")


def shared_model(settings, backbone, data):
    """Returns a `SharedModel` of the backbone, with the --adapter, for {task: data}."""
    heads = {task: samples.classes for task, samples in data.items()}
    pooling, output = _pooling(settings, backbone, next(iter(data.values())).train[0])
    adapters = _ADAPTERS[settings.adapter](settings.rank)
    try:
        return tfpeft.SharedModel(
            backbone, heads, adapters=adapters, pooling=pooling, output=output
        )
    except ValueError as error:  # of Keras, too: it rebuilds the backbone from its configuration
        raise InputError(
            f"Cannot put --adapter={settings.adapter} on --backbone={settings.backbone}: {error}"
        ) from error


def _pooling(settings, backbone, x):
    """Returns the arguments `pooling` and `output` that make one vector of the outputs to x."""
    try:
        outputs, output = backbone(first_samples(x, 1), training=False), None
    except ValueError as error:
        raise InputError(
            f"Received a --task that --backbone={settings.backbone} does not read: {error}"
        ) from error
    if isinstance(outputs, dict):  # by KerasHub's names
        output = "pooled_output" if settings.pooling == "none" else None
        outputs = outputs.get(output or "sequence_output")
    if not hasattr(outputs, "shape"):
        raise unexpected(
            "a --backbone of one output, or of KerasHub's sequence_output and pooled_output",
            f"--backbone={settings.backbone} --pooling={settings.pooling}",
        )
    is_vector = len(outputs.shape) == 2
    pooling = settings.pooling or ("none" if is_vector else "mean")
    if is_vector != (pooling == "none"):
        choices = "none" if is_vector else "mean or first"
        expected = f"{choices} for a backbone with outputs of shape {tuple(outputs.shape)}"
        raise invalid_flag("pooling", expected, pooling)
    return (None if pooling == "none" else pooling), output


def train(settings, shared, data):
    """Trains the tasks; the model ends with the epoch of the best mean accuracy of the tasks."""
    train_data, validation = (
        {task: getattr(samples, split) for task, samples in data.items()}
        for split in ("train", "validation")
    )
    if settings.adapter == "none":  # then the backbone's outputs are the same in every epoch
        train_data = _precomputed(shared, train_data)
        validation = _precomputed(shared, validation)
    batch_size, seed = settings.batch_size, settings.seed
    mixed = tfpeft.mix_tasks(
        train_data, sampling=settings.sampling, batch_size=batch_size, seed=seed
    )
    steps = settings.epochs * int(mixed.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(settings.learning_rate, steps)
    shared.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    # Of one task, Keras leaves the name of the output out.
    accuracies = [f"val_{task}_accuracy" for task in data] if len(data) > 1 else "val_accuracy"
    shared.fit(
        mixed,
        validation_data=tfpeft.mix_tasks(
            validation, sampling=None, batch_size=batch_size, seed=seed
        ),
        epochs=settings.epochs,
        shuffle=False,  # each task is shuffled already
        callbacks=[training.RaiseOnNaN(settings.learning_rate), tfpeft.KeepBest(accuracies)],
        verbose=training.verbosity(),
    )


def _precomputed(shared, data):
    """Returns {task: data} with the backbone's outputs in place of its inputs."""
    return {task: tfpeft.precompute(shared.encoder, pair).join(pair) for task, pair in data.items()}
