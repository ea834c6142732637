"""What `--dataset` can name, and how it becomes train, validation and test data."""

import keras
import numpy as np
import pytest

from pipelines.common import datasets, returned
from pipelines.common.request import Request
from tfpeft.core.arguments import InputError


def test_digits_and_their_splits():
    splits = datasets.load("digits")
    sizes = [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")]
    assert sizes == [1293, 144, 360]
    assert splits.classes == 10
    assert splits.train[0].shape[1:] == (8, 8, 1)
    assert splits.train[0].max() == 16.0
    again = datasets.load("digits", pixel_range=["0", "1"])
    np.testing.assert_array_equal(splits.test[0] / 16.0, again.test[0])


def test_named_images_are_raw_pixels_with_a_channel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 5)).astype("uint8")
    y = np.arange(40) % 2
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = datasets.load("mnist", data_dir=tmp_path)
    np.testing.assert_array_equal(splits.test[0], x[..., None])
    raw = datasets.load(str(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(raw.test[0], x)
    with pytest.raises(InputError, match="--data_dir, which --dataset=digits does not read"):
        datasets.load("digits", data_dir=tmp_path)
    with pytest.raises(InputError, match="--image_size, which --dataset=digits does not read"):
        datasets.load("digits", image_size=8)


@pytest.mark.parametrize(
    ("dtype", "largest", "expected"),
    [("uint8", 255, [-1, 1]), ("uint16", 65535, [-1, 1]), ("uint8", 51, [-1, -0.6])],
)
def test_pixels_in_the_range_of_the_flag(tmp_path, dtype, largest, expected):
    x = np.zeros((40, 3), dtype)
    x[:, 0] = largest
    y = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = datasets.load(str(tmp_path / "a.npz"), pixel_range=["-1", "1"])
    x, _ = splits.test
    np.testing.assert_allclose([x.min(), x.max()], expected, rtol=1e-6)


@pytest.mark.parametrize("given", ["1", "1,0", "0,0", "a,b", "0,inf", "nan,1", "0,1,2"])
def test_ranges_that_are_none(given):
    with pytest.raises(InputError, match=f"--pixel_range, expected two.*--pixel_range={given}"):
        datasets.load("digits", pixel_range=given.split(","))


def test_the_range_of_floats_is_not_known(tmp_path):
    x, y = np.ones((40, 3)), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(InputError, match="--pixel_range.*uint8.*a.npz of type float64"):
        datasets.load(str(tmp_path / "a.npz"), pixel_range=["0", "1"])


def test_a_file_that_is_no_npz_is_named_with_its_flag(tmp_path):
    np.savez(tmp_path / "objects.npz", **dict.fromkeys(("x_train", "y_train"), np.array([None])))
    whole = (tmp_path / "objects.npz").read_bytes()
    contents = {"text": b"a,b\n1,2\n", "empty": b"", "cut": whole[:-30], "objects": whole}
    for name, content in contents.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        for flag in ("dataset", "task"):
            with pytest.raises(InputError) as error:
                datasets.load_arrays(path, flag, f"--{flag}={path}")
            reason = (
                "bject arrays" if name == "objects" else ", which is damaged or of another kind"
            )
            wanted = f"Expected an .npz file of numbers and texts for --{flag}. Received: {path}"
            assert str(error.value).startswith(wanted)
            assert reason in str(error.value)
            assert "allow_pickle" not in str(error.value) or name == "objects"


def test_own_validation_data_is_used(tmp_path):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **{**arrays, "x_val": x[:4], "y_val": np.eye(2)[y[:4]]})
    splits = datasets.load(str(tmp_path / "a.npz"))
    assert [len(splits.train[1]), len(splits.validation[1])] == [20, 4]
    np.testing.assert_array_equal(splits.validation[1], y[:4])


def test_training_data_sorted_by_class_is_mixed(tmp_path):
    x, y = np.arange(400.0).reshape(200, 2), np.repeat([0, 1], 100)
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **arrays)
    x_train, y_train = datasets.load(str(tmp_path / "a.npz")).train
    assert 0.3 < y_train[:50].mean() < 0.7
    np.testing.assert_array_equal(np.sort(x_train[:, 0]), x[:, 0])
    np.testing.assert_array_equal(y_train, x_train[:, 0] >= 200)  # each with its own label


