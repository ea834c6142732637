"""Runs of the Distiller: every kind of output, teacher and model, and what it composes with."""

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
    softmax,
)


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
