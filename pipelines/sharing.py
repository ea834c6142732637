"""The tasks that share a backbone: what --task says, their model, and its training."""

import math
import os
import re
import sys
import typing

import keras
import numpy as np
from absl import flags

import tfpeft
from pipelines import backbones, common, data

FLAGS = common.FLAGS
ADAPTERS = {
    "lora": lambda: tfpeft.LoRA(rank=FLAGS.rank),
    "dora": lambda: tfpeft.DoRA(rank=FLAGS.rank),
    "bottleneck": lambda: tfpeft.BottleneckAdapter(size=FLAGS.rank),
    "ia3": tfpeft.IA3,
    "bitfit": tfpeft.BitFit,
    "none": lambda: None,
}
_RANKED = ("lora", "dora", "bottleneck")

flags.DEFINE_multi_string(
    "task",
    [],
    "A task, given once for each. For pipelines.share, NAME=FILE.csv:TEXT_COLUMN:LABEL_COLUMN, a "
    "CSV with a header row, or NAME=FILE.npz of x_train, y_train, x_test, y_test and perhaps "
    "x_val, y_val. For pipelines.predict, the NAME of one that is asked; default: all.",
)
flags.DEFINE_enum(
    "pooling",
    None,
    ["mean", "first", "none"],
    "What a head gets: the mean of all positions, the first, or what the backbone answers as one "
    "vector. Default: mean; none for a backbone that answers a vector.",
)
flags.DEFINE_enum(
    "adapter",
    "lora",
    list(ADAPTERS),
    "What a task trains beside its head. With `none` the backbone runs once, before the epochs.",
)
flags.DEFINE_integer("rank", 8, f"Channels of the adapters {', '.join(_RANKED)}.", lower_bound=1)
flags.DEFINE_enum(
    "sampling",
    "proportional",
    ["proportional", "uniform", "temperature"],
    "How often a task comes: by its samples, all alike, or by the root of its samples.",
)
TASK_FLAGS = ["task", "pooling", "adapter", "rank", "sampling"]


class Task(typing.NamedTuple):
    """What a --task says; `columns` are those of texts and labels, none for arrays."""

    given: str
    path: str
    columns: tuple


def parse_tasks():
    """Returns {name: Task} of all --task, checked as far as it can be without their files."""
    tasks = {}
    for given in FLAGS.task:
        name, _, source = given.partition("=")
        path, *columns = [source] if source.endswith(".npz") else source.rsplit(":", 2)
        is_whole = source.endswith(".npz") or len(columns) == 2
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        if not is_whole or not named or not all([path, *columns]):
            raise ValueError(
                "Received an invalid value for --task, expected NAME=FILE.csv:TEXT_COLUMN:"
                'LABEL_COLUMN or NAME=FILE.npz, with a name of letters, digits, "_", "-" and ".". '
                f"Received: --task={given}"
            )
        if name in tasks:
            raise ValueError(f"Expected tasks of several names. Received: {name!r} in two --task")
        tasks[name] = Task(f"--task={given}", os.path.expanduser(path), tuple(columns))
    return tasks


def check_flags(tasks):
    """Refuses what does not go together, before anything is read; returns whether x are texts."""
    if FLAGS.backbone is None or not tasks:
        missing = "no --backbone" if FLAGS.backbone is None else "no --task"
        raise ValueError(f"Expected a --backbone, and a --task once or more. Received: {missing}")
    kinds = {bool(task.columns) for task in tasks.values()}
    if len(kinds) > 1:
        raise ValueError(
            "Expected tasks that are all texts (.csv) or all arrays (.npz), as they share a "
            f"--backbone. Received: {' '.join(task.given for task in tasks.values())}"
        )
    is_text = kinds.pop()
    is_file = FLAGS.backbone.endswith(backbones.FILES)
    if is_text and is_file:
        raise ValueError(
            "Expected a --backbone with a tokenizer for texts: a preset, a handle or a folder. "
            f"Received: --backbone={FLAGS.backbone}"
        )
    if FLAGS["rank"].present and FLAGS.adapter not in _RANKED:
        raise ValueError(f"Received --rank, which --adapter={FLAGS.adapter} does not read")
    if FLAGS["sequence_length"].present and not is_text:
        raise ValueError("Received --sequence_length, which tasks of arrays (.npz) do not read")
    if FLAGS["custom_objects"].present and not is_file:
        raise ValueError(
            "Received --custom_objects, which only a .keras or .h5 file reads. "
            f"Received: --backbone={FLAGS.backbone}"
        )
    return is_text


