"""Labels as classes: what is clear is accepted, and what is not names its remedy."""

import numpy as np
import pytest

from pipelines.common import labels, splits
from tfpeft.core.arguments import InputError

Y = np.arange(12) % 3


def read(train, test=None, names=None):
    given = {"train": train, "test": train if test is None else test}
    y, names, kind = labels.class_numbers(given, "--dataset=a.npz", names)
    return y["train"].tolist(), names, kind


@pytest.mark.parametrize(
    ("given", "names", "kind"),
    [
        (Y, ("0", "1", "2"), "class numbers"),
        (Y.astype("uint8"), ("0", "1", "2"), "class numbers"),
        (Y.astype("float32")[:, None], ("0", "1", "2"), "class numbers"),
        (np.eye(3)[Y], ("0", "1", "2"), "one-hot rows"),
        (np.eye(3, dtype=bool)[Y], ("0", "1", "2"), "one-hot rows"),
        (np.array(["ant", "bee", "cat"])[Y], ("ant", "bee", "cat"), "names"),
        (np.array([b"ant", b"bee", b"cat"])[Y], ("ant", "bee", "cat"), "names"),
        (np.array(["ant", b"bee", "cat"], object)[Y], ("ant", "bee", "cat"), "names"),
        (np.array(["1", "10", "2"])[Y], ("1", "10", "2"), "names"),  # in the order of Keras
    ],
)
def test_labels_that_are_clear(given, names, kind):
    assert read(given) == (Y.tolist(), names, kind)


def test_booleans_and_classes_without_a_sample():
    assert read(Y > 1) == ((Y > 1).astype(int).tolist(), ("False", "True"), "booleans")
    assert read(np.eye(5)[Y])[1] == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize(
    ("given", "classes", "expected"),
    [
        (Y + 1, "1,2,3", Y),
        (np.where(Y == 0, -1, 1), "-1,1", Y > 0),
        (np.array([0, 40, 41])[Y], "0,40,41", Y),
        (np.array([0, 40, 41])[Y], "42", np.array([0, 40, 41])[Y]),
        (Y, "ant,bee,cat", Y),
        (np.array(["ant", "bee", "cat"])[Y], "cat, bee, ant", 2 - Y),
    ],
)
def test_names_of_the_classes_say_what_labels_mean(given, classes, expected):
    names = labels.parse(classes.split(","))
    y, found, _ = read(given, names=names)
    assert y == expected.astype(int).tolist()
    assert found == names


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Y + 1, r"from 0 to n - 1.*the labels 1,2,3; --classes=1,2,3 makes 3.*--classes=4 means"),
        (np.array([0, 40, 41])[Y], "the labels 0,40,41; --classes=0,40,41"),
        (
            np.array([-1, 1])[Y % 2],
            "labels -1,1; --classes=-1,1 makes 2 classes of them; --task=reg",
        ),
        (Y * 1e300, "the labels 0,1000000"),
        (Y + 0.5, "train data with numbers such as 0.5, which are no classes"),
        (np.where(Y == 2, np.nan, Y), "NaN or infinity in 4 of 12 labels"),
        (np.where(Y == 2, np.inf, Y), "NaN or infinity in 4 of 12 labels"),
        (np.stack([Y == 0, Y > 0, Y == 2], 1), r"\(12, 3\), 4 of 12 rows .*multi-hot"),
        (np.zeros((12, 3)), "12 of 12 rows .*multi-hot"),
        (np.eye(3)[Y] * 0.9 + 0.1 / 3, "probabilities.*np.argmax"),
        (np.random.default_rng(0).normal(size=(12, 2)), "rows of 2 numbers, which are no classes"),
        (np.zeros((12, 2, 2)), r"labels of shape \(12, 2, 2\)"),
        (Y + 1j, "labels of type complex128"),
        (Y.astype("timedelta64[s]"), "labels of type timedelta64"),
        (np.array([None, "a", "b"], object)[Y], "labels of type object"),
        (np.array(["", "a", "b"])[Y], "4 of 12 labels empty"),
        (np.array(["a", "b"])[np.eye(2, dtype=int)[Y % 2]], r"labels of shape \(12, 2\)"),
    ],
)
def test_labels_that_are_not_clear_name_the_remedy(given, message):
    with pytest.raises(InputError, match=message):
        read(given)


def test_splits_must_agree():
    names = np.array(["ant", "bee", "cat"])
    with pytest.raises(InputError, match="test data with dog$"):
        read(names[Y], np.array(["ant", "dog"]))
    with pytest.raises(InputError, match="names and numbers"):
        read(names[Y], Y)
    with pytest.raises(InputError, match="one-hot rows of one width.*with 3 and 4"):
        read(np.eye(3)[Y], np.eye(4)[Y])
    assert read(np.eye(3)[Y], Y)[2] == "one-hot rows"
    with pytest.raises(InputError, match="0 to 2 as in the training data.*test data with 0 to 3"):
        read(Y, np.array([0, 3]))


@pytest.mark.parametrize("classes", ["a", "a,,b", "a,b,a", "1", "0"])
def test_names_of_classes_that_cannot_be(classes):
    with pytest.raises(InputError, match=f"--classes, expected two or more.*--classes={classes}"):
        labels.parse(classes.split(","))


def test_one_line_says_what_data_is():
    x = np.linspace(-1, 2, 120).reshape(60, 2)
    y = np.array(["ant", "bee", "cat"])[np.arange(60) % 3]
    data = splits.checked({"train": (x, y)}, "--dataset=a.npz")
    assert str(data) == (
        "Data: 43 train, 5 validation, 12 test samples of shape (2,), values "
        f"{data.train[0].min():g} to {data.train[0].max():g}; one class per sample (names), "
        "3 classes: ant, bee, cat"
    )
    assert labels.shortened(range(100)) == "0, 1, 2, 3, 4, ..., 98, 99"


def test_inputs_of_splits_must_agree():
    pairs = {"train": (np.zeros((12, 4)), Y), "test": (np.zeros((12, 5)), Y)}
    with pytest.raises(InputError, match=r"one shape in all splits.*\(4,\).*\(5,\)"):
        splits.checked(pairs, "--dataset=a.npz")
    with pytest.raises(InputError, match="numbers as inputs.*complex"):
        splits.checked({"train": (np.zeros((12, 4)) + 1j, Y)}, "--dataset=a.npz")
