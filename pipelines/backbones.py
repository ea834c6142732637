"""Pretrained backbones, and the tokens that they read for texts."""

import json
import os

import keras
import numpy as np
from absl import flags

from pipelines import common

FLAGS = common.FLAGS

flags.DEFINE_string(
    "backbone",
    None,
    "The model that all tasks share: a KerasHub preset such as bert_tiny_en_uncased, an hf:// "
    "handle, a folder in the layout of KerasHub or of Hugging Face, or a .keras or .h5 file.",
)
flags.DEFINE_integer(
    "sequence_length", 128, "Tokens of a text that are read, at most.", lower_bound=4
)
BACKBONE_FLAGS = ["backbone", "custom_objects", "sequence_length"]

FILES = (".keras", ".h5")
_TOKENIZER = "tokenizer"


def backbone(folder, is_text):
    """Returns the backbone that `folder` keeps, and for texts what makes tokens of them.

    Both are brought there first, so that from then on a run needs nothing else.
    """
    custom_objects = common.import_custom_objects(FLAGS.custom_objects)
    if not FLAGS.backbone.endswith(FILES):
        _keras_hub()  # registers the classes that are in the file
    names = ["backbone.keras", *([_TOKENIZER] if is_text else [])]
    if not all((folder / name).exists() for name in names):
        model, preprocessor = _load(is_text, custom_objects)
        if is_text and not (folder / _TOKENIZER).exists():
            folder.write(_TOKENIZER, lambda path: _save_preprocessor(preprocessor, model, path))
        folder.write("backbone.keras", model)
    model = common.load_model(folder / "backbone.keras", "backbone", custom_objects)
    return model, load_preprocessor(folder) if is_text else None


def _keras_hub():
    try:
        import keras_hub
    except ImportError as error:
        raise _not_installed(error) from error
    return keras_hub


def _not_installed(error):
    return ValueError(
        "Expected KerasHub and what it needs for texts, which `pip install tfpeft[text]` brings. "
        f"Received: {error}"
    )


def _load(is_text, custom_objects):
    """Returns what --backbone names: a model, and for texts a preprocessor."""
    if FLAGS.backbone.endswith(FILES):
        path = os.path.expanduser(FLAGS.backbone)
        return common.load_model(path, "backbone", custom_objects), None
    models = _keras_hub().models
    preset = os.path.expanduser(FLAGS.backbone)
    preprocessor = None
    try:
        model = models.Backbone.from_preset(preset)
        if is_text:
            preprocessor = models.TextClassifierPreprocessor.from_preset(
                preset, sequence_length=FLAGS.sequence_length
            )
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # files, JSON, downloads and Keras each have their own
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        wanted = "a tokenizer for classification" if is_text else "weights"
        raise ValueError(
            "Received an invalid value for --backbone, expected a KerasHub preset, an hf:// "
            f"handle, a folder of either with {wanted}, or a .keras or .h5 file. "
            f"Received: --backbone={FLAGS.backbone}: {reason}"
        ) from error
    longest = getattr(model, "max_sequence_length", None)
    if is_text and longest is not None and FLAGS.sequence_length > longest:
        raise ValueError(
            f"Received an invalid value for --sequence_length, expected at most {longest}, which "
            f"--backbone={FLAGS.backbone} reads. Received: {FLAGS.sequence_length}"
        )
    return model, preprocessor


def _save_preprocessor(preprocessor, model, path):
    path.mkdir()
    preprocessor.save_to_preset(str(path))
    # A preset tells in it for which backbone it is, and cannot be loaded without.
    about = keras.saving.serialize_keras_object(model)
    (path / "config.json").write_text(json.dumps(about, indent=4))


def reads_texts(folder):
    """Whether a run is on texts."""
    return (folder / _TOKENIZER).exists()


def load_preprocessor(folder):
    """Returns what makes tokens of texts, as a run keeps it."""
    path = str(folder / _TOKENIZER)
    try:
        return _keras_hub().models.TextClassifierPreprocessor.from_preset(path)
    except ImportError as error:
        raise _not_installed(error) from error


def tokens(preprocessor, texts):
    """Returns the inputs of a backbone, name -> (texts, sequence_length)."""
    packed = preprocessor(list(texts))
    return {name: np.asarray(each).astype("int32") for name, each in packed.items()}
