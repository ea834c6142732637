"""Every kind of data in one form, against what the arrays are by hand; and all that is wrong."""

import typing

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.arrays import check_numbers
from tfpeft.core.data import Batch, read

X = np.arange(10.0, dtype="float32").reshape(5, 2)
Y = np.array([3, 1, 4, 1, 5])
W = np.array([0.5, 1.0, 1.5, 2.0, 2.5], "float32")
NESTED = {"b": X, "a": [X + 1, (X + 2, Y)]}


class ByTask(typing.NamedTuple):
    by_task: typing.Any


class Batches(keras.utils.PyDataset):
    """Batches of two samples."""

    def __init__(self, *parts, count=3, as_type=tuple):
        super().__init__()
        self.parts, self.count, self.as_type = parts, count, as_type

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        return self.as_type(
            keras.tree.map_structure(lambda leaf: leaf[rows], part) for part in self.parts
        )


class Unlabelled(Batches):
    def __getitem__(self, index):
        rows = slice(2 * index, 2 * index + 2)
        return self.parts[0][rows], None, self.parts[2][rows]


def dataset(*parts, batch_size=2):
    parts = keras.tree.lists_to_tuples(parts)
    return tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)


def generator():
    yield X[:2], Y[:2], W[:2]
    yield X[2:], Y[2:], W[2:]


KINDS = {
    "arrays": lambda: (X, Y, W),
    "tensors": lambda: tuple(map(tf.constant, (X, Y, W))),
    "lists": lambda: (X.tolist(), Y.tolist(), W.tolist()),
    "dataset": lambda: dataset(X, Y, W),
    "dataset of unknown length": lambda: dataset(X, Y, W).filter(lambda *_: True),
    "PyDataset": lambda: Batches(X, Y, W),
    "PyDataset of lists": lambda: Batches(X, Y, W, as_type=list),
}


def assert_same(found, expected):
    """Also compares the structures, and takes lists for tuples, as tf.data has no lists."""
    found, expected = map(keras.tree.lists_to_tuples, (found, expected))
    keras.tree.assert_same_structure(found, expected)
    keras.tree.map_structure(np.testing.assert_array_equal, found, expected)


def joined(batches):
    elements = [batch.element() for batch in batches]
    return keras.tree.map_structure(lambda *leaves: np.concatenate(leaves), *elements)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_one_form(kind):
    data = read(KINDS[kind]())
    is_array = kind in ("arrays", "tensors", "lists")
    assert data.samples == (5 if is_array else None)
    for _ in range(2):  # from the start at every call
        batches = list(data.batches(2))
        assert [batch.size for batch in batches] == [2, 2, 1]
        assert all(isinstance(batch, Batch) for batch in batches)
        assert_same(joined(batches), (X, Y, W))
    arrays = data.arrays()
    assert all(type(leaf) is np.ndarray for leaf in arrays)
    assert_same(tuple(arrays), (X, Y, W))
    for limit, count in ((3, 3), (9, 5), (None, 5)):
        inputs = data.inputs(limit)
        assert type(inputs) is np.ndarray
        assert_same(inputs, X[:count])
    batched = data.dataset(2)
    assert [len(element[0]) for element in batched] == [2, 2, 1]
    assert_same(joined(map(data._batch, batched)), (X, Y, W))
    assert read(data) is data


@pytest.mark.parametrize("kind", KINDS)
def test_keras_takes_the_arguments_of_fit(kind):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    found = model.evaluate(**read(KINDS[kind]()).fit_arguments(2), verbose=0)
    expected = model.evaluate(X, Y, sample_weight=W, batch_size=2, verbose=0)
    assert found == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("parts", [(X,), (X, Y), (NESTED, Y), (NESTED, {"a": Y, "b": Y}, W)])
@pytest.mark.parametrize("make", [tuple, lambda parts: dataset(*parts)], ids=["arrays", "dataset"])
def test_parts_that_are_missing_and_structures_inside(parts, make):
    data = read(make(parts))
    expected = parts if len(parts) > 1 else parts[0]
    assert_same(data.arrays().element(), expected)
    assert_same(joined(data.batches(2)), expected)
    assert_same(data.inputs(2), keras.tree.map_structure(lambda leaf: leaf[:2], parts[0]))
    assert_same(joined(map(data._batch, data.dataset(2))), expected)


def test_the_structure_of_arrays_stays():
    found = read((NESTED, Y)).arrays().x
    assert list(found) == ["b", "a"]
    assert type(found["a"]) is list
    assert type(found["a"][1]) is tuple
    single = read([X]).arrays().x
    assert type(single) is list
    assert read({"a": [1, 2, 3]}).arrays().x["a"].tolist() == [1, 2, 3]


def test_a_part_that_is_none_is_left_out():
    assert read((X, None)).arrays().element() is not None
    assert_same(read((X, None)).arrays().element(), X)
    for data in ((X, None, W), Unlabelled(X, None, W)):
        batch = read(data).arrays()
        assert batch.y is None
        assert_same((batch.x, batch.sample_weight), (X, W))
        elements = list(read(data).dataset(2))
        assert [element[1] for element in elements] == [None] * 3
        assert_same(np.concatenate([element[2] for element in elements]), W)