FUNCTIONS = """
import keras, numpy as np, tensorflow as tf

x, y = np.arange(24.0).reshape(8, 3), np.arange(8) % 2
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)


class Halves(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]


pair, few = (x, y), ((x[:2], y[:2]), (x[:4], y[:4]))
inputs = tf.data.Dataset.from_tensor_slices(x).batch(3)


def load():
    return batches, (x[:2], y[:2]), [x[:4], y[:4]]


def halves():
    return Halves(), Halves(), Halves()


def two():
    return pair, (x[:4], y[:4])


def named():
    return {"train": batches, "val": (x[:2], y[:2]), "test": (x[:4], y[:4])}


def unbatched():
    return tuple(tf.data.Dataset.from_tensor_slices(part) for part in (pair, *few))


def lists():
    return tuple((part.tolist(), labels.tolist()) for part, labels in (pair, *few))


def one_input():
    return ({"image": x}, y), (x[:2], y[:2]), ([x[:4]], y[:4])


def features():
    rows = [{"image": part, "label": labels} for part, labels in (pair, *few)]
    return tuple(map(tf.data.Dataset.from_tensor_slices, rows))


def feature_arrays():
    return {"train": {"image": x, "label": y}, "validation": (x[:2], y[:2]), "test": (x[:4], y[:4])}


def generators():
    return ((batch for batch in [(x[:n], y[:n])]) for n in (8, 2, 4))


def all_data():
    return np.repeat(x, 5, 0), np.repeat(y, 5, 0)


def all_batches():
    return tf.data.Dataset.from_tensor_slices(all_data())


def endless():
    return batches.repeat(), pair, pair


def unknown_end():
    def forever():
        while True:
            yield x, y

    return forever, pair, pair


def weighted():
    return (x, y, x[:, 0] / 3 % 2 + 1), few[0], few[1]


def negative_weights():
    return (x, y, -y), pair, pair


def unlabelled():
    return inputs, pair, pair


def two_inputs():
    return ({"a": x, "b": x}, y), pair, pair


def other_names():
    return {"train": pair, "holdout": pair}


def several():
    rows = [{"left": x[:n], "label": y[:n], "right": 2 * x[:n, :1]} for n in (8, 2, 4)]
    return tuple(map(tf.data.Dataset.from_tensor_slices, rows))


def only_label():
    return tf.data.Dataset.from_tensor_slices({"label": y})


def four():
    return pair, pair, pair, pair


def no_samples():
    return (x[:0], y[:0]), pair, pair


def a_number():
    return 3


def nothing():
    pass
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Functions of a user, in the module `my_data`."""
    (tmp_path / "my_data.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        *[("load", [8, 2, 4]), ("halves", [8, 8, 8]), ("named", [8, 2, 4])],
        *[("unbatched", [8, 2, 4]), ("lists", [8, 2, 4]), ("one_input", [8, 2, 4])],
        *[("features", [8, 2, 4]), ("feature_arrays", [8, 2, 4]), ("generators", [8, 2, 4])],
    ],
)
def test_a_function_may_return_splits(functions, name, counts):
    splits = datasets.load(f"my_data:{name}")
    assert [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")] == counts
    x, y = splits.train
    np.testing.assert_array_equal(np.sort(x[:, 0]), np.arange(0.0, 24.0, 3.0))
    np.testing.assert_array_equal(y, (x[:, 0] / 3) % 2)  # each with its own label


@pytest.mark.parametrize(
    ("name", "counts"), [("all_data", [28, 4, 8]), ("all_batches", [28, 4, 8])]
)
def test_a_function_may_return_all_data(functions, name, counts):
    splits = datasets.load(f"my_data:{name}")
    assert [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")] == counts


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("endless", r"repeats without an end.*=my_data:endless, train data"),
        ("unknown_end", r"data whose end is known.*not ended after 5\d\d samples.*train data"),
        (
            "unlabelled",
            r"samples \(x, y\) in all splits.*=my_data:unlabelled without labels",
        ),
        ("two_inputs", "samples of one shape in all splits.*=my_data:two_inputs"),
        ("only_label", "inputs and one label.*a dict of label.*=my_data:only_label, train data"),
        ("negative_weights", "sample weights >= 0.*=my_data:negative_weights, train data"),
        ("other_names", "a dict of them.*=my_data:other_names, which returns a dict of train, hol"),
        ("four", "a function that returns data.*=my_data:four, which returns a tuple of 4"),
        ("no_samples", "one or more.*=my_data:no_samples, train data"),
        ("a_number", "a function that returns data.*=my_data:a_number, which returns a int"),
        ("nothing", "a function that returns data.*=my_data:nothing, which returns a NoneType"),
        ("none", "=my_data:none"),
    ],
)
def test_what_a_function_may_not_return(functions, monkeypatch, name, message):
    monkeypatch.setattr(returned, "_MOST_SAMPLES", 500)
    with pytest.raises(InputError, match=message):
        datasets.load(f"my_data:{name}")


