"""What a SharedModel does not take: its construction, compilation and data."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.shared_tasks import (
    HARD,
    LABELS,
    X,
    compiled,
    fitted,
    pretrained,
    shared_model,
)
from tfpeft.core.arguments import InputError


class TestBadInput:
    @pytest.fixture(scope="class")
    def shared(self):
        return compiled(shared_model())

    @pytest.mark.parametrize("bad", [None, 3, "encoder"])
    def test_a_task_model_of_other_parts(self, shared, bad):
        with pytest.raises(ValueError, match="`encoder`, expected the `encoder` of a SharedModel"):
            tfpeft.TaskModel(bad, next(iter(shared.parts.values())))
        with pytest.raises(ValueError, match="`part`, expected one of the `parts`"):
            tfpeft.TaskModel(shared.encoder, bad)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"backbone": "bert"}, "`backbone`, expected a keras.Model that is built"),
            ({"backbone": keras.Sequential([keras.layers.Dense(2)])}, "`backbone`, expected"),
            ({"heads": {}}, "`heads`, expected {task: layer, model or number of classes}"),
            ({"heads": {"zoo": None}}, r"heads\['zoo'\]`, expected a layer, a model, or a number"),
            ({"heads": {"zoo": 0}}, r"heads\['zoo'\]`, expected a layer"),
            ({"heads": {"a/b": 2}}, "`task`, expected a name of letters"),
            ({"heads": {"größe": 2}}, "`task`, expected a name of letters"),
            ({"adapters": "lora"}, "`adapters`, expected LoRA"),
            ({"adapters": {"hue": tfpeft.BitFit()}}, "`adapters`.*zoo.*Received.*hue"),
            ({"adapters": tfpeft.LoRA(target="hiden")}, "`target`.*such as hidden.*'hiden'"),
            ({"unfreeze": "lost"}, "`unfreeze`, expected names or patterns.*last.*'lost'"),
            ({"pooling": "max"}, "`pooling`, expected one of None, 'mean', 'first'"),
            ({"pooling": "mean"}, r"`pooling`, expected None for a backbone with outputs \(None"),
            ({"output": "pooled"}, "`output`, expected None, as there is one"),
        ],
    )
    def test_construction(self, arguments, message):
        arguments = {"backbone": pretrained(), "heads": {"zoo": 3}, **arguments}
        with pytest.raises(ValueError, match=message):
            tfpeft.SharedModel(arguments.pop("backbone"), arguments.pop("heads"), **arguments)

    def test_one_head_for_two_tasks(self):
        head = keras.layers.Dense(2)
        with pytest.raises(ValueError, match=r"heads\['b'\]`, expected a head that no other"):
            shared_model({"a": head, "b": head})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": {"zoo": HARD}}, "`loss`, expected a value for each of the tasks zoo, age"),
            ({"loss": {"zoo": HARD, "age": None}}, "`loss`, expected a loss for the task age"),
            ({"loss": [HARD, HARD]}, "`loss`, expected a loss for the task zoo"),
            ({"loss_weights": {"zoo": 1.0}}, "`loss_weights`, expected a value for each"),
            ({"metrics": {"hue": ["accuracy"]}}, "`metrics`, expected keys among.*'hue'"),
        ],
    )
    def test_compilation(self, options, message):
        with pytest.raises(ValueError, match=message):
            shared_model().compile("adam", **{"loss": HARD, **options})

    def test_two_ways_to_weigh(self):
        with pytest.raises(ValueError, match="`loss_weights`, expected None with learn_task"):
            compiled(shared_model(learn_task_weights=True), loss_weights={"zoo": 1, "age": 1})

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"zoo": LABELS["zoo"]}, "labels of every task, a dict of zoo, age. Received: zoo"),
            (LABELS["zoo"], "labels of every task, a dict of zoo, age"),
            ({**LABELS, "hue": LABELS["zoo"]}, "labels of every task.*Received: zoo, age, hue"),
            ({**LABELS, "age": LABELS["zoo"]}, "expected 0 to 1 for the task age. .*0 to 2"),
            ({**LABELS, "zoo": LABELS["zoo"] - 2}, "expected 0 to 2 for the task zoo. .*-2 to 0"),
        ],
    )
    def test_data(self, shared, labels, message):
        before = shared.get_weights()
        with pytest.raises(ValueError, match=message):
            shared.fit(X, labels, batch_size=24, verbose=0)
        with pytest.raises(ValueError, match=message):
            shared.evaluate(X, labels, batch_size=24, verbose=0)
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    @pytest.mark.parametrize(
        "options",
        [{"run_eagerly": True}, {"jit_compile": "auto"}, {"steps_per_execution": 2}],
    )
    def test_labels_are_checked_however_it_runs(self, options):
        shared = compiled(shared_model(), **options)
        assert not shared.jit_compile  # XLA cannot compile the check
        before = shared.get_weights()
        message = "expected 0 to 1 for the task age. Received: 5 to 6$"
        with pytest.raises(InputError, match=message):
            shared.fit(X, {**LABELS, "age": LABELS["age"] + 5}, batch_size=12, verbose=0)
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_labels_are_checked_on_every_replica(self, mirrored):
        with mirrored.scope():
            shared = compiled(shared_model(), keras.optimizers.SGD(0.1))
        before = shared.get_weights()
        labels = {**LABELS, "age": np.where(np.arange(24) < 20, LABELS["age"], 7)}
        with pytest.raises(InputError, match="for the task age. Received: [01] to 7$"):
            shared.fit(X, labels, batch_size=24, verbose=0)  # the second replica's
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_a_model_trains_after_bad_data(self):
        shared = compiled(shared_model())
        for labels in ({"zoo": LABELS["zoo"]}, {**LABELS, "age": LABELS["zoo"]}):
            with pytest.raises(InputError):
                shared.fit(X, labels, batch_size=24, verbose=0)
        fitted(shared, batch_size=24)

    def test_xla_trains_without_the_check(self):
        shared = compiled(shared_model(), jit_compile=True)
        before = [variable.numpy() for variable in shared.trainable_variables]
        fitted(shared, batch_size=24)
        for values, variable in zip(before, shared.trainable_variables, strict=True):
            assert np.all(np.isfinite(variable))
            assert np.any(variable.numpy() != values)

    def test_one_of_several_outputs_must_be_named(self):
        inputs = keras.Input((4, 6))
        hidden = keras.layers.Dense(5)(inputs)
        model = keras.Model(inputs, {"sequence_output": hidden, "pooled_output": hidden[:, 0]})
        with pytest.raises(ValueError, match="`pooling`, expected .* among .*'pooled_output'"):
            tfpeft.SharedModel(model, {"a": 2})
        shared = tfpeft.SharedModel(model, {"a": np.int64(2)}, output="pooled_output")
        found = tfpeft.evaluate(shared, (np.zeros((2, 4, 6), "float32"), np.zeros(2, int)))
        assert (found.task, found.accuracy) == ("classification", 1.0)  # equal logits: the first

    def test_a_task_without_data_in_a_mix(self, shared):
        mixed = tfpeft.mix_tasks({"zoo": (X, LABELS["zoo"])})
        with pytest.raises(ValueError, match="of every task, a dict of zoo, age. Received: zoo"):
            shared.fit(mixed, verbose=0)

    def test_binary_labels_out_of_range(self):
        shared = shared_model({"age": keras.layers.Dense(1)})
        shared.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        with pytest.raises(ValueError, match="expected 0 to 1 for the task age.*0 to 2"):
            shared.fit(X, {"age": LABELS["zoo"]}, batch_size=24, verbose=0)

    @pytest.mark.parametrize(
        "weights",
        [{"hue": {0: 1.0}}, {0: 2.0}, [1.0], {"zoo": {"2": 1.0}}, {"zoo": {0: -1.0}}],
    )
    def test_class_weights(self, shared, weights):
        with pytest.raises(ValueError, match="`class_weight`, expected {task: {class number: we"):
            fitted(shared, class_weight=weights)

    def test_unknown_tasks_and_names_that_are_taken(self, tmp_path):
        shared = shared_model()
        with pytest.raises(ValueError, match="`task`, expected one of zoo, age. .*'hue'"):
            shared.task("hue")
        with pytest.raises(ValueError, match="`task`, expected one of zoo, age. .*'hue'"):
            shared.save_task("hue", tmp_path / "hue.weights.h5")
        with pytest.raises(ValueError, match="`task`, expected a new name, none of zoo, age"):
            shared.add_task("zoo", 2)
        with pytest.raises(ValueError, match="`target`"):
            shared.add_task("hue", 2, adapter=tfpeft.LoRA(target="nothing"))
        assert shared.tasks == ("zoo", "age")
        assert not list(tmp_path.iterdir())

    def test_a_loss_is_needed(self):
        shared = shared_model()
        shared.compile("adam")
        with pytest.raises(ValueError, match="Expected a `loss` in compile"):
            fitted(shared)