def test_a_named_tuple_is_inputs():
    inputs = ByTask({"a": X, "b": X + 1})
    for data in (inputs, (inputs, Y), dataset(inputs, Y), Batches(inputs, Y)):
        found = read(data).arrays().x
        assert type(found) is ByTask
        assert_same(found.by_task, inputs.by_task)
    assert read(inputs).arrays().y is None
    alone = tf.data.Dataset.from_tensor_slices(inputs).batch(2)
    assert type(next(read(alone).batches()).x) is ByTask


def test_tasks_in_a_dataset_may_have_other_counts():
    mixed = tf.data.Dataset.from_tensors((ByTask({"a": X, "b": X[:2]}), {"a": Y, "b": Y[:2]}))
    (batch,) = read(mixed).batches()
    assert batch.x.by_task["b"].shape == (2, 2)
    with pytest.raises(InputError, match="as many samples as labels.* 5 and 2"):
        read((ByTask({"a": X, "b": X[:2]}),))


def test_batches_without_samples_are_left_out():
    data = read(Batches(X, Y, count=4))  # the last one has none
    assert [batch.size for batch in data.batches()] == [2, 2, 1]
    assert_same(tuple(data.arrays())[:2], (X, Y))
    assert [len(x) for x, _ in data.dataset()] == [2, 2, 1, 0]


def test_batches_of_a_py_dataset_may_have_other_lengths():
    class Padded(Batches):
        def __getitem__(self, index):
            return np.ones([2, 3 + index, 1]), np.ones([2, 1])

    data = read(Padded())
    batched = data.dataset()
    assert batched.element_spec[0].shape.as_list() == [None, None, 1]
    assert batched.element_spec[1].shape.as_list() == [None, 1]
    assert batched.cardinality() == 3
    assert [x.shape[1] for x, _ in batched] == [3, 4, 5]
    with pytest.raises(InputError, match="batches of one structure and shape"):
        data.arrays()


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ([[X[:1]], [X[1:4]]], X[:4]),  # the form of TensorFlow's converter
        ([X[:1], X[1:4]], X[:4]),
        ([(X[:2],), (X[2:],)], X),
        ([[X, X + 1]], [X, X + 1]),
        ([{"b": X, "a": X + 1}], {"b": X, "a": X + 1}),
        ([{"a": [1.0, 2.0]}], {"a": np.array([1.0, 2.0])}),
    ],
)
def test_functions_that_return_generators(elements, expected):
    data = read(lambda: iter(elements), "representative_data")
    for _ in range(2):
        assert_same(data.inputs(100), expected)
    count = len(keras.tree.flatten(expected)[0])
    assert sum(batch.size for batch in data.batches()) == count
    for read_all in (data.inputs, data.arrays, data.dataset, lambda: data.fit_arguments(2)):
        with pytest.raises(InputError, match="`representative_data`.* whose end is known"):
            read_all()


def test_labels_of_generator_functions():
    batches = list(read(generator).batches())
    assert_same(joined(batches), (X, Y, W))


def test_the_first_inputs_of_data_without_an_end():
    def endless():
        while True:
            yield X, Y

    for data in (endless, dataset(X, Y).repeat(), Batches(X, Y, count=None)):
        data = read(data)
        np.testing.assert_array_equal(data.inputs(4), X[:4])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (dataset(X, Y).repeat(), "finite dataset.*repeats without an end"),
        (Batches(X, Y, count=None), "`num_batches`, or `__len__`, is known.*a Batches"),
    ],
    ids=["dataset", "PyDataset"],
)
def test_data_without_an_end_raises_where_all_is_read(data, message):
    data = read(data, "train")
    for read_all in (data.arrays, data.inputs, data.dataset, lambda: data.fit_arguments(2)):
        with pytest.raises(InputError, match=f"`train`, expected a.*{message}"):
            read_all()


