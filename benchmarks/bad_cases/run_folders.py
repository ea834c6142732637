"""Damaged folders and files from which something resumes or is loaded.

A stage whose file is damaged may be made again, if the run says so.
"""

import functools
import json
import pathlib
import shutil
import tempfile

import h5py
import keras
import numpy as np

import tfpeft
from bad_cases import models
from bad_cases.case import Case, run_script
from bad_cases.scripts import SCRIPTS, finished_run, good_command, prepared
from bad_cases.values import x, y

BAD_JSON = {
    "empty": b"",
    "cut off": b'{"job": "prune", "flags": {',
    "text": b"no JSON",
    "not UTF-8": b"\xff\xfe\x00{}",
    "nested too deep": b"[" * 200_000,
    "null": b"null",
    "a number": b"3",
    "a list": b"[]",
    "a text": b'"prune"',
    "an empty dict": b"{}",
}


@functools.cache
def ended_prune():
    """Returns the folder of a run of `prune` that has ended."""
    folder = prepared() / "pruned"
    status, errors, _ = run_script(
        SCRIPTS["prune"], *good_command("prune"), f"--output_dir={folder}", "--name=ended"
    )
    if status:
        raise RuntimeError(errors)
    return folder / "ended"


def copied(folder, files):
    """Returns a copy of a folder in which files have other content, or None for none."""
    copy = pathlib.Path(tempfile.mkdtemp(dir=prepared())) / "ended"
    shutil.copytree(folder, copy)
    for name, content in files.items():
        path = copy / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        if content == "a folder":
            path.mkdir()
        elif content is not None:
            path.write_bytes(content)
    return copy


def script_case(script, words, files, named):
    """Returns the case of a script that goes on in a damaged folder."""

    def call():
        folder = copied(ended_prune() if script == "prune" else finished_run(), files)
        if script == "predict":
            return run_script(
                SCRIPTS[script], f"--run={folder}", f"--input={prepared() / 'samples.npy'}"
            )
        return run_script(
            SCRIPTS[script], *good_command(script), f"--output_dir={folder.parent}", "--name=ended"
        )

    return Case(f"{script} with {words}", call, named, is_script=True, repaired=named)


def of_scripts():
    found = []
    for words, content in BAD_JSON.items():
        for script in ("prune", "share"):
            for file in ("run.json", "report.json"):
                words_of_file = f"{file}: {words}"
                found.append(script_case(script, words_of_file, {file: content}, (file,)))
        for script in ("predict", *(["share"] if words in ("empty", "null") else [])):
            files = {"tasks.json": content, "report.json": None}
            found.append(script_case(script, f"tasks.json: {words}", files, ("tasks.json",)))
    reports = {
        "rows of a number": {"rows": 3},
        "rows of texts": {"rows": {"teacher": "a", "model.tflite": "b"}},
        "rows without figures": {"rows": {"teacher": {}, "model.tflite": {}}},
        "a size of text": {"rows": {}, "size_bytes": "a", "separate_size_bytes": "b", "tasks": {}},
    }
    for words, content in reports.items():
        for script in ("prune", "share"):
            changed = {"report.json": json.dumps(content).encode()}
            found.append(script_case(script, f"report.json: {words}", changed, ("report.json",)))
    runs = {
        "another job": {"job": "train", "flags": {}},
        "flags of a number": {"job": "prune", "flags": 3},
        "no flags": {"job": "prune"},
        "no job": {"flags": {}},
    }
    for words, content in runs.items():
        changed = {"run.json": json.dumps(content).encode()}
        named = ("run.json", "job", "flags", "--output_dir")
        found.append(script_case("prune", f"run.json: {words}", changed, named))
    tasks = {
        "no tasks": {},
        "classes of a number": {"a": 3},
        "fewer classes": {"a": ["0"]},
        "no classes": {"a": []},
        "classes that are no texts": {"a": [None, 1, {}]},
        "another task": {"b": ["0", "1", "2"]},
    }
    for words, content in tasks.items():
        changed = {"tasks.json": json.dumps(content).encode()}
        found.append(script_case("predict", f"tasks.json: {words}", changed, ("tasks.json",)))
    for words, content in _damaged(models.keras_bytes()).items():
        for file in ("teacher.keras", "prune.keras"):
            changed = {file: content, "report.json": None}
            found.append(script_case("prune", f"{file}: {words}", changed, (file,)))
        changed = {"backbone.keras": content, "report.json": None}
        named = ("backbone.keras",)
        found.append(script_case("share", f"backbone.keras: {words}", changed, named))
    for words, content in _damaged(models.tflite_bytes()).items():
        changed = {"model.tflite": content, "report.json": None}
        for script in ("prune", "share", "predict"):
            named = ("model.tflite",)
            found.append(script_case(script, f"model.tflite: {words}", changed, named))
    for words in ("empty", "cut off"):
        changed = {"a.weights.h5": models.damaged(weights())[words], "report.json": None}
        named = ("a.weights.h5",)
        found.append(script_case("share", f"a.weights.h5: {words}", changed, named))
    for script, file in (("prune", "teacher.keras"), ("share", "model.tflite")):
        changed = {file: "a folder", "report.json": None}
        found.append(script_case(script, f"{file}: a folder", changed, (file,)))
    return found


