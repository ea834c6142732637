"""`--dataset=FILE.csv:...`: tables of numbers and categories, and texts."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from pipelines import export
from pipelines.common import datasets, tables
from pipelines.common.compilation import Compilation
from pipelines.common.request import Request
from tests.pipelines.scripts import call
from tfpeft.core.arguments import InputError

ROWS = 60
SPLITS = ("train", "validation", "test")


def save_table(path, **changes):
    """Writes a CSV of a number, a category, a name per row, a class, and numbers to predict."""
    numbers = np.arange(ROWS)
    columns = {
        "size (cm)": [f"{i % 12}" for i in numbers],
        "shape": [("round", "long", "flat")[i % 3] for i in numbers],
        "name": [f"row {i}" for i in numbers],
        "kind": [("cat", "dog")[i % 2] for i in numbers],
        "weight": [f"{i / 4}" for i in numbers],
    }
    columns |= {name: cells for name, cells in changes.items() if name in columns}
    lines = [",".join(columns), *map(",".join, zip(*columns.values(), strict=True))]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """Data of a table with missing cells, and the folder that it is in."""
    folder = tmp_path_factory.mktemp("table")
    sizes = [("", "?", "NA")[i % 3] if i < 6 else f"{i % 12}" for i in range(ROWS)]
    shapes = ["" if 6 < i < 16 else ("round", "long", "flat")[i % 3] for i in range(ROWS)]
    path = save_table(folder / "a.csv", **{"size (cm)": sizes, "shape": shapes})
    return datasets.load(f"{path}:kind"), folder


def test_a_table_is_numbers_through_a_feature_space(loaded):
    data, _ = loaded
    table = data.table
    assert (data.task, data.names, data.kind) == ("classification", ("cat", "dog"), "names")
    assert [len(getattr(data, split)[1]) for split in SPLITS] == [43, 5, 12]
    assert list(table.numbers) == ["size (cm)", "weight"]
    assert (table.categories, table.left_out) == (("shape",), ("name",))
    x = data.train[0]
    assert (x.dtype, x.shape[1]) == ("float32", 7)  # two numbers, three shapes, missing, unknown
    is_number = np.any((x != 0) & (x != 1), axis=0)
    np.testing.assert_allclose(x[:, is_number].mean(axis=0), [0, 0], atol=1e-5)
    np.testing.assert_allclose(x[:, is_number].std(axis=0), [1, 1], atol=1e-4)
    np.testing.assert_array_equal(x[:, ~is_number].sum(axis=1), 1)
    again = datasets.load(f"{loaded[1] / 'a.csv'}:kind")
    np.testing.assert_array_equal(again.test[0], data.test[0])


def test_a_run_keeps_its_table(loaded, tmp_path):
    data, _ = loaded
    for name, content in data.table.files().items():
        if callable(content):
            content(tmp_path / name)
        else:
            (tmp_path / name).write_text(content)
    table = tables.load(tmp_path)
    rows = "shape,weight,size (cm)\nround,5,3\nsquare,,\n"
    (tmp_path / "new.csv").write_text(rows)
    x = table.read(tmp_path / "new.csv", "new.csv")
    expected = data.table.inputs(
        {
            "size (cm)": np.array([3.0, data.table.numbers["size (cm)"]]),
            "weight": np.array([5.0, data.table.numbers["weight"]]),
            "shape": np.array(["round", "square"], object),
        }
    )
    np.testing.assert_array_equal(x, expected)
    (tmp_path / "new.csv").write_text("shape,weight,size (cm)\nround,5,3\nflat,much,1\n")
    with pytest.raises(InputError, match="numbers in the column 'weight'.*line 3: 'much'"):
        table.read(tmp_path / "new.csv", "new.csv")
    (tmp_path / tables.FEATURES).unlink()
    with pytest.raises(InputError, match="features of a run.*features.keras, which is damaged"):
        tables.load(tmp_path)
    assert tables.load(tmp_path / "nothing") is None


def test_labels_that_are_numbers_and_several_columns(tmp_path):
    path = save_table(tmp_path / "a.csv", kind=[str(i % 2) for i in range(ROWS)])
    data = datasets.load(f"{path}:weight")
    assert (data.task, data.train[1].shape) == ("regression", (43,))
    data = datasets.load(f"{path}:weight+size (cm)")
    assert (data.task, data.train[1].shape) == ("regression", (43, 2))
    data = datasets.load(f"{path}:kind")
    assert (data.task, data.names) == ("classification", ("0", "1"))


def test_columns_are_inputs_of_a_model_that_names_them(tmp_path):
    inputs = {
        "weight": keras.Input((1,), name="weight"),
        "shape": keras.Input((1,), name="shape", dtype="string"),
    }
    codes = keras.layers.StringLookup(vocabulary=["flat", "long", "round"], output_mode="one_hot")
    both = keras.layers.Concatenate()([inputs["weight"], codes(inputs["shape"])])
    model = keras.Model(inputs, keras.layers.Dense(2)(both))
    data = datasets.load(f"{save_table(tmp_path / 'a.csv')}:kind", model=model)
    x, y = data.test
    assert (set(x), data.table.named) == ({"weight", "shape"}, True)
    assert (x["weight"].shape, x["shape"].dtype) == ((12, 1), tf.string)
    np.testing.assert_array_equal(y, (x["weight"][:, 0] * 4) % 2)
    shapes = np.array(["round", "long", "flat"])[np.asarray(x["weight"][:, 0] * 4, int) % 3]
    np.testing.assert_array_equal(x["shape"].numpy()[:, 0].astype(str), shapes)
    assert "weight of shape (1,), values" in str(data)
    assert "shape of texts" in str(data)


def test_whole_numbers_are_numbers_for_a_model_that_is_compiled_so(tmp_path):
    cells = [str(100 * i) for i in range(ROWS)]
    dataset = f"{save_table(tmp_path / 'a.csv', weight=cells)}:weight"
    model = keras.Sequential([keras.Input((1,), name="size (cm)"), keras.layers.Dense(1)])
    request = Request(compilation=Compilation({"loss": "mse"}))
    data = datasets.load(dataset, model=model, request=request)
    assert (data.task, data.train[1].dtype) == ("regression", "float32")
    with pytest.raises(InputError, match="samples of every class.*; --task=regression predicts"):
        datasets.load(dataset)


def test_texts_for_a_model_that_reads_them(tmp_path, monkeypatch):
    layer = keras.layers.TextVectorization(vocabulary=["good", "bad"], output_mode="multi_hot")
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(inputs)))
    lines = [f'"{("good", "bad")[i % 2]}, I think",{("yes", "no")[i % 2]}' for i in range(40)]
    (tmp_path / "a.csv").write_text("\n".join(["text,label", *lines]))
    dataset = f"{tmp_path / 'a.csv'}:text:label"
    data = datasets.load(dataset, model=model)
    x, y = data.train
    assert (x.dtype, tuple(x.shape), data.names) == (tf.string, (28, 1), ("no", "yes"))
    np.testing.assert_array_equal(np.char.startswith(x.numpy()[:, 0].astype(str), "good"), y == 1)
    assert data.for_model(model)[1].task == "classification"
    model.save(tmp_path / "texts.keras")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="a model of numbers, .*--model=texts.keras with texts"):
        call(export, "--model=texts.keras", f"--dataset={dataset}")
    assert not (tmp_path / "saved_models" / "a-export" / "teacher.keras").exists()
    with pytest.raises(InputError, match="numbers as inputs.*label, train data of type object"):
        datasets.load(dataset)


@pytest.mark.parametrize(
    ("labels", "changes", "message"),
    [
        ("no_such", {}, "a label among the columns 'size.*with 'no_such'"),
        ("kind", {"kind": ["cat", "", "dog"] * 20}, "a label in every row.*20 of 60 rows.*line 3"),
        ("kind+weight", {}, "numbers in several columns of labels.*texts in kind"),
        ("kind", {"shape": ["a"] * 59 + ["a,b"]}, "5 columns in every row.*line 61 has others"),
        ("size (cm)", {"size (cm)": [f"{i // 2 * 3}" for i in range(ROWS)]}, "--task=regression"),
    ],
)
def test_tables_that_do_not_fit(tmp_path, labels, changes, message):
    path = save_table(tmp_path / "a.csv", **changes)
    with pytest.raises(InputError, match=message):
        datasets.load(f"{path}:{labels}")


def test_a_file_without_rows_or_inputs(tmp_path):
    (tmp_path / "a.csv").write_text("a,b\n")
    with pytest.raises(InputError, match="one row or more.*a.csv:b without any"):
        datasets.load(f"{tmp_path / 'a.csv'}:b")
    (tmp_path / "a.csv").write_text("b\n1\n2\n")
    with pytest.raises(InputError, match="numbers or categories beside labels"):
        datasets.load(f"{tmp_path / 'a.csv'}:b", request=Request(task="regression"))
    with pytest.raises(InputError, match="and no file .*b.csv"):
        datasets.load(f"{tmp_path / 'b.csv'}:b")