def test_data_takes_the_shape_of_the_model():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    assert datasets.load("digits").for_model(model)[0].test[0].shape == (360, 64)
    swapped = keras.Sequential(
        [keras.Input((4, 16)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(InputError, match=r"\(4, 16\).*\(8, 8, 1\)"):
        datasets.load("digits").for_model(swapped)


class TwoOutputs(keras.Model):
    def call(self, x):
        return [x, x]


class Flat(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10)
        self.dense.build((None, 64))

    def call(self, x):
        return self.dense(x)


def test_models_that_do_not_take_the_data():
    data = datasets.load("digits")
    with pytest.raises(InputError, match="one output.*outputs in a list of 2"):
        data.for_model(TwoOutputs())
    with pytest.raises(InputError, match=r"does not take inputs of shape \(8, 8, 1\)"):
        data.for_model(Flat())


def save_npz(path, **changes):
    """Writes an .npz of two inputs, two outputs and sample weights, 40 training samples."""
    arrays = {}
    for split, count in (("train", 40), ("test", 10)):
        x = np.arange(3.0 * count).reshape(count, 3)
        arrays |= {
            f"x_{split}/left": x,
            f"x_{split}/right": x[:, 0],
            f"x_{split}/is_new": x[:, 0] > 9,
            f"y_{split}/size": x[:, :1] / 2,
            f"y_{split}/kind": (x[:, 0] / 3 % 2).astype(int),
            f"weight_{split}": x[:, 0] + 1,
        }
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return str(path)


def test_an_npz_of_several_inputs_and_outputs_and_weights(tmp_path):
    inputs = {
        "left": keras.Input((3,), name="left"),
        "right": keras.Input((1,), name="right", dtype="int32"),
        "is_new": keras.Input((1,), name="is_new", dtype="bool"),
    }
    both = [keras.ops.cast(each, "float32") for each in inputs.values()]
    hidden = keras.layers.Concatenate()(both)
    outputs = {name: keras.layers.Dense(1)(hidden) for name in ("size", "kind")}
    model = keras.Model(inputs, outputs)
    path = save_npz(tmp_path / "a.npz")
    data = datasets.load(path, model=model, request=Request(task="regression"))
    assert data.task == {"size": "regression", "kind": "regression"}
    sizes = [len(getattr(data, s)[2]) for s in ("train", "validation", "test")]
    assert sizes == [36, 4, 10]
    x, y, weight = data.train
    types = {name: array.dtype for name, array in x.items()}
    assert types == {"left": "float32", "right": "int32", "is_new": "bool"}
    assert x["right"].shape == (36, 1)
    np.testing.assert_array_equal(x["left"][:, 0], x["right"][:, 0])
    np.testing.assert_array_equal(y["size"][:, 0], x["left"][:, 0] / 2)
    np.testing.assert_array_equal(weight, x["left"][:, 0] + 1)
    assert "left of shape (3,), values" in str(data)


def test_an_npz_without_labels_is_reconstructed(tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez(tmp_path / "a.npz", x_train=x, x_test=x[:5])
    data = datasets.load(str(tmp_path / "a.npz"))
    assert data.task == "reconstruction"
    np.testing.assert_array_equal(data.test[1], x[:5].astype("float32"))
    request = Request(task="regression")
    with pytest.raises(InputError, match="with labels for regression.*a.npz without labels"):
        datasets.load(str(tmp_path / "a.npz"), request=request)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.ones(40)}, "either x_train or x_train/NAME.*x_train and x_train/left"),
        ({"y_test/kind": None}, "equal names in all splits.*has y_test/kind in some of them"),
        (
            {"x_test/left": None, "x_test/right": None, "x_test/is_new": None},
            "without x_test",
        ),
        ({"weight_train": np.ones(39)}, "as many of every input.*a.npz, train data with 39"),
        ({"weight_test": np.full(10, -1.0)}, "sample weights >= 0.*a.npz, test data"),
        ({"x_train/left": np.full((40, 3), np.nan)}, "finite numbers.*train data, left with NaN"),
        ({}, "--model for labels of several outputs.*a.npz with size, kind"),
    ],
)
def test_npz_files_that_do_not_fit(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        datasets.load(save_npz(tmp_path / "a.npz", **changes))


def test_a_function_may_return_weights_and_several_inputs(functions):
    x, y, weight = datasets.load("my_data:weighted").train
    np.testing.assert_array_equal(weight, y + 1)
    data = datasets.load("my_data:several")
    assert [len(getattr(data, s)[1]) for s in ("train", "validation", "test")] == [8, 2, 4]
    x, y = data.train
    np.testing.assert_array_equal(x["right"][:, 0], 2 * x["left"][:, 0])
    np.testing.assert_array_equal(y, x["left"][:, 0] / 3 % 2)
