"""What every script shares: flags, errors in one line, models from files, the folder of a run."""

import importlib
import importlib.util
import json
import os
import pathlib
import shutil
import sys
import warnings

import keras
import tensorflow as tf
from absl import app, flags, logging

from pipelines import data

FLAGS = flags.FLAGS

flags.DEFINE_string(
    "dataset",
    "digits",
    "What to train and measure on: digits (embedded, 1,797 images of 8x8); mnist, fashion_mnist, "
    "cifar10 or cifar100 (downloaded by Keras, or NAME.npz in --data_dir), pixels scaled to "
    "[0, 1]; an .npz of x_train, y_train, x_test, y_test and perhaps x_val, y_val, used as it is; "
    "a folder of one folder an image class; or package.module:function, returning train, "
    "validation and test data, each (x, y).",
)
flags.DEFINE_string("data_dir", None, "Folder of NAME.npz for the datasets that have a name.")
flags.DEFINE_integer(
    "image_size", 64, "Height and width in pixels of the images of a folder.", lower_bound=8
)
flags.DEFINE_string("output_dir", "saved_models", "Folder in which the folder of this run is.")
flags.DEFINE_string(
    "name", None, "Folder of this run in --output_dir; default: dataset, or backbone, and job."
)
flags.DEFINE_integer("seed", 0, "Seed of all that is random.", lower_bound=0)
DATA_FLAGS = ["dataset", "data_dir", "image_size", "output_dir", "name", "seed"]

flags.DEFINE_string("model", None, "A trained model, .keras or .h5.")
flags.DEFINE_string(
    "custom_objects",
    None,
    "Module, or .py file, that defines the classes which --model or --backbone needs.",
)
MODEL_FLAGS = ["model", "custom_objects"]

flags.DEFINE_integer("epochs", 30, "Epochs of each stage that trains.", lower_bound=1)
flags.DEFINE_integer("batch_size", 32, "Samples of a training step.", lower_bound=1)
flags.DEFINE_float(
    "learning_rate",
    1e-3,
    "Adam's, at the start of each stage; it falls to 0 as a cosine.",
    lower_bound=0.0,
)
TRAIN_FLAGS = ["epochs", "batch_size", "learning_rate"]

flags.DEFINE_enum(
    "quantization",
    "int8",
    ["none", "dynamic_range", "float16", "int8"],
    "Numbers in the exported file.",
)
EXPORT_FLAGS = ["quantization"]

flags.DEFINE_enum("format", "table", ["table", "markdown", "json"], "How the result is printed.")


def run(main, reads, *, takes_files=False):
    """Runs `main` as a script: its value is the exit status; bad input is one line and 1.

    Args:
        main: Called with nothing, or with the list of the files named after the flags.
        reads: Names of the flags that the script reads: --help lists them, others are refused.
        takes_files: Whether there may be arguments that are no flags.
    """
    for name in reads:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    ours = {flag.name for flags_ in _our_flags() for flag in flags_}

    def parse(argv):
        try:
            return app.parse_flags_with_usage(argv) if _wants_help(argv) else FLAGS(argv)
        except flags.Error as error:
            sys.exit(_failed(error))

    def guarded(argv):
        logging.set_verbosity(logging.ERROR)
        tf.get_logger().setLevel("ERROR")
        warnings.filterwarnings("ignore", module="tensorflow")
        try:
            unread = sorted(n for n in ours if FLAGS[n].present and n not in reads)
            if unread:
                raise ValueError(f"Received --{unread[0]}, which this script does not read")
            if takes_files:
                return main(argv[1:])
            if len(argv) > 1:
                raise ValueError(f"Expected flags only. Received: {' '.join(argv[1:])}")
            return main()
        except (ValueError, OSError) as error:
            return _failed(error)

    app.run(guarded, flags_parser=parse)


def _our_flags():
    return [f for module, f in FLAGS.flags_by_module_dict().items() if "pipelines" in module]


