"""What a Distiller compares: outputs of every kind, by name and at every position."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.distillation.runs import (
    HARD,
    X,
    Y,
    distiller_of,
    kl,
    loss_of,
    mlp,
    predict,
    rng,
    softmax,
)


class TestOutputs:
    def test_dict_of_classes_and_numbers_with_weights(self):
        def two_headed(units):
            inputs = keras.Input((5,))
            hidden = keras.layers.Dense(units, activation="relu")(inputs)
            return keras.Model(
                inputs,
                {
                    "kind": keras.layers.Dense(3, activation="softmax")(hidden),
                    "size": keras.layers.Dense(1)(hidden),
                },
            )

        teacher, student = two_headed(9), two_headed(4)
        distiller = distiller_of(
            teacher,
            student,
            loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
            metrics={"kind": ["accuracy"]},
            alpha=0.25,
            temperature=2.0,
            distillation_losses=[
                tfpeft.SoftLabels(output="kind"),
                tfpeft.SquaredError(output="size", weight=0.5),
            ],
        )
        size = rng.normal(size=(24, 1)).astype("float32")
        weights = {"kind": rng.uniform(size=24), "size": rng.uniform(size=24)}
        labels = {"kind": Y, "size": size}
        found = loss_of(distiller, X, labels, sample_weight=weights)

        t, s = (predict(model, X) for model in (teacher, student))
        soft = [softmax(np.log(each["kind"].astype("float64")) / 2.0) for each in (t, s)]
        hard = np.mean(weights["kind"] * -np.log(s["kind"][np.arange(24), Y]))
        hard += np.mean(weights["size"] * np.square(s["size"] - size)[:, 0])
        soft = np.mean(weights["kind"] * 4.0 * kl(*soft))
        squares = np.mean(weights["size"] * np.square(t["size"] - s["size"])[:, 0])
        np.testing.assert_allclose(found["hard_loss"], hard, rtol=1e-5)
        np.testing.assert_allclose(found["soft_labels"], soft, rtol=1e-5)
        np.testing.assert_allclose(found["squared_error"], squares, rtol=1e-5)
        expected = 0.25 * hard + 0.75 * (soft + 0.5 * squares)
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
        assert distiller.fit(X, labels, sample_weight=weights, epochs=2, verbose=0)

    def test_every_output_by_default(self):
        def two_headed():
            inputs = keras.Input((5,))
            sigmoid = keras.layers.Dense(2, activation="sigmoid")(inputs)
            return keras.Model(inputs, [keras.layers.Dense(3)(inputs), sigmoid])

        distiller = distiller_of(
            two_headed(), two_headed(), loss=[HARD, "binary_crossentropy"], alpha=0.0
        )
        found = [(type(loss).__name__, loss.output) for loss in distiller.distillation_losses]
        assert found == [("SoftLabels", 0), ("BinarySoftLabels", 1)]
        yes = rng.integers(0, 2, (24, 2))
        found = loss_of(distiller, X, [Y, yes])
        total = found["soft_labels"] + found["binary_soft_labels"]
        np.testing.assert_allclose(found["loss"], total, rtol=1e-5)

    @pytest.mark.parametrize("weights", ["none", "samples", "positions"])
    def test_a_class_for_every_position_with_masks(self, weights):
        def tagger(units):
            inputs = keras.Input((None,), dtype="int32")
            words = keras.layers.Embedding(
                10, units, embeddings_initializer="random_normal", mask_zero=True, name="words"
            )
            hidden = words(inputs)
            words.embeddings.assign(20.0 * words.embeddings)
            hidden = keras.layers.Dense(units, activation="tanh", name="tokens")(hidden)
            return keras.Model(inputs, keras.layers.Dense(3)(hidden))

        tokens = rng.integers(1, 10, (24, 6))
        for row, length in enumerate(rng.integers(1, 7, 24)):
            tokens[row, length:] = 0
        tags = rng.integers(0, 3, (24, 6))
        weight = {
            "none": None,
            "samples": rng.uniform(0.5, 1.5, 24),
            "positions": rng.uniform(0.5, 1.5, (24, 6)),
        }[weights]
        teacher, student = tagger(8), tagger(4)
        layers = {"teacher_layer": "tokens", "student_layer": "tokens"}
        distiller = distiller_of(
            teacher,
            student,
            alpha=0.0 if weights == "samples" else 0.3,  # Keras's loss wants one a position
            loss=None if weights == "samples" else HARD,
            temperature=3.0,
            eager=weights != "positions",
            distillation_losses=[
                tfpeft.SoftLabels(),
                tfpeft.AttentionTransfer(**layers, weight=10.0),
            ],
        )
        found = loss_of(distiller, tokens, tags, sample_weight=weight)
        t, s = (predict(model, tokens).astype("float64") for model in (teacher, student))
        mask = tokens != 0
        each = 9.0 * kl(softmax(t / 3.0), softmax(s / 3.0))
        wide = 1.0 if weight is None else weight if weight.ndim == 2 else weight[:, None]
        expected = np.sum(mask * wide * each) / np.sum(mask)
        np.testing.assert_allclose(found["soft_labels"], expected, rtol=1e-5)
        if weights != "samples":
            hard = -np.log(np.take_along_axis(softmax(s), tags[..., None], -1))[..., 0]
            hard = np.sum(mask * wide * hard) / np.sum(mask)
            np.testing.assert_allclose(found["hard_loss"], hard, rtol=1e-5)
        # What stands in masked positions does not count anywhere.
        teacher.layers[1].embeddings.assign_add(tf.one_hot([0], 10, axis=0)[..., None][:, 0])
        other = loss_of(distiller, tokens, tags, sample_weight=weight)
        np.testing.assert_allclose(other["loss"], found["loss"], rtol=1e-5)
        distiller.fit(tokens, tags, sample_weight=weight, batch_size=8, verbose=0)

    def test_a_list_by_name(self):
        def two_headed():
            inputs = keras.Input((5,))
            heads = [keras.layers.Dense(3, name=name)(inputs) for name in ("kind", "other")]
            return keras.Model(inputs, heads)

        losses = {"kind": HARD, "other": HARD}
        distiller = distiller_of(
            two_headed(),
            two_headed(),
            loss=losses,
            distillation_losses=[tfpeft.DecoupledKD(output="kind")],
        )
        labels, weights = {"kind": Y, "other": Y}, {"kind": Y + 1.0, "other": Y + 2.0}
        found = loss_of(distiller, X, labels, sample_weight=weights)
        teacher, student = (
            predict(model, X)[0] for model in (distiller.teacher, distiller.student)
        )
        expected = tfpeft.DecoupledKD(temperature=4.0)(teacher, student, Y + 1.0, labels=Y)
        np.testing.assert_allclose(found["decoupled_kd"], expected, rtol=1e-5)
        distiller.student.compile("sgd", losses)
        in_order = [list(each.values()) for each in (labels, weights)]
        plain = loss_of(distiller.student, X, in_order[0], sample_weight=in_order[1])
        np.testing.assert_allclose(found["hard_loss"], plain["loss"], rtol=1e-5)

    def test_a_dict_of_one(self):
        inputs = keras.Input((5,))
        student = keras.Model(inputs, {"out": keras.layers.Dense(3)(inputs)})
        for losses in (None, [tfpeft.SoftLabels(output="out")]):
            distiller = distiller_of(mlp(), student, loss={"out": HARD}, distillation_losses=losses)
            expected = distiller_of(
                distiller.teacher, keras.Sequential([inputs, student.layers[-1]]), eager=True
            )
            expected = loss_of(expected, X, Y)["loss"]
            found = loss_of(distiller, X, {"out": Y})["loss"]
            np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_parts_in_the_logs_make_up_the_loss_over_uneven_batches(self):
        distiller = distiller_of(mlp(9), mlp(4), alpha=0.3)
        found = distiller.evaluate(X, Y, batch_size=10, verbose=0, return_dict=True)
        expected = 0.3 * found["hard_loss"] + 0.7 * found["soft_labels"]
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)

    def test_regression(self):
        teacher, student = mlp(9, classes=2), mlp(4, classes=2)
        distiller = distiller_of(
            teacher, student, loss="mse", alpha=0.4, distillation_losses=[tfpeft.SquaredError()]
        )
        y = rng.normal(size=(24, 2)).astype("float32")
        t, s = predict(teacher, X), predict(student, X)
        expected = 0.4 * np.mean((s - y) ** 2) + 0.6 * np.mean((t - s) ** 2)
        np.testing.assert_allclose(loss_of(distiller, X, y)["loss"], expected, rtol=1e-5)
        losses = distiller.fit(X, y, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < losses[0]

    def test_short_names_of_keras(self):
        student = mlp(4, "softmax")
        distiller = distiller_of(mlp(9), student, loss="CE", metrics=["ACC"], alpha=1.0, eager=True)
        outputs = predict(student, X)
        found = loss_of(distiller, X, Y)
        expected = -np.log(outputs[np.arange(24), Y]).mean()
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
        np.testing.assert_allclose(found["ACC"], np.mean(outputs.argmax(axis=1) == Y))
        with pytest.raises(tfpeft.InputError, match="expected 0 to 2 for the student"):
            loss_of(distiller, X, Y + 1)
        with pytest.raises(tfpeft.InputError, match="`metrics`.*'ce'$"):  # Keras has no such metric
            distiller.compile("adam", "ce", metrics=["ce"])

    def test_one_probability(self):
        teacher, student = (mlp(u, "sigmoid", classes=1) for u in (9, 4))
        distiller = distiller_of(teacher, student, loss="binary_crossentropy", alpha=0.0)
        t, s = (predict(m, X).astype("float64") for m in (teacher, student))
        logits = [np.log(p) - np.log1p(-p) for p in (t, s)]
        p, q = (1 / (1 + np.exp(-z / 4.0)) for z in logits)
        expected = np.mean(16 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
        np.testing.assert_allclose(loss_of(distiller, X, Y > 0)["loss"], expected, rtol=1e-4)

    def test_probabilities_that_are_all_but_sure(self):
        """What float32 cannot tell from 1 does not count as infinitely sure."""
        teacher = keras.Sequential([keras.Input((1,)), keras.layers.Activation("sigmoid")])
        student = mlp(4, "sigmoid", classes=1)
        distiller = tfpeft.Distiller(
            lambda x: teacher(20.0 + 0.0 * x[:, :1]),
            student,
            alpha=0.0,
            distillation_losses=[tfpeft.BinarySoftLabels()],
            teacher_from_logits=False,
        )
        distiller.compile("sgd")
        q = 1 / (1 + np.exp(-np.log(1 / (1 / predict(student, X) - 1)) / 4.0))
        p = 1 / (1 + np.exp(-np.log(2.0**24 - 1) / 4.0))
        expected = np.mean(16 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
        np.testing.assert_allclose(loss_of(distiller, X, Y)["loss"], expected, rtol=1e-4)

    def test_neither_labels_nor_loss_where_alpha_is_0(self):
        teacher, student = mlp(9), mlp(4)
        distiller = distiller_of(teacher, student, loss=None, alpha=0.0, optimizer="sgd")
        expected = np.mean(16.0 * kl(*(softmax(predict(m, X) / 4.0) for m in (teacher, student))))
        history = distiller.fit(X, batch_size=24, verbose=0).history
        np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-4)
