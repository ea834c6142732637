"""Code that flags name: whatever it does, one line says which code it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import compress, evaluate, train
from pipelines.common import datasets, models, objectives
from pipelines.common.errors import streamed_samples
from tests.pipelines.scripts import call
from tfpeft.core.arguments import InputError

CODE = """
import sys, numpy as np, keras, tensorflow as tf
DATA = (np.ones((4, 3)), np.array([0, 1, 0, 1]))
def column(): return {}["column"]
def returns_none(): pass
def takes_arguments(path): return DATA, DATA, DATA
def exits(): sys.exit(3)
def exits_silently(): sys.exit()
def asserts(): assert False
def lines(): raise RuntimeError("first\\nsecond")
def generators():
    def batches():
        yield DATA
        raise OSError("gone")
    return batches, batches, batches
def good():
    print("loading")
    return DATA, DATA, DATA
class Broken(keras.utils.PyDataset):
    def __len__(self): return 2
    def __getitem__(self, index): raise KeyError(index)
def broken(): return Broken(), Broken(), Broken()
def failing(): return tf.data.Dataset.range(80).map(
    lambda i: (tf.ensure_shape(tf.numpy_function(row, [i], tf.float32), (2,)), i % 2))
def row(i):
    if i == 40: raise RuntimeError("row 40 is gone")
    return np.float32([i, 1])
