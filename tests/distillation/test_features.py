"""What a Distiller compares: features of layers, with masks, projections and weights."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.distillation.runs import (
    HARD,
    Student,
    X,
    Y,
    distiller_of,
    loss_of,
    mlp,
    rng,
)


class TestFeatures:
    layers = {"teacher_layer": "hidden", "student_layer": "hidden"}

    def test_the_projection_is_trained_and_thrown_away(self):
        keras.utils.set_random_seed(1)
        student = mlp(4)
        loss = tfpeft.FeatureMatching(**self.layers, weight=10.0)
        distiller = distiller_of(mlp(9), student, distillation_losses=[loss], optimizer="adam")
        history = distiller.fit(X, Y, epochs=1, batch_size=8, verbose=0)
        before = distiller.projectors[0].projection.numpy()
        assert before.shape == (4, 9)
        history = distiller.fit(X, Y, epochs=30, batch_size=8, verbose=0).history
        assert history["feature_matching"][-1] < 0.8 * history["feature_matching"][0]
        assert np.all(distiller.projectors[0].projection.numpy() != before)
        assert len(student.weights) == 4
        assert "call" not in student.layers[0].__dict__  # nothing is left on the layers

    def test_no_projection_where_widths_agree(self):
        distiller = distiller_of(
            mlp(6), mlp(6), distillation_losses=[tfpeft.FeatureMatching(**self.layers)]
        )
        distiller.fit(X, Y, verbose=0)
        assert len(distiller.trainable_variables) == len(distiller.student.trainable_variables)

    def test_subclassed_student_nested_layers_saved_and_loaded(self, tmp_path):
        keras.utils.set_random_seed(2)
        inputs = keras.Input((5,))
        body = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(9, name="deep")], name="body"
        )
        teacher = keras.Model(inputs, keras.layers.Dense(3)(body(inputs)))
        losses = [
            tfpeft.SoftLabels(),
            tfpeft.FeatureMatching(teacher_layer="body/deep", student_layer="block/inner"),
            tfpeft.RelationalDistance(teacher_layer="deep", student_layer="inner"),
        ]
        distiller = distiller_of(
            teacher,
            Student(),
            distillation_losses=losses,
            student_from_logits=True,
            optimizer="adam",
            metrics=["accuracy"],
        )
        distiller.fit(X, Y, shuffle=False, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        assert list(map(type, loaded.distillation_losses)) == list(map(type, losses))
        for each in (distiller, loaded):
            each.fit(X, Y, epochs=3, shuffle=False, verbose=0)
        assert len(loaded.trainable_variables) == 6
        for a, b in zip(distiller.weights, loaded.weights, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())

    def test_masks_of_a_layer_that_feeds_attention(self):
        def tagger(units):
            inputs = keras.Input((6,), dtype="int32")
            words = keras.layers.Embedding(10, units, mask_zero=True, name="words")(inputs)
            hidden = keras.layers.MultiHeadAttention(1, 4)(words, words)
            return keras.Model(inputs, keras.layers.Dense(3)(hidden))

        tokens = rng.integers(1, 10, (24, 6))
        tokens[:, 4:] = 0
        loss = tfpeft.FeatureMatching(teacher_layer="words", student_layer="words")
        distiller = distiller_of(
            tagger(4), tagger(4), loss=None, alpha=0.0, distillation_losses=[loss]
        )
        t, s = (m.layers[1](tokens).numpy() for m in (distiller.teacher, distiller.student))
        expected = np.mean((t - s)[:, :4] ** 2)
        found = loss_of(distiller, tokens, Y)["feature_matching"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    def test_a_layer_that_is_called_twice_has_no_place(self):
        shared = keras.layers.Dense(5, name="shared")
        inputs = keras.Input((5,))
        student = keras.Model(inputs, keras.layers.Dense(3)(shared(shared(inputs))))
        loss = tfpeft.FeatureMatching(teacher_layer="hidden", student_layer="shared")
        distiller = distiller_of(mlp(), student, distillation_losses=[loss])
        with pytest.raises(ValueError, match="called once.*shared"):
            distiller.fit(X, Y, verbose=0)

    @pytest.mark.parametrize("way", ["saved", "backup", "optimizer", "weights"])
    def test_projections_are_there_before_the_first_step(self, way, tmp_path):
        def make():
            return distiller_of(
                mlp(9), mlp(4), distillation_losses=[tfpeft.FeatureMatching(**self.layers)]
            )

        distiller, callbacks = make(), []
        if way == "saved":
            distiller.save(tmp_path / "distiller.keras")
            distiller = keras.models.load_model(tmp_path / "distiller.keras")
        elif way == "optimizer":
            distiller.optimizer.build(distiller.trainable_variables)
        elif way == "weights":
            distiller.save_weights(tmp_path / "d.weights.h5")
            other = make()
            other.load_weights(tmp_path / "d.weights.h5")
            for a, b in zip(distiller.weights, other.weights, strict=True):
                np.testing.assert_array_equal(a.numpy(), b.numpy())
        else:
            callbacks = [keras.callbacks.BackupAndRestore(tmp_path / "backup")]
        distiller.fit(X, Y, callbacks=callbacks, verbose=0)
        assert len(distiller.trainable_variables) == 6
        assert len(distiller.non_trainable_variables) == 4

    def test_a_sequential_student_that_is_not_built(self):
        student = keras.Sequential(
            [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(3, name="head")]
        )
        losses = [tfpeft.SoftLabels(), tfpeft.FeatureMatching(**self.layers)]
        distiller = distiller_of(
            mlp(9), student, distillation_losses=losses, student_from_logits=True
        )
        distiller.fit(X, Y, verbose=0)
        assert len(distiller.trainable_variables) == 6

    def test_a_pair_multiplies_weights(self):
        pair = (tfpeft.SquaredError(weight=0.5), 4.0)
        assert (
            tfpeft.Distiller(mlp(), mlp(), distillation_losses=[pair]).distillation_losses[0].weight
            == 2.0
        )

    def test_keras_losses_with_their_weights(self):
        """Where Keras is right, with an object as loss, tfpeft's value is the same."""
        teacher, student = mlp(6), mlp(6)
        given = [
            keras.distillation.LogitsDistillation(
                temperature=3.0, loss=keras.losses.KLDivergence()
            ),
            keras.distillation.FeatureDistillation("mse", "hidden", "hidden"),
        ]
        theirs = keras.distillation.Distiller(
            teacher,
            student,
            distillation_losses=given,
            distillation_loss_weights=[1.0, 0.5],
            student_loss_weight=0.2,
        )
        theirs.compile("sgd", HARD)
        ours = distiller_of(
            teacher, student, alpha=0.2, distillation_losses=[given[0], (given[1], 0.5)]
        )
        expected = theirs.evaluate(X, Y, batch_size=24, verbose=0, return_dict=True)["total_loss"]
        np.testing.assert_allclose(loss_of(ours, X, Y)["loss"], expected, rtol=1e-5)