def read_tasks(tasks):
    """Returns {name: data}, texts as they are, and {name: names of its classes}."""
    read, classes = {}, {}
    for name, task in tasks.items():
        if task.columns:
            read[name], classes[name] = data.load_texts(task.path, *task.columns, task.given)
        else:
            read[name] = data.load_arrays(task.path, "task", task.given)
            classes[name] = [str(number) for number in range(read[name].classes)]
    return read, classes


def as_inputs(read, tasks, model, preprocessor):
    """Returns {name: data} whose x are what `model` reads."""
    if preprocessor is not None:
        return {
            k: each.with_inputs(lambda x: backbones.tokens(preprocessor, x))
            for k, each in read.items()
        }
    return {k: each.for_inputs(model, "backbone", tasks[k].given) for k, each in read.items()}


def first(x, count):
    return keras.tree.map_structure(lambda each: each[:count], x)


def shared_model(model, tasks):
    """Returns a `SharedModel` of the backbone `model`, with the --adapter, for {name: data}."""
    heads = {name: each.classes for name, each in tasks.items()}
    pooling = _pooling(model, next(iter(tasks.values())).train[0])
    try:
        return tfpeft.SharedModel(model, heads, adapters=ADAPTERS[FLAGS.adapter](), **pooling)
    except ValueError as error:
        raise ValueError(
            f"Cannot put --adapter={FLAGS.adapter} on --backbone={FLAGS.backbone}: {error}"
        ) from error


def _pooling(model, x):
    """Returns the arguments of `SharedModel` that make one vector of what `model` answers to x."""
    try:
        answer, output = model(first(x, 1), training=False), None
    except ValueError as error:
        raise ValueError(
            f"Received a --task that --backbone={FLAGS.backbone} does not read: {error}"
        ) from error
    if isinstance(answer, dict):  # by KerasHub's names
        output = "pooled_output" if FLAGS.pooling == "none" else None
        answer = answer.get(output or "sequence_output")
    if not hasattr(answer, "shape"):
        raise ValueError(
            "Expected a --backbone of one output, or of KerasHub's sequence_output and "
            f"pooled_output. Received: --backbone={FLAGS.backbone} --pooling={FLAGS.pooling}"
        )
    is_vector = len(answer.shape) == 2
    name = FLAGS.pooling or ("none" if is_vector else "mean")
    if is_vector != (name == "none"):
        wanted = "none" if is_vector else "mean or first"
        raise ValueError(
            f"Received an invalid value for --pooling, expected {wanted} for a backbone that "
            f"answers {tuple(answer.shape)}. Received: --pooling={name}"
        )
    return {"pooling": None if name == "none" else name, "output": output}


class KeepBest(keras.callbacks.Callback):
    """Ends training with the epoch of the best mean accuracy of the tasks on validation data.

    Among equals the last one counts. Only what is trained is kept.
    """

    def __init__(self):
        super().__init__()
        self.best, self.values = -math.inf, None

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise ValueError(
                "Training met a loss that is NaN or infinite, expected a lower rate. "
                f"Received: --learning_rate={FLAGS.learning_rate}"
            )
        names = [n for n in logs if n.startswith("val_") and n.endswith("accuracy")]
        accuracy = np.mean([logs[name] for name in names])
        if accuracy >= self.best:
            self.best = accuracy
            self.values = [each.numpy() for each in self.model.trainable_variables]

    def on_train_end(self, logs=None):
        for variable, value in zip(self.model.trainable_variables, self.values, strict=True):
            variable.assign(value)


def train(shared, data):
    parts = {
        split: {name: getattr(each, split) for name, each in data.items()}
        for split in ("train", "validation")
    }
    if FLAGS.adapter == "none":  # then the backbone answers the same in every epoch
        parts = {
            split: {
                name: tfpeft.precompute(shared.encoder, pair).join(pair)
                for name, pair in pairs.items()
            }
            for split, pairs in parts.items()
        }
    options = {"batch_size": FLAGS.batch_size, "seed": FLAGS.seed}
    mixed = tfpeft.mix_tasks(parts["train"], sampling=FLAGS.sampling, **options)
    steps = FLAGS.epochs * int(mixed.cardinality())
    schedule = keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)
    shared.compile(
        keras.optimizers.Adam(schedule),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    shared.fit(
        mixed,
        validation_data=tfpeft.mix_tasks(parts["validation"], sampling=None, **options),
        epochs=FLAGS.epochs,
        shuffle=False,  # each task is shuffled already
        callbacks=[KeepBest()],
        verbose=1 if sys.stdout.isatty() else 2,
    )
