"""Flags and settings: what a script or a stage reads, declared without a command line.

A `Flag` has a name, a type, a default, a help text and a range. `settings_of` makes of flags the
plain object that stages take. Only `script.py` knows absl, which reads a command line.
"""

import dataclasses
import numbers
import sys
import types
import typing

from pipelines.common.errors import invalid_flag
from tfpeft.core.arguments import InputError

_ANY = {
    str: "a text that is not empty",
    int: "an integer of at most 31 bits",
    float: "a finite number",
    bool: "true or false",
    list: "values with commas between them",
}  # the values of each kind, in words


@dataclasses.dataclass(frozen=True)
class Flag:
    """A flag of a script, and the values that it takes.

    Attributes:
        name: The name without "--", which is also that of the setting.
        kind: `str`, `int`, `float`, `bool`, or `list` for values with commas between them.
        default: The value where the flag is not given.
        help: What it is, with its unit. The range and the choices are added to it.
        choices: The values of a text or an integer; () for any.
        at_least: The smallest value of a number.
        above: A number that every value is above.
        at_most: The largest value of a number.
        below: A number that every value is below.
        repeated: Whether the flag is given once for each of several texts.
        items: What a list holds: `str`, `int` or `float`. Choices and ranges are those of items.
    """

    name: str
    kind: type
    default: typing.Any
    help: str
    choices: tuple = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    repeated: bool = False
    items: type = str

    @property
    def expected(self):
        """The values that the flag takes, in words; "" for any."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        number = self.items if self.kind is list else self.kind
        if number not in (int, float):
            return ""
        if self.kind is list:
            noun = "integers" if number is int else "numbers"
        else:
            noun = "an integer" if number is int else "a number"
        low = self.at_least if self.above is None else self.above
        high = self.at_most if self.below is None else self.below
        if low is not None and high is not None:
            brackets = "[("[self.above is not None], "])"[self.below is not None]
            return f"{noun} in {brackets[0]}{low:.10g}, {high:.10g}{brackets[1]}"
        if low is not None:
            return f"{noun} {'of at least' if self.above is None else 'above'} {low:g}"
        return ""

    def check(self, value):
        """Raises unless the flag takes `value`; None is "not given".

        No flag takes a text without a letter, as of a variable that is not set, or a number that
        is NaN, infinite or of more than 31 bits.
        """
        if value is None:
            return
        if self.kind is list or self.repeated:
            if isinstance(value, str) or not value:
                raise invalid_flag(self.name, "one value or more", value)
            for item in value:
                self._check(_parsed(item, self.items), self.items, value)
        else:
            self._check(value, self.kind, value)

    def _check(self, value, kind, given):
        if kind is str:
            is_taken = isinstance(value, str) and value.strip() and "\0" not in value
        elif kind is bool:
            is_taken = isinstance(value, bool)
        else:
            is_taken = self._in_range(value, kind)
        if not is_taken or (self.choices and value not in self.choices):
            raise self.invalid(given, kind)

    def invalid(self, received, kind=None):
        """Returns the error for a value that the flag, or an item of the kind, does not take."""
        return invalid_flag(self.name, self.expected or _ANY[kind or self.kind], received)

    def _in_range(self, value, kind):
        largest = 2**31 - 1 if kind is int else sys.float_info.max
        return (
            isinstance(value, numbers.Integral if kind is int else numbers.Real)
            and not isinstance(value, bool)
            and -largest <= value <= largest
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def with_default(self, default):
        """Returns the flag as a script has it that starts from another value."""
        return dataclasses.replace(self, default=default)


def _parsed(item, kind):
    """Returns an item of a list as a number, if it is the text of one."""
    if kind is str or not isinstance(item, str):
        return item
    try:
        return kind(item)
    except ValueError:
        return item


def settings_of(flags, given=None):
    """Returns the settings of a run: an attribute for each flag, by its name.

    The attribute `given` is the set of the names that were given, whatever their values.

    Args:
        flags: The flags; a flag may come several times.
        given: Name -> value of flags; others have their defaults.

    Raises:
        InputError: for a value that its flag does not take, and for a name that no flag has.
    """
    given = given or {}
    by_name = {flag.name: flag for flag in flags}
    for name, value in given.items():
        if name not in by_name:
            raise InputError(f"Expected a flag among {', '.join(by_name)}. Received: {name}")
        by_name[name].check(value)
    values = {name: given.get(name, flag.default) for name, flag in by_name.items()}
    return types.SimpleNamespace(**values, given=frozenset(given))


def with_defaults(settings, flags):
    """Returns the settings, and the defaults of the flags that they lack."""
    values = {flag.name: flag.default for flag in flags}
    return types.SimpleNamespace(**{**values, **vars(settings)})


def with_value(settings, name, value):
    """Returns the settings with another value of one of them."""
    return types.SimpleNamespace(**{**vars(settings), name: value})


DATASET = Flag(
    "dataset",
    str,
    "digits",
    "What to train and measure on: digits (embedded, 1,797 images of 8x8); mnist, fashion_mnist, "
    "cifar10 or cifar100 (downloaded by Keras, or NAME.npz in --data_dir); an .npz of x_train, "
    "y_train, x_test, y_test and perhaps x_val, y_val and sample weights weight_train, ...; "
    "several inputs and outputs are x_train/NAME, y_train/NAME, and without any y, x is "
    "reconstructed; a folder with a folder of images per class, or with images and masks of equal "
    "names, or with such folders in train, validation and test; FILE.csv:LABEL, a table of "
    "numbers and categories (labels A+B for several); FILE.csv:TEXT:LABEL, for a --model that "
    "reads texts; or package.module:function, which returns data, or a tuple or dict of splits, "
    "each (x, y), (x, y, sample_weight), a tf.data.Dataset or a PyDataset. Values reach the model "
    "as they are stored, pixels from 0 to 255.",
)
DATA_DIR = Flag("data_dir", str, None, "Folder of NAME.npz for the datasets that have a name.")
IMAGE_SIZE = Flag(
    "image_size",
    int,
    None,
    "Height and width of the images of a folder, in pixels; by default the model's, or 64.",
    at_least=8,
    at_most=8192,
)
PIXEL_RANGE = Flag(
    "pixel_range",
    list,
    None,
    "low,high: the range that a model expects of pixels, such as 0,1 or -1,1, where it does not "
    "scale them itself. By default they are as stored: 0 to 255, 0 to 16 in digits.",
    items=float,
)
CLASSES = Flag(
    "classes",
    list,
    None,
    "Names of the classes in the order of the model's outputs, or how many there are. By default "
    "the names of folders and labels in alphabetical order, or class numbers from 0.",
)
CACHE = Flag(
    "cache",
    str,
    "auto",
    "Which images of a folder, and datasets of a function, are held in memory: auto those of up to "
    "1 GiB, memory all, none none. Others are read anew in every epoch.",
    choices=("auto", "memory", "none"),
)
SKIP_BROKEN_IMAGES = Flag(
    "skip_broken_images",
    bool,
    False,
    "Whether images of a folder that cannot be read are left out, with a line that counts them. "
    "By default they are an error.",
)
AUGMENT = Flag(
    "augment",
    list,
    (),
    "Random changes of the images that are trained on, others in every epoch: flip (left to "
    "right), crop (moved by up to a tenth, the border mirrored), color (brightness and contrast "
    "by up to a fifth). A teacher runs on the same images: its outputs are not precomputed.",
    choices=("flip", "crop", "color"),
)
ALLOW_CHANCE = Flag(
    "allow_chance",
    bool,
    False,
    "Whether a given model that does no better than chance on the data is used all the same. "
    "Where the first stage is sparse_train, it always is: a line of the output says so.",
)
OUTPUT_DIR = Flag("output_dir", str, "saved_models", "Folder in which the folder of this run is.")
NAME = Flag(
    "name",
    str,
    None,
    "Folder of this run in --output_dir; by default the dataset, or backbone, and the job.",
)
SEED = Flag("seed", int, 0, "Seed of all that is random.", at_least=0)
READ_FLAGS = (DATASET, DATA_DIR, IMAGE_SIZE, PIXEL_RANGE, CLASSES, CACHE, SKIP_BROKEN_IMAGES)
DATA_FLAGS = (*READ_FLAGS, OUTPUT_DIR, NAME, SEED)

TASK = Flag(
    "task",
    str,
    None,
    "What the model does. By default labels, outputs and the loss that a --model was compiled with "
    "show it.",
    choices=(
        "classification",
        "binary",
        "multi_label",
        "regression",
        "segmentation",
        "reconstruction",
    ),
)
LOSS = Flag(
    "loss",
    str,
    None,
    "A loss of Keras by name, such as mae. By default the one that --model was compiled with, or "
    "that of the task.",
)
METRICS = Flag(
    "metrics",
    list,
    (),
    "Metrics of Keras by name that training and the report show beside those of the task. By "
    "default those that --model of one output was compiled with.",
)
MONITOR = Flag(
    "monitor",
    str,
    None,
    "The metric of validation data by which the best epoch is chosen, such as loss; by default the "
    "metric of the task.",
)
OBJECTIVE_FLAGS = (TASK, LOSS, METRICS, MONITOR)

MODEL = Flag(
    "model",
    str,
    None,
    "A trained model: a .keras or .h5 file of any version of Keras, a SavedModel folder, a preset "
    "of KerasHub, or applications:NAME. Sparse training may start from an untrained one.",
)
CUSTOM_OBJECTS = Flag(
    "custom_objects",
    str,
    None,
    "Module, or .py file, that defines the classes and functions which --model or --backbone "
    "needs: layers, losses, metrics, and what Lambda layers call.",
)
TRUST_CODE = Flag(
    "trust_code",
    bool,
    False,
    "Whether code in the files of models runs, as of Lambda layers. Only for files that you trust; "
    "a run that resumes needs it again.",
)
MODEL_FLAGS = (MODEL, CUSTOM_OBJECTS, TRUST_CODE, ALLOW_CHANCE)

EPOCHS = Flag("epochs", int, 30, "Epochs of each stage that trains.", at_least=1)
BATCH_SIZE = Flag("batch_size", int, 32, "Samples of a training step.", at_least=1)
LEARNING_RATE = Flag(
    "learning_rate",
    float,
    1e-3,
    "Adam's, at the start of each stage; it falls to 0 as a cosine.",
    above=0.0,
)
TRAIN_FLAGS = (EPOCHS, BATCH_SIZE, LEARNING_RATE, AUGMENT)

FORMAT = Flag(
    "format", str, "table", "How the result is printed.", choices=("table", "markdown", "json")
)
DEBUG = Flag("debug", bool, False, "Print the traceback of an error as well.")
