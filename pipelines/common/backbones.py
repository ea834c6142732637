"""Pretrained backbones, and the tokens that they read for texts."""

import json
import os

import keras
import numpy as np

from pipelines.common.errors import invalid_flag
from pipelines.common.flags import CUSTOM_OBJECTS, TRUST_CODE, Flag
from pipelines.common.models import (
    KERAS_FILES,
    import_custom_objects,
    is_model_of_arrays,
    load_model,
)
from tfpeft.core.arguments import InputError, last_cause, unexpected

BACKBONE = Flag(
    "backbone",
    str,
    None,
    "The model that all tasks share: a KerasHub preset such as bert_tiny_en_uncased, an hf:// "
    "handle, a folder in the layout of KerasHub or of Hugging Face, or, for arrays, what "
    "load_model reads: a .keras or .h5 file, a SavedModel folder or applications:NAME.",
)
SEQUENCE_LENGTH = Flag(
    "sequence_length", int, 128, "Tokens of a text that are read, at most.", at_least=4
)
BACKBONE_FLAGS = (BACKBONE, CUSTOM_OBJECTS, TRUST_CODE, SEQUENCE_LENGTH)

_TOKENIZER = "tokenizer"


def open_backbone(settings, folder, *, is_text):
    """Returns the backbone that `folder` keeps, and for texts the preprocessor; else None.

    Both are written there first, so that from then on a run needs nothing else.
    """
    custom_objects = import_custom_objects(settings.custom_objects)
    if not is_model_of_arrays(settings.backbone):
        _keras_hub()  # registers the classes that are in the file
    names = ["backbone.keras", *([_TOKENIZER] if is_text else [])]
    if not all(folder.has(n) if n.endswith(KERAS_FILES) else (folder / n).exists() for n in names):
        model, preprocessor = _load(settings, is_text, custom_objects)
        if is_text and not (folder / _TOKENIZER).exists():
            folder.write(_TOKENIZER, lambda path: _save_preprocessor(preprocessor, model, path))
        folder.write("backbone.keras", model)
    trust = settings.trust_code
    model = load_model(folder / "backbone.keras", "backbone", custom_objects, trust_code=trust)
    return model, load_preprocessor(folder) if is_text else None


def _keras_hub():
    try:
        import keras_hub
    except ImportError as error:
        raise _not_installed(error) from error
    return keras_hub


def _not_installed(error):
    return unexpected(
        "KerasHub and what it needs for texts, which `pip install tfpeft[text]` brings", error
    )


def _load(settings, is_text, custom_objects):
    """Returns what --backbone names: a model, and for texts a preprocessor."""
    if is_model_of_arrays(settings.backbone):
        path = os.path.expanduser(settings.backbone)
        trust = settings.trust_code
        return load_model(path, "backbone", custom_objects, trust_code=trust), None
    models = _keras_hub().models
    preset = os.path.expanduser(settings.backbone)
    preprocessor = None
    try:
        model = models.Backbone.from_preset(preset)
        if is_text:
            preprocessor = models.TextClassifierPreprocessor.from_preset(
                preset, sequence_length=settings.sequence_length
            )
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # files, JSON, downloads and Keras each have their own
        content = "a tokenizer for classification" if is_text else "weights"
        expected = (
            f"a KerasHub preset, an hf:// handle, a folder of either with {content}, or a .keras "
            "or .h5 file"
        )
        received = f"{settings.backbone}: {last_cause(error)}"
        raise invalid_flag("backbone", expected, received) from error
    longest = getattr(model, "max_sequence_length", None)
    if is_text and longest is not None and settings.sequence_length > longest:
        expected = f"at most {longest}, which --backbone={settings.backbone} reads"
        raise invalid_flag("sequence_length", expected, settings.sequence_length)
    return model, preprocessor


def _save_preprocessor(preprocessor, model, path):
    path.mkdir()
    preprocessor.save_to_preset(str(path))
    # A preset names the backbone that it belongs to, and cannot be loaded without.
    config = keras.saving.serialize_keras_object(model)
    (path / "config.json").write_text(json.dumps(config, indent=4))


def reads_texts(folder):
    """Whether a run is on texts."""
    return (folder / _TOKENIZER).exists()


def load_preprocessor(folder):
    """Returns the preprocessor that makes tokens of texts, as a run keeps it."""
    path = str(folder / _TOKENIZER)
    preprocessor = _keras_hub().models.TextClassifierPreprocessor
    try:
        return preprocessor.from_preset(path)
    except ImportError as error:
        raise _not_installed(error) from error
    except Exception as error:  # files, JSON and Keras each have their own
        raise InputError(
            f"Expected a whole tokenizer; without it the run writes it anew. Received: {path}: "
            f"{last_cause(error)}"
        ) from error


def tokens(preprocessor, texts):
    """Returns the inputs of a backbone, name -> (texts, sequence_length)."""
    packed = preprocessor(list(texts))
    return {name: np.asarray(array).astype("int32") for name, array in packed.items()}
