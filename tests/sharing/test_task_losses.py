"""Losses and metrics of tasks by hand: weights, missing labels, masks, uncertainty."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.shared_tasks import (
    HARD,
    LABELS,
    X,
    compiled,
    cross_entropies,
    fitted,
    predict,
    rng,
    shared_model,
)
from tfpeft.core.labels import split_missing
from tfpeft.sharing.weighting import with_class_weights


class TestLoss:
    def losses(self, shared, labels=LABELS):
        outputs = predict(shared)
        return {task: cross_entropies(outputs[task], y) for task, y in labels.items()}

    def evaluated(self, shared, labels=LABELS, **options):
        return shared.evaluate(X, labels, batch_size=24, verbose=0, return_dict=True, **options)

    def test_weights_of_tasks_and_samples(self):
        shared = compiled(
            shared_model(), loss_weights={"zoo": 2.0, "age": 0.5}, metrics=["accuracy"]
        )
        values = self.losses(shared)
        found = self.evaluated(shared)
        expected = {task: each.mean() for task, each in values.items()}
        assert found["zoo_loss"] == pytest.approx(expected["zoo"], abs=1e-6)
        assert found["loss"] == pytest.approx(2 * expected["zoo"] + 0.5 * expected["age"], abs=1e-6)
        outputs = predict(shared)
        for task, y in LABELS.items():
            accuracy = np.mean(outputs[task].argmax(axis=1) == y)
            assert found[f"{task}_accuracy"] == pytest.approx(accuracy)
        weights = {task: rng.random(24).astype("float32") for task in LABELS}
        found = self.evaluated(shared, sample_weight=weights)
        mean = {task: np.mean(weights[task] * each) for task, each in values.items()}
        assert found["loss"] == pytest.approx(2 * mean["zoo"] + 0.5 * mean["age"], abs=1e-6)

    def test_short_names_of_keras(self):
        keras.utils.set_random_seed(0)
        heads = {"zoo": keras.layers.Dense(3, "softmax"), "age": keras.layers.Dense(1, "sigmoid")}
        shared = compiled(shared_model(heads), loss="ce", metrics=["ACC"])
        labels = {**LABELS, "zoo": np.where(np.arange(24) % 3, LABELS["zoo"], -1)}
        found, outputs = self.evaluated(shared, labels), predict(shared)
        present = labels["zoo"] >= 0
        chosen = outputs["zoo"][np.arange(24), LABELS["zoo"]]
        assert found["zoo_loss"] == pytest.approx(-np.log(chosen[present]).mean(), rel=1e-5)
        age, is_one = outputs["age"][:, 0], LABELS["age"] == 1
        mean = -np.log(np.where(is_one, age, 1 - age)).mean()
        assert found["age_loss"] == pytest.approx(mean, rel=1e-5)
        right = (outputs["zoo"].argmax(axis=1) == LABELS["zoo"])[present]
        assert found["zoo_ACC"] == pytest.approx(right.mean())
        assert found["age_ACC"] == pytest.approx(((age > 0.5) == is_one).mean())

    def test_missing_labels_count_in_nothing(self):
        labels = {task: y.copy() for task, y in LABELS.items()}
        labels["zoo"][5:20] = -1
        present = labels["zoo"] >= 0
        for zoo in (labels["zoo"], np.where(present, labels["zoo"], np.nan).astype("float32")):
            shared = compiled(shared_model(), metrics=["accuracy"])
            values, outputs = self.losses(shared), predict(shared)
            found = self.evaluated(shared, {**labels, "zoo": zoo})
            mean = values["zoo"][present].mean()
            assert found["zoo_loss"] == pytest.approx(mean, abs=1e-6)
            assert found["loss"] == pytest.approx(mean + values["age"].mean(), abs=1e-6)
            right = outputs["zoo"].argmax(axis=1) == labels["zoo"]
            assert found["zoo_accuracy"] == pytest.approx(right[present].mean())
            # In batches of which some have no label at all, too.
            by_batch = shared.evaluate(
                X, {**labels, "zoo": zoo}, batch_size=4, verbose=0, return_dict=True
            )
            for key, value in found.items():
                assert by_batch[key] == pytest.approx(value, abs=1e-5), key

    def test_samples_without_a_label_do_not_train(self):
        labels = {"zoo": np.full(24, -1), "age": LABELS["age"]}
        shared = compiled(shared_model(), keras.optimizers.SGD(0.1), run_eagerly=True)
        before = shared.parts["zoo"].head.get_weights()
        fitted(shared, y=labels)
        for old, weight in zip(before, shared.parts["zoo"].head.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_regression_one_hot_and_binary_labels(self):
        one_hot = np.eye(3, dtype="float32")[LABELS["zoo"]]
        one_hot[3] = np.nan
        numbers = rng.normal(size=(24, 2)).astype("float32")
        numbers[4, 1] = np.nan  # all of a row must be present
        binary = LABELS["age"].astype("float32")
        binary[7:9] = np.nan
        heads = {"hot": 3, "numbers": keras.layers.Dense(2), "binary": keras.layers.Dense(1)}
        shared = shared_model(heads)
        loss = {
            "hot": keras.losses.CategoricalCrossentropy(from_logits=True),
            "numbers": "mse",
            "binary": keras.losses.BinaryCrossentropy(from_logits=True),
        }
        metrics = {"hot": ["accuracy"], "numbers": [keras.metrics.MeanAbsoluteError()]}
        shared.compile("sgd", loss, metrics=metrics)
        labels = {"hot": one_hot, "numbers": numbers, "binary": binary}
        found, outputs = self.evaluated(shared, labels), predict(shared)
        present = {task: ~np.isnan(y.reshape(24, -1)).any(axis=1) for task, y in labels.items()}
        hot = cross_entropies(outputs["hot"], LABELS["zoo"])[present["hot"]].mean()
        errors = (outputs["numbers"] - numbers)[present["numbers"]]
        z, y = outputs["binary"][present["binary"], 0], binary[present["binary"]]
        entropy = np.mean(np.log1p(np.exp(-z)) + (1 - y) * z)
        assert found["hot_loss"] == pytest.approx(hot, abs=1e-5)
        assert found["numbers_loss"] == pytest.approx(np.mean(errors**2), abs=1e-5)
        assert found["numbers_mean_absolute_error"] == pytest.approx(
            np.abs(errors).mean(), abs=1e-5
        )
        assert found["binary_loss"] == pytest.approx(entropy, abs=1e-5)
        right = outputs["hot"].argmax(axis=1) == LABELS["zoo"]
        assert found["hot_accuracy"] == pytest.approx(right[present["hot"]].mean())
        fitted(shared, y=labels)
        assert all(np.all(np.isfinite(weight)) for weight in shared.get_weights())

    def test_class_weights_by_hand(self):
        shared = compiled(shared_model(), keras.optimizers.SGD(0.0))
        weights = np.where(LABELS["zoo"] == 2, 5.0, 1.0) * np.where(LABELS["zoo"] == 0, 0.5, 1.0)
        values = self.losses(shared)
        expected = np.mean(weights * values["zoo"]) + values["age"].mean()
        history = shared.fit(
            X,
            LABELS,
            batch_size=24,
            class_weight={"zoo": {2: 5.0, 0: 0.5}},
            verbose=0,
        )
        assert history.history["loss"][0] == pytest.approx(expected, abs=1e-5)
        sample_weight = {task: rng.random(24) for task in LABELS}
        history = shared.fit(
            X,
            LABELS,
            sample_weight=sample_weight,
            batch_size=24,
            class_weight={"zoo": {2: 5.0, 0: 0.5}},
            verbose=0,
        )
        expected = np.mean(weights * sample_weight["zoo"] * values["zoo"])
        expected += np.mean(sample_weight["age"] * values["age"])
        assert history.history["loss"][0] == pytest.approx(expected, abs=1e-5)
        history = fitted(shared, batch_size=24).history.history  # only that call has them
        total = values["zoo"].mean() + values["age"].mean()
        assert history["loss"][0] == pytest.approx(total, abs=1e-5)

    def test_class_weights_of_one_hot_labels_and_of_tokens(self):
        y = {
            "numbers": tf.constant([[2], [0]], tf.uint8),
            "hot": tf.constant([[0, 1], [1, 0]]),
            "binary": tf.constant([[1.0], [0.0]]),
            "tokens": tf.constant([[0, 1, 1], [2, 0, 1]]),
        }
        shapes = {"numbers": (2, 3), "hot": (2, 2), "binary": (2, 1), "tokens": (2, 3, 3)}
        outputs = {task: tf.zeros(shape) for task, shape in shapes.items()}
        given = {"numbers": {2: 3.0}, "hot": {0: 4.0}, "binary": {1: 6.0}}
        found = with_class_weights(y, outputs, tf.constant([1.0, 0.5]), given)
        assert found["numbers"].numpy().tolist() == [3.0, 0.5]
        assert found["hot"].numpy().tolist() == [1.0, 2.0]
        assert found["binary"].numpy().tolist() == [6.0, 0.5]
        assert found["tokens"].numpy().tolist() == [[1.0] * 3, [0.5] * 3]
        found = with_class_weights(y, outputs, None, {"tokens": {1: 7.0}})
        assert found["tokens"].numpy().tolist() == [[1, 7, 7], [1, 1, 7]]

    @pytest.mark.parametrize("loss", ["binary_crossentropy", keras.losses.binary_crossentropy])
    @pytest.mark.parametrize("shape", [(24,), (24, 1)])
    def test_losses_by_name_and_function(self, loss, shape):
        head = keras.layers.Dense(1, activation="sigmoid")
        shared = shared_model({"age": head})
        shared.compile("sgd", loss, metrics=["accuracy"])
        y = LABELS["age"].reshape(shape)
        found = self.evaluated(shared, {"age": y})
        outputs = predict(shared)["age"][:, 0]
        right = np.where(LABELS["age"] == 1, outputs, 1 - outputs)
        assert found["loss"] == pytest.approx(-np.log(right).mean(), abs=1e-5)
        assert found["accuracy"] == pytest.approx(np.mean((outputs > 0.5) == LABELS["age"]))
        with pytest.raises(ValueError, match="expected 0 to 1 for the task age.*7 to 7"):
            self.evaluated(shared, {"age": np.full(shape, 7)})

    def test_a_number_per_token(self):
        model = keras.Sequential([keras.Input((4, 6)), keras.layers.Dense(5)])
        shared = tfpeft.SharedModel(model, {"height": keras.layers.Dense(1)})
        shared.compile("sgd", "mse", metrics=["mae"])
        x, y = rng.normal(size=(8, 4, 6)).astype("float32"), rng.normal(size=(8, 4))
        y[2, 1] = np.nan
        found = shared.evaluate(x, {"height": y}, verbose=0, return_dict=True)
        errors = (predict(shared, x)["height"][..., 0] - y)[~np.isnan(y)]
        assert found["loss"] == pytest.approx(np.mean(errors**2), abs=1e-5)
        assert found["mae"] == pytest.approx(np.mean(np.abs(errors)), abs=1e-5)

    def test_a_task_without_labels_keeps_its_learned_weight(self):
        shared = compiled(shared_model(learn_task_weights=True), run_eagerly=True)
        fitted(shared, y={**LABELS, "age": np.full(24, -1)})
        assert shared.task_weights["age"] == 1.0
        assert shared.task_weights["zoo"] != 1.0

    def test_unsigned_class_numbers_are_never_missing(self):
        labels, outputs = tf.constant([255, 0], tf.uint8), tf.zeros((2, 256))
        cleaned, present = split_missing(labels, outputs, HARD)
        assert cleaned.numpy().tolist() == [255, 0]
        assert present.numpy().tolist() == [True, True]

    def test_targets_of_a_custom_loss_are_no_class_numbers(self):
        def error(y, quantiles):
            return keras.ops.mean(keras.ops.abs(quantiles - y), -1)

        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        shared = tfpeft.SharedModel(model, {"size": 3})
        shared.compile("sgd", error, metrics=[error], run_eagerly=True)
        x, y = np.ones((4, 2), "float32"), np.array([[-1.0], [-14.0], [2.5], [16.0]])
        found = shared.evaluate(x, {"size": y}, verbose=0, return_dict=True)
        expected = np.mean(np.abs(shared(x)["size"] - y))
        np.testing.assert_allclose([found["loss"], found["error"]], expected, rtol=1e-5)

    def test_losses_and_classes_as_metrics(self):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="nats")
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        shared = tfpeft.SharedModel(model, {"size": 3})
        metrics = [keras.metrics.SparseCategoricalAccuracy, loss]
        shared.compile("sgd", loss, metrics=metrics, run_eagerly=True)
        x, y = np.ones((5, 2), "float32"), np.array([0, 1, -1, 2, 2])
        found = shared.evaluate(x, {"size": y}, batch_size=2, verbose=0, return_dict=True)
        np.testing.assert_allclose(found["nats"], found["loss"], rtol=1e-5)
        assert found["sparse_categorical_accuracy"] in (0.25, 0.5)

    def test_uncertainty_weights_by_hand(self):
        heads = {"zoo": 3, "numbers": keras.layers.Dense(2)}
        shared = shared_model(heads, learn_task_weights=True)
        rate = 0.25
        shared.compile(keras.optimizers.SGD(rate), {"zoo": HARD, "numbers": "mse"})
        for variable, value in zip(shared._log_variances.values(), (0.3, -0.4), strict=True):
            variable.assign(value)
        numbers = rng.normal(size=(24, 2)).astype("float32")
        labels, outputs = {"zoo": LABELS["zoo"], "numbers": numbers}, predict(shared)
        zoo = cross_entropies(outputs["zoo"], LABELS["zoo"]).mean()
        squares = np.mean((outputs["numbers"] - numbers) ** 2)
        found = self.evaluated(shared, labels)
        expected = np.exp(-0.3) * zoo + 0.15 + 0.5 * np.exp(0.4) * squares - 0.2
        assert found["loss"] == pytest.approx(expected, abs=1e-5)
        assert found["zoo_loss"] == pytest.approx(zoo, abs=1e-5)
        assert found["numbers_loss"] == pytest.approx(squares, abs=1e-5)
        shared.fit(X, labels, batch_size=24, verbose=0)
        # ds = -exp(-s) L + 1/2, of squared errors with half of L
        steps = {
            "zoo": 0.3 - rate * (0.5 - np.exp(-0.3) * zoo),
            "numbers": -0.4 - rate * (0.5 - 0.5 * np.exp(0.4) * squares),
        }
        for task, value in steps.items():
            assert float(shared._log_variances[task]) == pytest.approx(value, abs=1e-5)
            assert shared.task_weights[task] == pytest.approx(np.exp(-value), abs=1e-5)

    def test_evaluation_of_a_mix_equals_that_of_each_task(self):
        data = {"zoo": (X[:7], LABELS["zoo"][:7]), "age": (X, LABELS["age"])}
        shared = compiled(shared_model(), metrics=["accuracy"])
        mixed = tfpeft.mix_tasks(data, sampling=None, batch_size=8)
        found = shared.evaluate(mixed, verbose=0, return_dict=True)
        total = 0.0
        for task, (x, y) in data.items():
            model = compiled(shared.task(task), metrics=["accuracy"])
            alone = model.evaluate(x, y, verbose=0, return_dict=True)
            for key, value in alone.items():
                assert found[f"{task}_{key}"] == pytest.approx(value, abs=1e-5)
            total += alone["loss"]
        assert found["loss"] == pytest.approx(total, abs=1e-5)

    def test_masked_tokens_count_in_nothing(self):
        x = rng.integers(1, 9, (4, 6))
        x[:, 4:] = 0
        inputs = keras.Input((6,), dtype="int32")
        model = keras.Model(inputs, keras.layers.Embedding(9, 5, mask_zero=True)(inputs))
        shared = compiled(tfpeft.SharedModel(model, {"tags": 3}), metrics=["accuracy"])
        labels = rng.integers(0, 3, (4, 6))
        labels[0, 1] = -1
        present = (x != 0) & (labels >= 0)
        outputs = predict(shared, x)["tags"][present]
        found = shared.evaluate(x, {"tags": labels}, verbose=0, return_dict=True)
        expected = cross_entropies(outputs, labels[present]).mean()
        assert found["loss"] == pytest.approx(expected, abs=1e-5)

    def test_regularisation_counts(self):
        heads = {"zoo": keras.layers.Dense(3, kernel_regularizer=keras.regularizers.L2(0.1))}
        shared = compiled(shared_model(heads))
        labels = {"zoo": LABELS["zoo"]}
        penalty = 0.1 * np.sum(shared.parts["zoo"].head.kernel.numpy() ** 2)
        expected = self.losses(shared, labels)["zoo"].mean() + penalty
        assert self.evaluated(shared, labels)["loss"] == pytest.approx(expected, abs=1e-5)

    def test_custom_metrics_are_separate_for_each_task(self):
        metrics = {"age": [keras.metrics.AUC(from_logits=True, name="auc")]}
        heads = {"zoo": 3, "age": keras.layers.Dense(1)}
        loss = {"zoo": HARD, "age": keras.losses.BinaryCrossentropy(from_logits=True)}
        shared = compiled(shared_model(heads), loss=loss, metrics=metrics)
        found = self.evaluated(shared)
        auc = keras.metrics.AUC(from_logits=True)
        auc.update_state(LABELS["age"], predict(shared)["age"][:, 0])
        assert found["age_auc"] == pytest.approx(float(auc.result()))
        assert "zoo_auc" not in found
        top = keras.metrics.SparseTopKCategoricalAccuracy(2, name="top")
        shared = compiled(shared_model(), metrics=[top], weighted_metrics=["accuracy"])
        weights = {task: (LABELS[task] == 1).astype("float32") for task in LABELS}
        found = self.evaluated(shared, sample_weight=weights)
        outputs = predict(shared)
        assert found["age_top"] == 1.0
        assert found["zoo_top"] < 1.0
        right = outputs["zoo"].argmax(axis=1)[LABELS["zoo"] == 1] == 1
        assert found["zoo_accuracy"] == pytest.approx(right.mean())
