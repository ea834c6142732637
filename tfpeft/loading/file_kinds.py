"""Files that are no Keras models: what they are, and the way out."""

import zipfile

import h5py

_PYTORCH = "a model of PyTorch; Keras loads those of Hugging Face as hf://user/model, with KerasHub"
_PICKLE = "a pickle, which runs code; unpickle it where you made it and save it as a .keras file"
_WEIGHTS = "weights without a model; build the model, `load_weights`, and save it as a .keras file"
_BY_SUFFIX = {
    ".bin": _PYTORCH,
    ".ckpt": f"a checkpoint: {_WEIGHTS}",
    ".data-00000-of-00001": f"a part of a checkpoint: {_WEIGHTS}",
    ".index": f"a part of a checkpoint: {_WEIGHTS}",
    ".joblib": _PICKLE,
    ".json": "a model without weights; `keras.models.model_from_json`, `load_weights`, and save it "
    "as a .keras file",
    ".npz": "arrays and no model",
    ".onnx": "a model of ONNX; save the Keras model that it was made of, as a .keras file",
    ".pb": "a graph of TensorFlow; give the folder of a SavedModel, with its variables",
    ".pickle": _PICKLE,
    ".pkl": _PICKLE,
    ".pt": _PYTORCH,
    ".pth": _PYTORCH,
    ".safetensors": _WEIGHTS,
    ".tflite": "a .tflite file, which has no layers; `TFLiteFile`, `evaluate`, `compare` and "
    "`Distiller` take it",
}
_BY_FIRST_BYTES = {
    b"<!DOCTYPE": "a web page; download the file itself",
    b"<html": "a web page; download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS; run `git lfs pull`",
    b"\x80\x02": _PICKLE,
    b"\x80\x03": _PICKLE,
    b"\x80\x04": _PICKLE,
    b"\x80\x05": _PICKLE,
}


def other_kind(path):
    """Returns what a file is that is no Keras model, with the way out, in words; or None."""
    with path.open("rb") as file:
        first = file.read(64)
    if first[4:8] == b"TFL3":
        return _BY_SUFFIX[".tflite"]
    for start, words in _BY_FIRST_BYTES.items():
        if first.startswith(start):
            return words
    if h5py.is_hdf5(path):
        return None
    if first.startswith(b"PK"):
        return _kind_of_zip(path)
    if path.suffix in (".keras", ".h5", ".hdf5"):
        return None  # of this kind, and damaged
    return _BY_SUFFIX.get(path.suffix, "not a model of Keras")


def _kind_of_zip(path):
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return _BY_SUFFIX.get(path.suffix)
    if "config.json" in names:
        return None
    if any(name.endswith("data.pkl") for name in names):
        return _PYTORCH
    if any(name.endswith("saved_model.pb") for name in names):
        return "a zip of a SavedModel; unpack it and give its folder"
    return f"a zip without config.json, with {', '.join(names[:3]) or 'nothing'}"
