"""Runs of the Distiller: every kind of output, teacher and model, and what it composes with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 5)).astype("float32")
Y = rng.integers(0, 3, 24)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(units=8, activation=None, classes=3, hidden="hidden"):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(units, activation="relu", name=hidden),
            keras.layers.Dense(classes, activation=activation, name="head"),
        ]
    )


@keras.saving.register_keras_serializable(package="tests")
class Student(keras.Model):
    """Subclassed, with a block inside, and not built before it sees data."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.block = keras.Sequential(
            [keras.layers.Dense(units, activation="relu", name="inner")], name="block"
        )
        self.head = keras.layers.Dense(3, name="head")

    def build(self, input_shape):
        self.block.build(input_shape)
        self.head.build(self.block.compute_output_shape(input_shape))

    def call(self, inputs):
        return self.head(self.block(inputs))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), -1)


def loss_of(distiller, x, y, **options):
    return distiller.evaluate(x, y, batch_size=len(Y), verbose=0, return_dict=True, **options)


def distiller_of(
    teacher, student, loss=HARD, optimizer="adam", metrics=None, eager=False, **options
):
    """Returns a compiled Distiller; `eager` saves tracing where another test runs the graph."""
    distiller = tfpeft.Distiller(teacher, student, **options)
    distiller.compile(optimizer, loss, metrics=metrics, run_eagerly=eager)
    return distiller


class TestForwardPasses:
    def counted(self, units, counts, role):
        @keras.saving.register_keras_serializable(package="tests", name=f"Count_{role}")
        class Count(keras.layers.Layer):
            """Counts when it runs, not when it is traced."""

            def call(self, inputs):
                def count(x):
                    counts[role] += 1
                    return x

                outputs = tf.numpy_function(count, [tf.stop_gradient(inputs)], tf.float32)
                outputs.set_shape(inputs.shape)
                return inputs + tf.stop_gradient(outputs - inputs)

        return keras.Sequential(
            [
                keras.Input((5,)),
                Count(),
                keras.layers.Dense(units, activation="relu", name="a"),
                keras.layers.Dense(units, activation="relu", name="b"),
                keras.layers.Dense(3),
            ]
        )

    def test_one_per_step_for_any_losses(self):
        counts = {"teacher": 0, "student": 0}
        layers = [{"teacher_layer": name, "student_layer": name} for name in "ab"]
        distiller = distiller_of(
            self.counted(9, counts, "teacher"),
            self.counted(7, counts, "student"),
            distillation_losses=[
                tfpeft.SoftLabels(),
                tfpeft.DIST(),
                *(tfpeft.FeatureMatching(**names) for names in layers),
                *(tfpeft.SimilarityPreserving(**names) for names in layers),
            ],
        )
        distiller.fit(X, Y, batch_size=8, verbose=0)
        assert counts == {"teacher": 3, "student": 3}
        distiller.evaluate(X, Y, batch_size=12, verbose=0)
        assert counts == {"teacher": 5, "student": 5}
        distiller.predict(X, batch_size=24, verbose=0)
        assert counts == {"teacher": 5, "student": 6}

    def test_a_custom_loop_may_call_train_step(self):
        counts = {"teacher": 0, "student": 0}
        loss = tfpeft.FeatureMatching(teacher_layer="a", student_layer="b")
        distiller = distiller_of(
            self.counted(9, counts, "teacher"),
            self.counted(7, counts, "student"),
            distillation_losses=[loss],
        )
        step = tf.function(distiller.train_step)
        for _ in range(3):
            step((tf.constant(X), tf.constant(Y)))
        assert counts == {"teacher": 3, "student": 3}


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

        t, s = (model.predict(X, verbose=0) for model in (teacher, student))
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
        t, s = (model.predict(tokens, verbose=0).astype("float64") for model in (teacher, student))
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
            model.predict(X, verbose=0)[0] for model in (distiller.teacher, distiller.student)
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
        t, s = teacher.predict(X, verbose=0), student.predict(X, verbose=0)
        expected = 0.4 * np.mean((s - y) ** 2) + 0.6 * np.mean((t - s) ** 2)
        np.testing.assert_allclose(loss_of(distiller, X, y)["loss"], expected, rtol=1e-5)
        losses = distiller.fit(X, y, epochs=20, verbose=0).history["loss"]
        assert losses[-1] < losses[0]

    def test_short_names_of_keras(self):
        student = mlp(4, "softmax")
        distiller = distiller_of(mlp(9), student, loss="CE", metrics=["ACC"], alpha=1.0, eager=True)
        outputs = student.predict(X, verbose=0)
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
        t, s = (m.predict(X, verbose=0).astype("float64") for m in (teacher, student))
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
        q = 1 / (1 + np.exp(-np.log(1 / (1 / student.predict(X, verbose=0) - 1)) / 4.0))
        p = 1 / (1 + np.exp(-np.log(2.0**24 - 1) / 4.0))
        expected = np.mean(16 * (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))))
        np.testing.assert_allclose(loss_of(distiller, X, Y)["loss"], expected, rtol=1e-4)

    def test_neither_labels_nor_loss_where_alpha_is_0(self):
        teacher, student = mlp(9), mlp(4)
        distiller = distiller_of(teacher, student, loss=None, alpha=0.0, optimizer="sgd")
        expected = np.mean(
            16.0 * kl(*(softmax(m.predict(X, verbose=0) / 4.0) for m in (teacher, student)))
        )
        history = distiller.fit(X, batch_size=24, verbose=0).history
        np.testing.assert_allclose(history["loss"][0], expected, rtol=1e-4)