def _damaged(content):
    """Returns some of the ways: each is a run of several seconds."""
    return {words: models.damaged(content)[words] for words in ("empty", "cut off", "zeros inside")}


def weights():
    """Returns the content of an adapter's file."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "a.weights.h5"
        tfpeft.add_adapters(models.dense(), tfpeft.LoRA(2)).save_adapter(path)
        return path.read_bytes()


def change_about(**changes):
    """Returns a change of a file that gives its metadata other values."""

    def change(file):
        about = json.loads(file.attrs["tfpeft"])
        about = {k: v for k, v in {**about, **changes}.items() if v != "missing"}
        file.attrs["tfpeft"] = json.dumps(about)

    return change


def change_array(make):
    """Returns a change of a file that gives its first array another content."""

    def change(file):
        names = []
        file.visititems(lambda n, i: names.append(n) if isinstance(i, h5py.Dataset) else None)
        shape = file[names[0]].shape
        del file[names[0]]
        make(file, names[0], shape)

    return change


def _external(file, name, shape):
    path = pathlib.Path("given_secret").absolute()
    path.write_bytes(bytes(4 * int(np.prod(shape))))
    file.create_dataset(name, shape, "float32", external=[(str(path), 0, h5py.h5f.UNLIMITED)])


def _linked(file, name, shape):
    with h5py.File("given_other.h5", "w") as other:
        other["secret"] = np.zeros(shape, "float32")
    file[name] = h5py.ExternalLink(str(pathlib.Path("given_other.h5").absolute()), "secret")


def _soft_linked(file, name, shape):
    file["elsewhere"] = np.zeros(shape, "float32")
    file[name] = h5py.SoftLink("/no_such")


def _huge(file, name, shape):
    file.create_dataset(name, (10**12,), "float32", chunks=(2**16,))


CHANGES = {
    "no method": change_about(method="missing", head="missing"),
    "a method of text": change_about(method="lora"),
    "a method of another class": change_about(
        method={"class_name": "Dense", "config": {"units": 3}, "module": "keras.layers"}
    ),
    "a method that is not there": change_about(
        method={"class_name": "NoSuch", "config": {}, "module": "no_such"}
    ),
    "no fingerprint": change_about(model="missing"),
    "a fingerprint of a number": change_about(model=3),
    "metadata of a list": lambda file: file.attrs.__setitem__("tfpeft", "[]"),
    "metadata of a number": lambda file: file.attrs.__setitem__("tfpeft", 3),
    "metadata of no JSON": lambda file: file.attrs.__setitem__("tfpeft", "{"),
    "no metadata": lambda file: file.attrs.__delitem__("tfpeft"),
    "NaN": change_array(lambda f, n, s: f.__setitem__(n, np.full(s, np.nan, "float32"))),
    "infinity": change_array(lambda f, n, s: f.__setitem__(n, np.full(s, np.inf, "float32"))),
    "another shape": change_array(lambda f, n, s: f.__setitem__(n, np.ones((3, 3, 3)))),
    "text for numbers": change_array(lambda f, n, s: f.__setitem__(n, np.full(s, b"a"))),
    "complex numbers": change_array(lambda f, n, s: f.__setitem__(n, np.full(s, 1j))),
    "an array less": change_array(lambda f, n, s: None),
    "an array more": lambda file: file.__setitem__("more", np.ones(3)),
    "external storage": change_array(_external),
    "an external link": change_array(_linked),
    "a link to nothing": change_array(_soft_linked),
    "an array that no memory holds": change_array(_huge),
}


def of_weight_files():
    """Files of `save_adapter` and `save_task`."""

    def adapter(change):
        def call():
            model = tfpeft.add_adapters(models.dense(), tfpeft.LoRA(2))
            model.save_adapter("given.weights.h5")
            change("given.weights.h5")
            model.load_adapter("given.weights.h5", "second")

        return call

    def task(change):
        def call():
            model = tfpeft.SharedModel(models.dense(), {"a": 3}, adapters=tfpeft.LoRA(2))
            model.save_task("a", "given.weights.h5")
            change("given.weights.h5")
            model.load_task("given.weights.h5")

        return call

    found, named = [], ("path", "given.weights.h5")
    for words, change in CHANGES.items():

        def edit(path, change=change):
            with h5py.File(path, "r+") as file:
                change(file)

        for method, make in (("load_adapter", adapter), ("load_task", task)):
            found.append(Case(f"{method}(a file with {words})", make(edit), named))
    for words in ("empty", "cut off", "zeros", "text"):

        def damage(path, words=words):
            path = pathlib.Path(path)
            path.write_bytes(models.damaged(path.read_bytes())[words])

        found.append(Case(f"load_adapter({words})", adapter(damage), named))
    for words, path in (("a folder", "given"), ("NUL", "a\0b"), ("None", None), ("a number", 3)):

        def load(path=path, words=words):
            if words == "a folder":
                pathlib.Path(path).mkdir()
            tfpeft.add_adapters(models.dense(), tfpeft.LoRA(2)).load_adapter(path, "second")

        found.append(Case(f"load_adapter(path={words})", load, ("path",)))
    return found


def of_precomputed():
    """Folders of `precompute`."""

    def case(words, files, named=("path", "given")):
        def call():
            arguments = (models.dense(), (x(), y()), "given")
            tfpeft.precompute(*arguments)
            shards = sorted(p for p in pathlib.Path("given").iterdir() if p.is_dir())
            for name, content in files.items():
                path = shards[0] / name if name.endswith(".npy") else pathlib.Path("given") / name
                path.write_bytes(content) if content is not None else path.unlink()
            return np.asarray(tfpeft.precompute(*arguments).outputs)

        return Case(f"precompute(a folder with {words})", call, named)

    def array(value):
        with tempfile.TemporaryFile() as file:
            np.save(file, value)
            file.seek(0)
            return file.read()

    found = [case(f"about.json: {words}", {"about.json": bad}) for words, bad in BAD_JSON.items()]
    arrays = {
        "empty": b"",
        "cut off": array(np.ones((16, 3), "float32"))[:100],
        "text": b"text",
        "no file": None,
        "fewer rows": array(np.ones((3, 3), "float32")),
        "another width": array(np.ones((16, 7), "float32")),
        "texts": array(np.full((16, 3), "a")),
        "a scalar": array(np.float32(3.0)),
        "NaN": array(np.full((16, 3), np.nan, "float32")),
    }
    found += [case(f"1.npy: {words}", {"1.npy": content}) for words, content in arrays.items()]
    found.append(case("another file", {"about.json": None, "photo.jpg": b"photo"}))
    return found


def of_rounds():
    """Folders of `prune_iteratively`."""
    data = {"train": (x(), y()), "validation": (x(), y()), "target_sparsity": 0.6, "step": 0.2}

    @functools.cache
    def ended():
        folder = prepared() / "rounds"
        prune(folder)
        return folder

    def prune(folder):
        options = {"tolerance": 10.0, "directory": folder}
        return tfpeft.prune_iteratively(_compiled(), **data, **options)

    def case(words, files, named=("directory", "given", "history.json", "round")):
        return Case(
            f"prune_iteratively(directory with {words})",
            lambda: prune(copied(ended(), files)),
            named,
        )

    found = [
        case(f"history.json: {words}", {"history.json": content})
        for words, content in BAD_JSON.items()
    ]

    def edited(**changes):
        def read():
            about = {**json.loads((ended() / "history.json").read_text()), **changes}
            about = {k: v for k, v in about.items() if v != "missing"}
            return {"history.json": json.dumps(about).encode()}

        return read

    changes = {
        "no history": edited(history="missing"),
        "no monitor": edited(monitor="missing"),
        "no baseline": edited(baseline="missing"),
        "a history of a number": edited(history=3),
        "a history of texts": edited(history=["a"]),
        "a history without figures": edited(history=[{}]),
        "a baseline of text": edited(baseline="a"),
        "a monitor that is not there": edited(monitor="nonsense"),
        "a baseline of NaN": edited(baseline=float("nan")),
        "a sparsity of 7": edited(history=[{"sparsity": 7, "metric": 0.5, "held": True}]),
    }
    for words, read in changes.items():
        found.append(
            Case(
                f"prune_iteratively(directory with history.json: {words})",
                lambda read=read: prune(copied(ended(), read())),
                ("directory", "given", "history.json"),
            )
        )

    def with_model(content):
        (path,) = ended().glob("round_*.keras")
        prune(copied(ended(), {path.name: content}))

    for words, content in {"missing": None, **models.damaged(models.keras_bytes())}.items():
        found.append(
            Case(
                f"prune_iteratively(directory with round_N.keras: {words})",
                lambda content=content: with_model(content),
                ("directory", "round_"),
            )
        )
    return found


def _compiled():
    return models.compiled(optimizer=keras.optimizers.SGD(0.01))


def cases():
    ended_prune(), finished_run()  # no case has to wait for them
    return [*of_weight_files(), *of_precomputed(), *of_rounds(), *of_scripts()]