number = 3
class Layer(keras.layers.Layer): pass
def double(x): return 2 * x
def distance(y, outputs): return keras.ops.abs(keras.ops.reshape(y, (-1,)) - outputs[:, 0])
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """Modules in the current folder, under names that no other test imports."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    name = f"users_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(CODE)
    for kind, text in [
        ("syntax", "def f(:\n"),
        ("raises", "raise ValueError('at import')\n"),
        ("exits", "import sys; sys.exit('stop')\n"),
    ]:
        (tmp_path / f"{name}_{kind}.py").write_text(text)
    return name


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{}:column", "--dataset={}:column: KeyError: 'column'"),
        ("{}:returns_none", "--dataset={}:returns_none, which returns a NoneType"),
        (
            "{}:takes_arguments",
            "--dataset={}:takes_arguments: TypeError: takes_arg",
        ),
        ("{}:exits", "--dataset={}:exits: SystemExit: 3"),
        ("{}:exits_silently", "--dataset={}:exits_silently: SystemExit"),
        ("{}:asserts", "--dataset={}:asserts: AssertionError"),
        ("{}:lines", "--dataset={}:lines: RuntimeError: first"),
        ("{}:broken", "--dataset={}:broken, train data: "),
        ("{}:failing", "--dataset={}:failing, train data: RuntimeError: row 40 is gone"),
        ("{}:number", "--dataset={}:number, which is of type int"),
        ("{}:missing", "--dataset={}:missing: AttributeError"),
        ("{}:", "expected module:function. Received: --dataset={}:"),
        (":good", "expected module:function. Received: --dataset=:good"),
        ("{}:good:good", "expected module:function. Received: --dataset={}:good:good"),
        ("{}_none:good", "--dataset={}_none:good: ModuleNotFoundError"),
        ("{}_syntax:f", "--dataset={}_syntax:f: SyntaxError"),
        ("{}_raises:f", "--dataset={}_raises:f: ValueError: at import"),
        ("{}_exits:f", "--dataset={}_exits:f: SystemExit: stop"),
    ],
)
def test_what_code_does_is_one_line(code, reference, message, capsys):
    assert train.SCRIPT.status([f"--dataset={reference.format(code)}"]) == 1
    errors = capsys.readouterr().err
    assert message.format(code) in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


def test_what_a_streamed_dataset_raises_is_one_line(code, capsys):
    flags = [f"--dataset={code}:failing", "--cache=none"]
    assert train.SCRIPT.status(flags) == 1
    errors = capsys.readouterr().err
    assert errors == (
        "error: Expected samples that can be read; --debug prints the traceback. "
        f"Received: --dataset={code}:failing: RuntimeError: row 40 is gone\n"
    )
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    data = models.call_function(f"{code}:failing", "dataset").batch(16)
    message = "--dataset=d: RuntimeError: row 40 is gone$"
    with pytest.raises(InputError, match=message), streamed_samples("--dataset=d"):
        model.fit(data, shuffle=False, verbose=0)
    with pytest.raises(tf.errors.InvalidArgumentError), streamed_samples("--dataset=d"):
        model(np.ones((1, 2)), training=False) @ tf.ones((3, 3))


def test_debug_prints_the_traceback_of_the_code(code, capsys):
    assert train.SCRIPT.status([f"--dataset={code}:column", "--debug"]) == 1
    errors = capsys.readouterr().err
    assert f'{code}.py", line 4, in column' in errors
    assert "\nKeyError: 'column'" in errors
    assert errors.splitlines()[-1].startswith("error: Expected code that runs; --debug prints ")


def test_ctrl_c_in_code_is_ctrl_c(code, monkeypatch):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(models.importlib, "import_module", lambda name: interrupted())
    with pytest.raises(KeyboardInterrupt):
        models.call_function("a:b", "dataset")


def test_what_code_prints_is_not_part_of_the_output(code, capsys):
    assert len(models.call_function(f"{code}:good", "dataset")) == 3
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "loading\n")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("{}_syntax.py", "--custom_objects={}_syntax.py: SyntaxError"),
        ("{}_raises.py", "--custom_objects={}_raises.py: ValueError: at import"),
        ("{}_exits", "--custom_objects={}_exits: SystemExit: stop"),
        ("{}_none", "--custom_objects={}_none: ModuleNotFoundError"),
        ("none.py", "--custom_objects=none.py, which is not there"),
        ("folder.py", "--custom_objects=folder.py, which is a folder"),
    ],
)
def test_custom_objects_that_cannot_be_imported(code, tmp_path, reference, message):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError) as error:
        models.import_custom_objects(reference.format(code))
    assert message.format(code) in str(error.value)
    found = models.import_custom_objects(f"{code}.py")
    assert {"Layer", "double", "distance"} <= set(found)
    assert not {"DATA", "number", "np", "Broken"} & set(found)


def test_code_and_loss_of_a_model_in_a_run_that_resumes(code, tmp_path, monkeypatch):
    custom = f"--custom_objects={code}.py"
    distance = models.import_custom_objects(f"{code}.py")["distance"]
    twice = keras.layers.Lambda(lambda x: 2 * x, name="twice")
    model = keras.Sequential([keras.Input((3,)), twice, keras.layers.Dense(1)])
    model.compile("sgd", distance, metrics=[distance])
    model.save("mine.keras")
    x = np.random.default_rng(0).normal(size=(60, 3))
    np.savez("mine.npz", x_train=x, y_train=x[:, 0] / 3, x_test=x, y_test=x[:, 0] / 3)
    flags = ["--dataset=mine.npz", "--model=mine.keras", custom, "--epochs=1", "--allow_chance"]
    flags += ["--stages=distill,quantize", "--student=mine.keras", "--teacher=mine.keras"]
    message = r"mine\.keras, .*Lambda layer, .* \('twice'\): .*, give --trust_code; .*"
    with pytest.raises(InputError, match=f"--model=.*{message} --custom_objects$"):
        call(compress, *flags)
    used, of = [], objectives.of

    def kept_objective(*arguments):
        used.append(of(*arguments))
        return used[-1]

    monkeypatch.setattr(objectives, "of", kept_objective)
    assert call(compress, *flags, "--trust_code") == 0
    assert {each.loss().__name__ for each in used} == {"distance"}
    assert [getattr(each, "__name__", "") for each in used[0].metrics()][1:] == ["distance"]
    folder = tmp_path / "saved_models" / "mine-compress"
    assert "distance" in (folder / "report.md").read_text()
    # The file has moved, and the last stage runs again.
    for name in ("model.tflite", "report.json"):
        (folder / name).unlink()
    (tmp_path / "mine.keras").rename(tmp_path / "moved.keras")
    with pytest.raises(InputError, match=r"--model=.*teacher\.keras, .*give --trust_code"):
        call(compress, *flags)
    del used[:]
    assert call(compress, *flags, "--trust_code") == 0
    assert {each.loss().__name__ for each in used} == {"distance"}
    with pytest.raises(InputError, match=r"path.*moved\.keras', .*give --trust_code"):
        call(evaluate, "--dataset=mine.npz", "moved.keras")
    measured = ["--dataset=mine.npz", "moved.keras", custom, "--allow_chance", "--trust_code"]
    assert call(evaluate, *measured) == 0


def test_a_lambda_that_calls_a_function_holds_no_code(code):
    found = models.import_custom_objects(f"{code}.py")
    layers = [keras.Input((3,)), keras.layers.Lambda(found["double"])]
    keras.Sequential(layers).save("named.keras")
    loaded = models.load_model("named.keras", custom_objects=found)
    np.testing.assert_array_equal(loaded(np.ones((1, 3))), [[2, 2, 2]])


def test_a_student_that_is_no_model(code, tmp_path):
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save("mine.keras")
    x, y = np.ones((40, 3)), np.arange(40) % 2
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    flags = ["--dataset=data.npz", "--model=mine.keras", "--stages=distill", "--allow_chance"]
    for name, message in [("column", "KeyError: 'column'"), ("returns_none", "None")]:
        with pytest.raises(InputError, match=f"--student={code}:{name}.*{message}"):
            compress.SCRIPT.call([*flags, f"--student={code}:{name}", f"--name={name}"])


def test_data_of_a_generator_that_raises(code):
    with pytest.raises(InputError, match=f"--dataset={code}:generators, train data"):
        datasets.load(f"{code}:generators")
