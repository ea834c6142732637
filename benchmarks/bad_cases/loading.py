"""Bad inputs of `load_model`: paths, names, damaged files, files of others and folders."""

import pathlib

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments

OTHERS = {
    "given.pt": b"PK\x03\x04",
    "given.onnx": b"\x08\x07",
    "given.pkl": b"\x80\x04]\x94.",
    "given.json": b"{}",
    "given.pb": b"",
    "given.safetensors": b"{}",
    "given.weights.h5": b"",
    "given.hdf5": b"version https://git-lfs.github.com/spec/v1",
    "given": b"text",
}
FOLDERS = {
    "saved_model.pb": (b"", b"no protocol buffer" * 9),
    "config.json": (b"{}", b"not JSON"),
    "keras_metadata.pb": (b"",),
}
NAMES = ("no_such_model", "no_such.h5", "applications:", "applications:MobileNet9")


def loaded_file(name, content):
    return tfpeft.load_model(models.file(name, content))


def loaded_folder(name, content):
    folder = models.folder("given_folder")
    models.file(f"{folder}/{name}", content)
    return tfpeft.load_model(folder)


def of_files(name, contents):
    """Returns a case for each content of a file: {words: content}."""
    return [
        Case(
            f"load_model({name}: {words})",
            lambda content=content: loaded_file(name, content),
            (name,),
        )
        for words, content in contents.items()
    ]


def of_folders():
    return [
        Case(
            f"load_model(a folder with {name}: {content[:9]})",
            lambda name=name, content=content: loaded_folder(name, content),
            ("given_folder",),
        )
        for name, contents in FOLDERS.items()
        for content in contents
    ]


def cases():
    damaged = models.damaged(models.keras_bytes())
    return [
        *bad_arguments(
            "load_model",
            tfpeft.load_model,
            lambda: {"path": models.file("given.keras", models.keras_bytes())},
            {
                "path": (
                    *(*values.PATH, values.DIRECTORY, values.FILE, *NAMES),
                    Made("a pathlib.Path", lambda: pathlib.Path("no_such.h5")),
                ),
                "custom_objects": ("Net", ["Net"], 3, print),
                "safe_mode": (*values.FLAG, None, 1),
            },
        ),
        *of_files("given.keras", damaged),
        *of_files("given.h5", damaged),
        *of_files("given.tflite", {"a .tflite file": models.tflite_bytes()}),
        *(case for name, content in OTHERS.items() for case in of_files(name, {"": content})),
        *of_folders(),
    ]