EMPTY = "data with samples, one or more"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), f"{EMPTY}. Received: a tuple without any"),
        (X[:0], f"{EMPTY}. Received: a ndarray without any"),
        ([], f"{EMPTY}. Received: a list without any"),
        (dataset(X[:0], Y[:0]), f"{EMPTY}. Received: a dataset without any"),
        (Batches(X, Y, count=0), f"{EMPTY}. Received: a Batches without any"),
        ({}, "a dict without inputs"),
        (({}, Y), "a tuple without inputs"),
        ((None, Y), "a tuple without inputs"),
        (None, "a NoneType without inputs"),
        ((), "a tuple of 0"),
        ((X, Y, W, W), "a tuple of 4"),
        (dataset(X, Y, W, W), "a tuple of 4"),
        ((X, Y[:3]), "as many samples as labels.*a tuple, of 5 and 3"),
        ([X, X[:3]], "as many samples as labels.*a list, of 5 and 3"),
        ((X, Y, W[:1]), "of 5 and 5 and 1"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), "batches.*single samples"),
        (tf.data.Dataset.range(3), "batches.*single samples"),
        ((_ for _ in [X]), "a function that returns the generator.*Received: a generator"),
        ("data.npy", "arrays x.*a str, which holds an array of type <U8"),
        (3.0, "a float, which holds an array of type float64 and shape ()"),
        (zip([X], [Y], strict=True), "arrays x.*a zip"),
        (iter(dataset(X)), "arrays x"),
        (np.array([{}, {}]), "an array of type object"),
        (np.array([["id 0", 0.5], ["id 1", 2.0]], object), r"type object \(str, float\) and shape"),
        ([[1.0, 2.0], [3.0]], "arrays x"),
        ({"a": X, "b": None}, "a dict, which holds an array of type object"),
        (tf.ragged.constant([[1, 2], [3]]), "a RaggedTensor"),
        (tf.sparse.from_dense(X), "a SparseTensor"),
        (keras.Input((2,)), "a KerasTensor"),
        (keras.layers.Dense(2), "a Dense"),
        (np.ndarray, "a type"),
        (X.astype("complex64"), "real numbers.*a ndarray of complex numbers"),
        ((X, Y.astype("complex128")), "real numbers.*a tuple of complex numbers"),
        ({"a": X, "b": [1j, 2j, 0, 0, 0]}, "real numbers.*a dict of complex numbers"),
        (dataset(X.astype("complex64"), Y), "real numbers.*a dataset of complex numbers"),
    ],
)
def test_data_that_cannot_be_used(data, message):
    with pytest.raises(InputError, match=f"`train`, expected .*{message}"):
        read(data, "train")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: iter([]), f"{EMPTY}. Received: a function without any"),
        (lambda: iter([(X[:0], Y[:0])]), EMPTY),
        (lambda: 3, "a function that returns 3"),
        (lambda: iter([(X, Y[:2])]), "as many samples as labels.*5 and 2"),
        (lambda: iter([(X, Y, W, W)]), "a tuple of 4"),
        (lambda: iter([3.0]), "which holds an array of type float64 and shape ()"),
        (dataset(X, Y).filter(lambda *_: False), f"{EMPTY}. Received: a dataset without any"),
        (dataset(X).map(lambda x: (x, x[:1])), "as many samples as labels.*2 and 1"),
        (tf.data.Dataset.from_tensor_slices((X, X[:, :1])), "as many samples as labels.*2 and 1"),
        (dataset(X).map(tf.sparse.from_dense), "a SparseTensor"),
        (Batches(X, Y, W, W), "a tuple of 4"),
        (Batches(X + 1j, Y), "real numbers.*a Batches of complex numbers"),
        (lambda: iter([(X + 1j, Y)]), "real numbers.*a function of complex numbers"),
        (Batches(X, Y[:3]), "as many samples as labels.*2 and 1"),
    ],
)
def test_data_that_is_wrong_once_it_is_read(data, message):
    data = read(data, "train")
    with pytest.raises(InputError, match=f"`train`, expected .*{message}"):
        list(data.batches())


def test_batches_of_several_structures():
    class Changing(Batches):
        def __getitem__(self, index):
            return ({"a": X} if index else {"b": X}), Y

    for read_all in (read(Changing(), "train").arrays, read(Changing(), "train").dataset):
        with pytest.raises(InputError, match="`train`, expected batches of one structure"):
            read_all()


@pytest.mark.parametrize("dtype", ["U", "S", object])
def test_texts_are_tensors_which_keras_takes(dtype):
    texts = np.array(["a", "bc", "d", "", "é"][: 4 if dtype == "S" else 5]).astype(dtype)
    data = read(({"id": texts, "x": X[: len(texts)]}, Y[: len(texts)]))
    found = data.fit_arguments(2)["x"]["id"]
    assert found.dtype == tf.string
    expected = [each if isinstance(each, bytes) else each.encode() for each in texts]
    assert found.numpy().tolist() == expected
    assert [each for batch in data.batches(2) for each in batch.x["id"].numpy()] == expected


def test_numbers_are_checked_by_name():
    check_numbers({"a": X, "b": [Y, Y > 1]}, "train")
    for inputs, message in [
        ({"a": X, "b": [Y, X * np.inf]}, r"`train`, expected finite numbers.*in x\['b'\]\[1\]"),
        (X * np.nan, "finite numbers. Received: NaN or infinity in x$"),
        ({"a": Y.astype(str)}, r"arrays of numbers.*x\['a'\] of type string"),
    ]:
        with np.errstate(invalid="ignore"), pytest.raises(InputError, match=message):
            check_numbers(inputs, "train")


class Counted:
    """A function that returns a generator of three batches, of which two are the data."""

    def __call__(self):
        return ((np.full((4, 2), i), np.full(4, i)) for i in range(3))

    def __len__(self):
        return 2


def test_generator_functions_of_a_known_length():
    data = read(Counted())
    np.testing.assert_array_equal(data.arrays().y, [0] * 4 + [1] * 4)
    batches = data.fit_arguments(32)["x"]
    assert int(batches.cardinality()) == 2
    assert [y.numpy().tolist() for _, y in batches] == [[0] * 4, [1] * 4]
    with pytest.raises(InputError, match="`__len__`, the number of batches"):
        read(generator).arrays()