def _wants_help(argv):
    return any(argument.lstrip("-").startswith("help") for argument in argv[1:])


def _failed(error):
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 1


def seed_everything(seed):
    """Makes what follows depend on `seed` alone, also after a stage that did run or did not."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def import_custom_objects(reference):
    """Imports the module or file of --custom_objects; returns its Keras classes by name."""
    if reference is None:
        return {}
    try:
        if reference.endswith(".py"):
            spec = importlib.util.spec_from_file_location(pathlib.Path(reference).stem, reference)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(reference)
    except (ImportError, OSError, SyntaxError) as error:
        raise ValueError(
            "Received an invalid value for --custom_objects, expected a module or a .py file. "
            f"Received: --custom_objects={reference}: {error}"
        ) from error
    kinds = (keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, kinds)
    }


def load_model(path, flag="model", custom_objects=None):
    """Loads a .keras or .h5 model without its optimizer; `flag` is whom an error names."""
    wanted = f"expected a readable .keras or .h5 model. Received: --{flag}={path}"
    if not pathlib.Path(path).is_file():
        raise ValueError(f"Received a missing file, {wanted}")
    try:
        return keras.models.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:  # zip, h5py, JSON and Keras each have their own
        raise ValueError(f"Received an unreadable file, {wanted}: {error}") from error


_PARTIAL = "tfpeft-partial."  # how the name of a file begins while it is being written


class RunFolder:
    """One folder a run. A file in it is whole: written beside, then renamed.

    `run.json` holds the flags that the run started with. Opened again with the same flags, the
    run goes on; with others it is refused, so that no folder holds parts of two runs.
    """

    def __init__(self, job, names, named_after="dataset"):
        stem = pathlib.Path(FLAGS[named_after].value).stem
        name = FLAGS.name or f"{stem.replace(':', '.')}-{job}"
        self.path = pathlib.Path(FLAGS.output_dir) / name
        # Where the folder is and how strict its reader is do not change what is in it.
        outside = ("output_dir", "name", "max_accuracy_drop")
        self.flags = {n: FLAGS[n].value for n in names if n not in outside}
        self._open(job)

    def _open(self, job):
        self.path.mkdir(parents=True, exist_ok=True)
        for leftover in self.path.glob(f"{_PARTIAL}*"):
            _remove(leftover)
        present = {path.name for path in self.path.iterdir()}
        if present <= {"run.json"}:  # new, or refused before its first stage ended
            self.write("run.json", json.dumps({"job": job, "flags": self.flags}, indent=2))
            return
        if "run.json" not in present:
            raise ValueError(
                "Expected an empty folder, or the folder of an earlier run. "
                f"Received: {self.path}, which holds other files"
            )
        earlier = json.loads((self.path / "run.json").read_text())
        before = {"job": earlier["job"], **earlier["flags"]}
        now = {"job": job, **self.flags}
        changed = [
            f"--{n} was {before.get(n)!r} and is {now.get(n)!r}"
            for n in sorted({*before, *now})
            if before.get(n) != now.get(n)
        ]
        if changed:
            raise ValueError(
                f"{self.path} holds a run with other flags, expected the same ones, or another "
                f"--name. Received: {'; '.join(changed)}"
            )

    def __truediv__(self, name):
        return self.path / name

    def write(self, name, content):
        """Makes the file `name`: of a text, of a model, or by a function of a path.

        The function may make a folder instead.
        """
        partial = self.path / f"{_PARTIAL}{name}"
        try:
            if isinstance(content, str):
                partial.write_text(content)
            elif isinstance(content, keras.Model):
                content.save(partial)
            else:
                content(partial)
            os.replace(partial, self.path / name)
        except OSError as error:
            raise OSError(f"Cannot write {self.path / name} (--output_dir): {error}") from error
        finally:
            _remove(partial)


def _remove(path):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def load_data():
    return data.load(FLAGS.dataset, data_dir=FLAGS.data_dir, image_size=FLAGS.image_size)
