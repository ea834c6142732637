"""Values for tasks are checked one by one, before training; the error names the task."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.shared_tasks import HARD, LABELS, X, compiled, shared_model
from tfpeft import InputError


@pytest.fixture(scope="module")
def shared():
    return compiled(shared_model())


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 0.0], r"`loss_weights`, expected a number >= 0, or {task: number}.*\[1.0, 0.0\]$"),
        (np.ones(2), "`loss_weights`, expected a number"),
        (np.nan, "`loss_weights`, expected a number"),
        ({"zoo": np.nan, "age": 1.0}, r"`loss_weights\['zoo'\]`, expected a number >= 0.*nan$"),
        ({"zoo": 1.0, "age": -1}, r"`loss_weights\['age'\]`, expected a number >= 0.*-1$"),
        ({"zoo": 1.0, "age": True}, r"`loss_weights\['age'\]`.*True$"),
        ({"zoo": 1.0, "age": "1"}, r"`loss_weights\['age'\]`.*'1'$"),
        ({"zoo": 1.0, "age": None}, r"`loss_weights\['age'\]`.*None$"),
        ({"zoo": 1.0, "age": np.inf}, r"`loss_weights\['age'\]`.*inf$"),
        ({"zoo": 1.0, "age": 1.0, 3: 1.0}, "`loss_weights`, expected a value for each of the"),
    ],
)
def test_weights_of_losses(weights, message):
    with pytest.raises(InputError, match=message):
        shared_model().compile("adam", HARD, loss_weights=weights)


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("loss", {"zoo": HARD, "age": "nope"}, "`loss`, .* for the task age. .*'nope'"),
        ("loss", keras.layers.ReLU, "`loss`, expected a loss for the task zoo"),
        ("loss", keras.metrics.Mean(), "`loss`, expected a loss for the task zoo"),
        ("metrics", {"age": ["nope"]}, r"`metrics\['age'\]`, expected metrics.*'nope'"),
        ("metrics", [keras.layers.ReLU], "`metrics`, expected metrics"),
        ("weighted_metrics", {"age": 3}, r"`weighted_metrics\['age'\]`, .*3$"),
        ("weighted_metrics", {3: ["accuracy"]}, "`weighted_metrics`, expected keys among"),
    ],
)
def test_losses_and_metrics(argument, value, message):
    with pytest.raises(InputError, match=message):
        shared_model().compile("adam", **{"loss": HARD, argument: value})


def test_one_weight_for_all_tasks():
    results = []
    for weights in (2.0, {"zoo": 2, "age": 2}):
        model = compiled(shared_model(), loss_weights=weights, run_eagerly=True)
        results.append(model.test_on_batch(X, LABELS, return_dict=True))
    assert results[0] == results[1]
    tasks = results[0]["zoo_loss"] + results[0]["age_loss"]
    np.testing.assert_allclose(results[0]["loss"], 2.0 * tasks, rtol=1e-5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"zoo": {3: 1.0}}, r"`class_weight\['zoo'\]`, expected class numbers from 0 to 2"),
        ({"age": {2: 1.0}}, r"`class_weight\['age'\]`, expected class numbers from 0 to 1"),
        ({"age": {True: 1.0}}, "`class_weight`, expected {task: {class number"),
        ({"age": {1: True}}, "`class_weight`, expected {task: {class number"),
        ({"age": {1: np.nan}}, "`class_weight`, expected {task: {class number"),
    ],
)
def test_weights_of_classes(shared, weights, message):
    before = shared.get_weights()
    for method in (shared.fit, shared.train_on_batch):
        with pytest.raises(InputError, match=message):
            method(X, LABELS, class_weight=weights)
    for old, weight in zip(before, shared.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.parametrize(
    ("age", "message"),
    [
        (LABELS["age"] + 1, "expected 0 to 1 for the task age. Received: 1 to"),
        (np.eye(2)[LABELS["age"]], "labels for the task age that suit .*class"),
        (None, "labels of the task age. Received: none"),
        (np.where(LABELS["age"], np.inf, 0.0), "finite labels for the task age"),
        (LABELS["age"] + 0.5, "whole class numbers .* the task age"),
        (LABELS["age"] + 1j, "labels for the task age. Received: .*complex"),
    ],
)
def test_labels_of_single_batches(shared, age, message):
    for method in (shared.train_on_batch, shared.test_on_batch):
        with pytest.raises(InputError, match=message) as raised:
            method(X, {**LABELS, "age": age})
        assert "\n" not in str(raised.value)


def test_weights_of_samples_of_some_tasks(shared):
    with pytest.raises(InputError, match="`sample_weight`, expected .*zoo, age. Received: zoo$"):
        shared.fit(X, LABELS, sample_weight={"zoo": np.ones(24)}, verbose=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learn_task_weights": "no"}, "`learn_task_weights`, expected True or False"),
        ({"unfreeze": 3}, "`unfreeze`, expected a list or tuple of names"),
        ({"unfreeze": ["last", 3]}, "`unfreeze`, expected a list or tuple of names"),
        ({"output": 0}, "`output`, expected None, as there is one"),
        ({"output": True}, "`output`, expected the key or index"),
        ({"name": "a/b"}, "`name`, expected a name"),
        ({"pooling": np.ones(2)}, "`pooling`, expected one of"),
        (
            {"heads": {"zoo": keras.layers.Conv2D(3, 3)}},
            r"`heads\['zoo'\]`, expected a head for outputs of the backbone of shape \(None, 5\)",
        ),
        ({"heads": {"zoo": 2**32}}, r"`heads\['zoo'\]`, expected a layer, a model, or a number"),
    ],
)
def test_construction(options, message):
    with pytest.raises(InputError, match=message) as raised:
        shared_model(**{"heads": {"zoo": 3}, **options})
    assert "\n" not in str(raised.value)


class TestNames:
    """A dict of inputs is matched by name, a list by position."""

    a, b = X[:, :4], X[:, 2:]

    @pytest.fixture(scope="class", params=[list, dict])
    def two_inputs(self, request):
        keras.utils.set_random_seed(0)
        inputs = {name: keras.Input((4,), name=name) for name in ("b", "a")}
        joined = keras.layers.Concatenate()([inputs["a"], 2.0 * inputs["b"]])
        structure = inputs if request.param is dict else list(inputs.values())
        model = keras.Model(structure, keras.layers.Dense(5)(joined))
        return compiled(tfpeft.SharedModel(model, {"zoo": 3, "age": 2})), model

    def assert_right(self, logits, shared, model):
        dense, head = model.layers[-1], shared.parts["zoo"].head
        hidden = np.concatenate([self.a, 2.0 * self.b], axis=1) @ dense.kernel + dense.bias
        expected = hidden @ head.kernel + head.bias
        np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)

    def test_a_dict_in_any_order(self, two_inputs):
        shared, model = two_inputs
        for x in ({"a": self.a, "b": self.b}, {"b": self.b, "a": self.a}):
            self.assert_right(shared(x)["zoo"], shared, model)
            self.assert_right(shared.task("zoo")(x), shared, model)

    def test_tasks_with_inputs_in_other_orders(self, two_inputs):
        shared, model = two_inputs
        data = {
            "zoo": ({"a": self.a, "b": self.b}, LABELS["zoo"]),
            "age": ({"b": self.b, "a": self.a}, LABELS["age"]),
        }
        mixed = next(iter(tfpeft.mix_tasks(data, sampling=None, batch_size=48)))
        together = shared(mixed[0])
        self.assert_right(together["zoo"], shared, model)
        alone = shared(data["age"][0])["age"]
        np.testing.assert_allclose(together["age"], alone, rtol=1e-4, atol=1e-5)
        joined = tfpeft.precompute(shared.encoder, data["age"][0]).join(data["zoo"][0])
        self.assert_right(shared(joined[0])["zoo"], shared, model)

    def test_a_list_by_position(self, two_inputs):
        shared, model = two_inputs
        if isinstance(shared.encoder.input_structure, dict):
            with pytest.raises(InputError, match="a dict of b, a"):
                shared([self.b, self.a])
        else:
            self.assert_right(shared([self.b, self.a])["zoo"], shared, model)

    @pytest.mark.parametrize(
        "x",
        [{"a": a}, {"a": a, "c": b}, [a], [a, b, b], a, {"a": a, "b": X}],
        ids=["missing", "unknown", "one", "three", "array", "shape"],
    )
    def test_what_does_not_match(self, two_inputs, x):
        shared, _ = two_inputs
        for method in (shared.predict, shared.evaluate):
            with pytest.raises(InputError, match="`x`, expected (2 in|a dict|b of)") as raised:
                method(x, verbose=0)
            assert "\n" not in str(raised.value)