class TestTeachers:
    def test_the_mean_of_several(self):
        teachers, student = [mlp(9), mlp(7, "softmax")], mlp(4)
        distiller = distiller_of(
            teachers,
            student,
            alpha=0.0,
            temperature=2.0,
            teacher_weights=[1.0, 3.0],
            distillation_losses=[tfpeft.SoftLabels(), tfpeft.SquaredError(weight=0.5)],
        )
        outputs = [each.predict(X, verbose=0).astype("float64") for each in teachers]
        softened = softmax(outputs[0] / 2.0), softmax(np.log(outputs[1]) / 2.0)
        z = student.predict(X, verbose=0)
        mean = 0.25 * softened[0] + 0.75 * softened[1]
        expected = 4.0 * np.mean(kl(mean, softmax(z / 2.0)))
        found = loss_of(distiller, X, Y)
        np.testing.assert_allclose(found["soft_labels"], expected, rtol=1e-5)
        mean = 0.25 * outputs[0] + 0.75 * outputs[1]
        np.testing.assert_allclose(found["squared_error"], np.mean((mean - z) ** 2), rtol=1e-5)

    def test_features_of_one_of_several(self):
        teachers = [mlp(9, hidden="first"), mlp(7, hidden="second")]
        loss = tfpeft.FeatureMatching(teacher_layer="second", student_layer="hidden")
        distiller = distiller_of(teachers, mlp(7), distillation_losses=[loss])
        feature = teachers[1].layers[0](X)
        expected = np.mean((feature - distiller.student.layers[0](X)) ** 2)
        found = loss_of(distiller, X, Y)["feature_matching"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)
        ambiguous = tfpeft.FeatureMatching(teacher_layer="head", student_layer="head")
        with pytest.raises(ValueError, match="`teacher_layer`.*/head.*/head"):
            tfpeft.Distiller(teachers, mlp(), distillation_losses=[ambiguous])

    @pytest.mark.parametrize("kind", ["function", "saved_model", "tflite", "tflite_int8"])
    def test_other_kinds_of_teachers(self, kind, tmp_path):
        model, student = mlp(9, "softmax"), mlp(4)
        flags = {"teacher_from_logits": False}
        if kind == "function":

            @keras.saving.register_keras_serializable(package=f"tests{tmp_path.name}")
            def teacher(x):
                return model(x, training=False)

        elif kind == "saved_model":
            model.export(str(tmp_path / "saved"), verbose=False)
            teacher = keras.layers.TFSMLayer(str(tmp_path / "saved"), call_endpoint="serve")
        else:
            teacher = tmp_path / "teacher.tflite"
            options = {"quantization": "none"}
            if kind == "tflite_int8":
                options = {"quantization": "int8", "representative_data": X}
            tfpeft.export_tflite(model, teacher, **options)
            flags = {}  # a softmax is recognized in the file
        distiller = distiller_of(teacher, student, alpha=0.0, **flags)
        reference = distiller_of(model, student, alpha=0.0, eager=True)
        tolerance = 0.1 if kind == "tflite_int8" else 1e-4
        expected = loss_of(reference, X, Y)["loss"]
        np.testing.assert_allclose(loss_of(distiller, X, Y)["loss"], expected, rtol=tolerance)
        distiller.fit(X, Y, batch_size=10, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        trusted = kind != "saved_model"  # which Keras loads on demand only
        loaded = keras.models.load_model(tmp_path / "distiller.keras", safe_mode=trusted)
        expected = loss_of(distiller, X, Y)["loss"]
        np.testing.assert_allclose(loss_of(loaded, X, Y)["loss"], expected, rtol=1e-6)


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
        theirs.compile("adam", HARD)
        ours = distiller_of(
            teacher, student, alpha=0.2, distillation_losses=[given[0], (given[1], 0.5)]
        )
        expected = theirs.evaluate(X, Y, batch_size=24, verbose=0, return_dict=True)["total_loss"]
        np.testing.assert_allclose(loss_of(ours, X, Y)["loss"], expected, rtol=1e-5)


class TestSchedules:
    def test_alpha_and_temperature_follow_the_steps(self):
        falling = keras.optimizers.schedules.PolynomialDecay(0.8, 6, end_learning_rate=0.2)
        distiller = distiller_of(
            mlp(9), mlp(4), alpha=falling, temperature=lambda step: 4.0 - step / 2.0
        )
        for done in (0, 3, 6):
            alpha, temperature = 0.8 - 0.1 * done, 4.0 - done / 2.0
            fixed = distiller_of(
                distiller.teacher,
                distiller.student,
                alpha=alpha,
                temperature=temperature,
                eager=True,
            )
            expected = loss_of(fixed, X, Y)["loss"]
            np.testing.assert_allclose(loss_of(distiller, X, Y)["loss"], expected, rtol=1e-5)
            distiller.fit(X, Y, batch_size=8, verbose=0)

    def test_what_leaves_its_range_is_brought_back(self):
        distiller = distiller_of(mlp(9), mlp(4), alpha=lambda step: step, temperature=2.0)
        distiller.fit(X, Y, batch_size=8, verbose=0)
        found = loss_of(distiller, X, Y)
        np.testing.assert_allclose(found["loss"], found["hard_loss"], rtol=1e-6)

    def test_they_are_saved(self, tmp_path):
        falling = keras.optimizers.schedules.CosineDecay(0.5, 10)
        distiller = distiller_of(mlp(9), mlp(4), alpha=falling)
        distiller.fit(X, Y, verbose=0)
        distiller.save(tmp_path / "distiller.keras")
        loaded = keras.models.load_model(tmp_path / "distiller.keras")
        expected = loss_of(distiller, X, Y)["loss"]
        np.testing.assert_allclose(loss_of(loaded, X, Y)["loss"], expected, rtol=1e-6)


class TestComposition:
    losses = staticmethod(
        lambda: [
            tfpeft.SoftLabels(),
            tfpeft.FeatureMatching(teacher_layer="hidden", student_layer="hidden"),
            tfpeft.DecoupledKD(),
        ]
    )

    def test_class_weights_are_sample_weights(self):
        keras.utils.set_random_seed(3)
        distiller = distiller_of(mlp(9), mlp(4), optimizer="sgd", distillation_losses=self.losses())
        start, results = distiller.get_weights(), []
        for options in (
            {"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
            {"sample_weight": np.choose(Y, [1.0, 2.0, 0.5])},
        ):
            distiller.set_weights(start)
            history = distiller.fit(X, Y, batch_size=8, verbose=0, shuffle=False, **options).history
            results.append((history, distiller.get_weights()))
        for name, value in results[0][0].items():
            np.testing.assert_allclose(value, results[1][0][name], rtol=1e-5)
        for a, b in zip(results[0][1], results[1][1], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)

    def test_sparse_optimizers_leave_the_projection_alone(self):
        optimizer = tfpeft.MagnitudePruning(
            keras.optimizers.Adam(),
            tfpeft.constant_sparsity(0.5, begin=0.0, end=1.0, total_steps=2, frequency=1),
        )
        student = mlp(4)
        distiller = distiller_of(
            mlp(9), student, distillation_losses=self.losses(), optimizer=optimizer
        )
        distiller.fit(X, Y, epochs=2, verbose=0)
        assert [np.mean(w == 0) for w in student.get_weights()[::2]] == [0.5, 0.5]
        assert np.all(distiller.projectors[1].projection.numpy() != 0)
        assert any("distiller_only" in path for path in optimizer.skipped)
        tfpeft.strip_pruning(student)

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    def test_mixed_precision(self, policy):
        keras.config.set_dtype_policy(policy)
        try:
            keras.utils.set_random_seed(4)
            distiller = distiller_of(
                mlp(9), mlp(4), distillation_losses=self.losses(), optimizer="sgd"
            )
        finally:
            keras.config.set_dtype_policy("float32")
        losses = distiller.fit(X, Y, epochs=10, verbose=0).history["loss"]
        assert losses[-1] < losses[0]

    def test_strategies_and_compile_options_give_the_same(self, mirrored):
        results = []
        for strategy, options in (
            (tf.distribute.get_strategy(), {}),
            (tf.distribute.get_strategy(), {"steps_per_execution": 3}),
            (tf.distribute.get_strategy(), {"jit_compile": True}),
            (mirrored, {}),
        ):
            keras.utils.set_random_seed(5)
            with strategy.scope():
                distiller = tfpeft.Distiller(mlp(9), mlp(4), distillation_losses=self.losses())
                distiller.compile(keras.optimizers.SGD(0.01), HARD, **options)
            history = distiller.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0).history
            values = [history[name][-1] for name in sorted(history)]
            results.append([*values, *distiller.student.get_weights()])
        for other in results[1:]:
            for expected, value in zip(results[0], other, strict=True):
                np.testing.assert_allclose(value, expected, rtol=1e-3, atol=1e-5)


def hint(teacher="hidden", student="hidden"):
    return [tfpeft.FeatureMatching(teacher_layer=teacher, student_layer=student)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": mlp(classes=4)}, r"at least 2 classes.*\(None, 3\).*\(None, 4\)"),
        (
            {"student": keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])},
            r"inputs of the same shapes.*\(None, 5\).*\(None, 6\)",
        ),
        (
            {"distillation_losses": hint(student="hiden")},
            "`student_layer`.*such as hidden.*'hiden'",
        ),
        ({"distillation_losses": hint(teacher="hid")}, "`teacher_layer`.*such as hidden.*'hid'"),
        ({"distillation_losses": []}, "`distillation_losses`.*list of losses"),
        ({"distillation_losses": ["kl"]}, "`distillation_losses`.*losses of tfpeft.*'kl'"),
        ({"distillation_losses": [tfpeft.SoftLabels(output="age")]}, "`output`.*'age'"),
        ({"alpha": lambda step: 2.0}, "`alpha`.*function of the step"),
        ({"alpha": "0.5"}, "`alpha`.*'0.5'"),
        ({"alpha": lambda step: 0.1 if step < 3 else 0.9}, "`alpha`.*keras.ops.*when traced"),
        ({"temperature": float("inf")}, "`temperature`.*inf"),
        ({"temperature": np.array([4.0, 3.0])}, "`temperature`.*array"),
        ({"teacher_from_logits": "yes"}, "`teacher_from_logits`.*'yes'"),
        ({"teacher": keras.Sequential([keras.layers.Dense(3)])}, "`teacher`.*built"),
        ({"teacher": []}, "`teacher`.*at least one"),
        ({"teacher": "teacher.keras"}, "`teacher`.*'teacher.keras'"),
        ({"teacher": "missing.tflite"}, "missing.tflite"),
        ({"teacher_weights": [1.0]}, "`teacher_weights`.*several teachers"),
        ({"teacher": [mlp(), mlp()], "teacher_weights": [1.0, 0.0]}, "`teacher_weights`.*0.0"),
        ({"teacher": [mlp(), mlp()], "teacher_from_logits": [True]}, "2 entries"),
        ({"teacher": lambda x: x}, "or `teacher_from_logits`"),
        ({"student": mlp(classes=1), "teacher": mlp(classes=1)}, "at least 2 classes"),
        ({"teacher": mlp(activation="tanh")}, "`teacher`.*tanh"),
    ],
)
def test_bad_input_raises_early(options, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.Distiller(**{"teacher": mlp(9), "student": mlp(), **options})


def test_a_student_may_not_train_the_teachers_layers():
    teacher = mlp(9)
    student = keras.Sequential([keras.Input((5,)), teacher.layers[0], keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="trains no weight of the `teacher`.*kernel"):
        tfpeft.Distiller(teacher, student)


@pytest.mark.parametrize(
    ("options", "y", "message"),
    [
        ({"alpha": 0.5}, None, "labels in the data"),
        ({"alpha": 0.0, "distillation_losses": [tfpeft.DecoupledKD()]}, None, "needs labels"),
        ({"teacher": None, "teacher_from_logits": True}, Y, "`teacher=None`.*precompute"),
        (
            {
                "teacher": lambda x: x[:, :1],
                "student": keras.Sequential([keras.Input((5,)), keras.layers.Dense(1)]),
                "distillation_losses": [tfpeft.SoftLabels()],
                "teacher_from_logits": True,
            },
            Y,
            "two classes or more.*1",
        ),
        (
            {"distillation_losses": [tfpeft.SquaredError()], "student": mlp(classes=2)},
            Y,
            r"same shape.*\(None, 3\).*\(None, 2\)",
        ),
    ],
)
def test_bad_input_raises_with_the_data(options, y, message):
    distiller = distiller_of(**{"teacher": mlp(9), "student": mlp(), **options})
    with pytest.raises(ValueError, match=message):
        distiller.fit(X, y, verbose=0)
