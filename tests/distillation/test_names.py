"""Inputs, outputs and labels are matched by name; what cannot be matched is one line."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft import InputError

rng = np.random.default_rng(0)
A = rng.normal(size=(12, 4)).astype("float32")
B = rng.normal(size=(12, 4)).astype("float32")
Y = rng.integers(0, 3, 12)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def of_inputs(order, seed=0, form=list):
    """Returns a model of inputs a and b in an order; its logits are those of (a, 2 b)."""
    keras.utils.set_random_seed(seed)
    inputs = {name: keras.Input((4,), name=name) for name in order}
    parts = [inputs[name] * factor for name, factor in (("a", 1.0), ("b", 2.0)) if name in inputs]
    hidden = keras.layers.Concatenate()(parts) if len(parts) > 1 else parts[0]
    outputs = keras.layers.Dense(3)(hidden)
    return keras.Model(inputs if form is dict else list(inputs.values()), outputs)


def of_outputs(names=("kind", "size"), classes=(3, 2), seed=0, form=list):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((4,))
    heads = [
        keras.layers.Dense(n, name=name)(inputs) for name, n in zip(names, classes, strict=False)
    ]
    return keras.Model(inputs, dict(zip(names, heads, strict=False)) if form is dict else heads)


def loss_of(teacher, student, x, y=None, loss=None, alpha=0.0, compiled=None, **options):
    distiller = tfpeft.Distiller(teacher, student, alpha=alpha, **options)
    distiller.compile("sgd", loss, run_eagerly=True, **(compiled or {}))
    return distiller.test_on_batch(x, y, return_dict=True)


def soft(teacher, student, temperature=4.0):
    p, q = (np.asarray(z, "float64") / temperature for z in (teacher, student))
    p, q = (np.exp(z) / np.exp(z).sum(-1, keepdims=True) for z in (p, q))
    return np.mean(temperature**2 * (p * np.log(p / q)).sum(-1))


def hard(logits, labels):
    z = np.asarray(logits, "float64")
    z = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return -np.mean(z[np.arange(12), labels])


class TestInputs:
    @pytest.mark.parametrize("form", [list, dict])
    @pytest.mark.parametrize("order", ["ab", "ba"])
    def test_a_dict_reaches_both_by_name(self, order, form):
        teacher, student = of_inputs("ab"), of_inputs(order, seed=1, form=form)
        expected = soft(
            teacher([A, B]), student({"a": A, "b": B} if form is dict else [A, B][:: _sign(order)])
        )
        for x in ({"a": A, "b": B}, {"b": B, "a": A}):
            np.testing.assert_allclose(loss_of(teacher, student, x)["loss"], expected, rtol=1e-5)

    def test_a_list_reaches_both_by_position(self):
        teacher, student = of_inputs("ab"), of_inputs("ab", seed=1)
        expected = soft(teacher([A, B]), student([A, B]))
        np.testing.assert_allclose(loss_of(teacher, student, [A, B])["loss"], expected, rtol=1e-5)

    def test_a_list_for_models_of_other_orders_raises(self):
        with pytest.raises(InputError, match="`x`, expected a dict of a, b. .*another order$"):
            loss_of(of_inputs("ab"), of_inputs("ba", seed=1), [A, B])

    @pytest.mark.parametrize("orders", [("a", "ba"), ("ab", "b")])
    def test_a_model_may_take_one_of_the_inputs(self, orders):
        data = {"a": A, "b": B}
        models = [of_inputs(order, seed) for seed, order in enumerate(orders)]
        logits = [
            model([data[name] for name in order])
            for model, order in zip(models, orders, strict=True)
        ]
        np.testing.assert_allclose(loss_of(*models, data)["loss"], soft(*logits), rtol=1e-5)
        stored = tfpeft.precompute(models[0], {key: data[key] for key in orders[0]})
        np.testing.assert_allclose(stored.outputs, logits[0], rtol=1e-5, atol=1e-6)

    @pytest.mark.parametrize(
        ("x", "received"),
        [
            ({"a": A}, "2 inputs, a, b, .* Received: a$"),
            ({"a": A, "c": B}, "2 inputs, a, b, .* Received: a$"),
            ([A, B, B], "2 inputs, a, b, .* Received: 3 inputs$"),
            (A, "2 inputs, a, b"),
        ],
    )
    def test_other_names_raise(self, x, received):
        models = of_inputs("ab"), of_inputs("ab", seed=1)
        distiller = tfpeft.Distiller(*models, alpha=0.0)
        distiller.compile("sgd")
        for method in (distiller.fit, distiller.predict):
            with pytest.raises(InputError, match=f"`x`, expected .*{received}") as raised:
                method(x, verbose=0)
            assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match="`data`, expected .*2 inputs|`data`.*names"):
            tfpeft.precompute(models[0], x)

    def test_other_keys_count_in_nothing(self):
        models = of_inputs("ab"), of_inputs("a", seed=1)
        distiller = tfpeft.Distiller(*models, alpha=0.0)
        distiller.compile("sgd", run_eagerly=True)
        more = {"id": np.arange(len(A)), "b": B, "a": A}
        expected = distiller.evaluate({"a": A, "b": B}, verbose=0)
        np.testing.assert_allclose(distiller.evaluate(more, verbose=0), expected)
        np.testing.assert_allclose(distiller.predict(more, verbose=0), models[1](A), rtol=1e-5)
        stored = tfpeft.precompute(models[0], more)
        np.testing.assert_allclose(stored.outputs, models[0]([A, B]), rtol=1e-5, atol=1e-6)
        distiller.fit(*stored.join(more), verbose=0)
        names = np.array([f"u{i}" for i in range(len(A))])
        distiller.fit({**more, "name": names.astype(object)}, verbose=0)
        for method in (distiller.fit, distiller.evaluate, distiller.predict):
            with pytest.raises(InputError, match="`x`, expected arrays of numbers, .* type <U3$"):
                method({**more, "name": names}, verbose=0)
            with pytest.raises(InputError, match="`x`, .*a dict of ndarray, str_$"):
                method({**more, "name": list(names)}, verbose=0)

    def test_texts_in_batches_of_keras(self):
        class Batches(keras.utils.PyDataset):
            num_batches = 1

            def __getitem__(self, index):
                return {"name": np.array(["u0", "u1"]), "a": A[:2]}, np.zeros(2)

        distiller = tfpeft.Distiller(of_inputs("a"), of_inputs("a"), alpha=0.0)
        distiller.compile("sgd", run_eagerly=True)
        for method in (distiller.fit, distiller.evaluate):
            with pytest.raises(InputError, match="`x`, expected batches of numbers.*a Batches: "):
                method(Batches(), verbose=0)

    def test_other_keys_of_a_subclassed_model_raise(self):
        class Own(keras.Model):
            def call(self, x):
                return sum(x.values())

        own = Own()
        own({"a": A, "b": B})
        with pytest.raises(InputError, match="names a, b. Received: a, b, mask$"):
            tfpeft.precompute(own, {"a": A, "b": B, "mask": B})

    def test_stored_outputs_of_models_in_other_orders(self):
        models = [of_inputs("ab"), of_inputs("ba", seed=1)]
        stored = tfpeft.precompute(models, ({"b": B, "a": A}, Y))
        np.testing.assert_allclose(stored.outputs[0], models[0]([A, B]), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(stored.outputs[1], models[1]([B, A]), rtol=1e-5, atol=1e-6)
        student = of_inputs("b", seed=2)
        joined = stored.join(({"a": A, "b": B}, Y))
        distiller = tfpeft.Distiller(None, student, teacher_from_logits=True, alpha=1.0)
        distiller.compile("sgd", HARD, run_eagerly=True)
        found = distiller.test_on_batch(*joined, return_dict=True)
        np.testing.assert_allclose(found["loss"], hard(student(B), Y), rtol=1e-5)

    def test_a_file_of_several_inputs(self, tmp_path):
        teacher = of_inputs("ab")
        file = str(tmp_path / "teacher.tflite")
        tfpeft.export_tflite(teacher, file)
        stored = tfpeft.precompute(file, [A, B])
        np.testing.assert_allclose(stored.outputs, teacher([A, B]), rtol=1e-4, atol=1e-5)
        names = list(tfpeft.TFLiteFile(file).signature().inputs)
        stored = tfpeft.precompute(file, dict(zip(names[::-1], (B, A), strict=True)))
        np.testing.assert_allclose(stored.outputs, teacher([A, B]), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputError, match="`data`, expected 2 inputs, .* Received: x, y$"):
            tfpeft.precompute(file, {"x": A, "y": B})
        student = of_inputs("ab", seed=1)
        found = loss_of(file, student, [A, B], teacher_from_logits=True)["loss"]
        np.testing.assert_allclose(found, soft(teacher([A, B]), student([A, B])), rtol=1e-4)


def _sign(order):
    return 1 if order == "ab" else -1


class TestOutputs:
    @pytest.mark.parametrize(
        ("teacher", "student"),
        [
            (of_outputs(), of_outputs(seed=1, form=dict)),
            (of_outputs(form=dict), of_outputs(seed=1)),
            (of_outputs(("size", "kind"), (2, 3)), of_outputs(seed=1)),
            (of_outputs(), of_outputs(("size", "kind"), (2, 3), seed=1)),
        ],
        ids=["list, dict", "dict, list", "other order", "other order of the student"],
    )
    def test_matched_by_name(self, teacher, student):
        t, s = _named(teacher, A), _named(student, A)
        expected = soft(t["kind"], s["kind"]) + soft(t["size"], s["size"])
        np.testing.assert_allclose(loss_of(teacher, student, A)["loss"], expected, rtol=1e-5)

    def test_teachers_of_several_kinds(self):
        teachers = [
            of_outputs(),
            of_outputs(seed=1, form=dict),
            of_outputs(("size", "kind"), (2, 3)),
        ]
        student = of_outputs(seed=3)
        found = loss_of(teachers, student, A, temperature=1.0)["loss"]
        expected = 0.0
        for name in ("kind", "size"):
            mean = np.mean([_softmax(_named(teacher, A)[name]) for teacher in teachers], axis=0)
            expected += soft(np.log(mean), _named(student, A)[name], 1.0)
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    @pytest.mark.parametrize("output", ["kind", 0])
    @pytest.mark.parametrize("teacher_has_more", [True, False])
    def test_one_of_several(self, output, teacher_has_more):
        """What an error names as a choice can be chosen."""
        several, one = of_outputs(), of_outputs(("kind",), (3,), seed=1)
        models = (several, one) if teacher_has_more else (one, several)
        with pytest.raises(InputError, match="or `output` of soft_labels.*'?kind'?|one output"):
            tfpeft.Distiller(*models)
        loss = tfpeft.SoftLabels(output=output)
        found = loss_of(*models, A, distillation_losses=[loss])["loss"]
        expected = soft(*(_named(model, A)["kind"] for model in models))
        np.testing.assert_allclose(found, expected, rtol=1e-5)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"teacher": of_outputs(("a", "b"), form=dict)}, r"\['a', 'b'\], student \['kind'"),
            ({"teacher": of_outputs(("size", "b"))}, "the same outputs of teacher and student"),
            (
                {"teacher": of_outputs(classes=(3, 4))},
                "output 'size' of the same",
            ),
            ({"losses": "age"}, "`output`, expected one of 'kind', 'size'.*'age'"),
        ],
    )
    def test_outputs_that_do_not_match(self, options, message):
        teacher = options.get("teacher", of_outputs(form=dict))
        loss = tfpeft.SoftLabels(output=options.get("losses"))
        with pytest.raises(InputError, match=message):
            tfpeft.Distiller(teacher, of_outputs(form=dict), distillation_losses=[loss])


def _named(model, x):
    outputs = model(x)
    if isinstance(outputs, dict):
        return outputs
    return dict(
        zip(model.output_names, outputs if isinstance(outputs, list) else [outputs], strict=False)
    )


def _softmax(z):
    z = np.exp(np.asarray(z, "float64"))
    return z / z.sum(-1, keepdims=True)


class TestLabels:
    labels = {"kind": Y, "size": Y % 2}

    @pytest.mark.parametrize("form", [list, dict])
    @pytest.mark.parametrize("everything", [True, False])
    def test_a_loss_for_one_output(self, form, everything):
        teacher, student = of_outputs(), of_outputs(seed=1, form=form)
        labels = self.labels if everything else {"kind": Y}
        compiled = {"metrics": {"kind": ["accuracy"]}, "loss_weights": {"kind": 2.0}}
        found = loss_of(
            teacher, student, A, labels, loss={"kind": HARD}, alpha=0.3, compiled=compiled
        )
        t, s = _named(teacher, A), _named(student, A)
        expected = 2.0 * hard(s["kind"], Y)
        np.testing.assert_allclose(found["hard_loss"], expected, rtol=1e-5)
        expected = 0.3 * expected + 0.7 * sum(soft(t[name], s[name]) for name in t)
        np.testing.assert_allclose(found["loss"], expected, rtol=1e-5)
        accuracy = np.mean(np.argmax(s["kind"], -1) == Y)
        np.testing.assert_allclose(found["kind_accuracy"], accuracy, rtol=1e-5)

    @pytest.mark.parametrize("form", [list, dict])
    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ([Y], "labels for each output: .*kind, size. Received: a list of 1$"),
            (Y, "labels for each output: .* Received: one array$"),
            ({"kind": Y}, "labels for the output .*, which has a loss. Received: none$"),
            ({"kind": Y, "age": Y}, "labels for each output: .*Received: kind, age$"),
            ({"kind": Y + 1, "size": Y % 2}, "expected 0 to 2 for the output .*Received: 1 to 3$"),
        ],
    )
    def test_other_labels(self, form, labels, message):
        with pytest.raises(InputError, match=message):
            loss_of(of_outputs(), of_outputs(seed=1, form=form), A, labels, loss=HARD, alpha=0.3)

    def test_a_list_of_labels_for_a_dict_of_outputs(self):
        """Keras would take it in the order of sorted names."""
        models = of_outputs(), of_outputs(("size", "kind"), (2, 3), form=dict)
        with pytest.raises(InputError, match="a dict by the names .* Received: a list of 2"):
            loss_of(*models, A, [Y % 2, Y], loss=HARD, alpha=0.3)

    @pytest.mark.parametrize("form", [list, dict])
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"loss": {"age": HARD}}, "`loss`, expected a dict by the names kind, size"),
            ({"loss": [HARD]}, "`loss`, expected .* 2, or a dict .*a list of 1"),
            ({"loss": "nope"}, "`loss`, expected a loss, a function.*'nope'"),
            ({"loss": keras.layers.ReLU}, "`loss`, expected a loss"),
            ({"loss_weights": {"age": 1.0}}, "`loss_weights`, expected a dict by the names"),
            ({"loss_weights": {"kind": np.nan, "size": 1.0}}, "`loss_weights`.*>= 0.*nan"),
            ({"loss_weights": [True, 1.0]}, "`loss_weights`.*>= 0.*True"),
            ({"loss_weights": [-1.0, 1.0]}, "`loss_weights`.*>= 0.*-1.0"),
            ({"loss_weights": [1.0]}, "`loss_weights`, .*a list of 1"),
            ({"metrics": {"age": ["accuracy"]}}, "`metrics`, expected a dict by the names"),
            ({"metrics": ["accuracy"]}, "`metrics`, .*a list of 1"),
            ({"metrics": {"kind": ["nope"]}}, "`metrics`, expected metrics, functions.*'nope'"),
            ({"weighted_metrics": "accuracy"}, "`weighted_metrics`, expected a list or dict"),
        ],
    )
    def test_compilation(self, form, arguments, message):
        distiller = tfpeft.Distiller(of_outputs(), of_outputs(seed=1, form=form))
        with pytest.raises(InputError, match=message):
            distiller.compile("sgd", **{"loss": HARD, **arguments})

    def test_metrics_and_class_weights_as_keras_takes_them(self):
        student = of_inputs("a")
        metrics = [keras.metrics.SparseCategoricalAccuracy, HARD]
        distiller = tfpeft.Distiller(of_inputs("a", seed=1), student, alpha=1.0)
        distiller.compile("sgd", HARD, metrics=metrics, run_eagerly=True)
        found = distiller.evaluate(A, Y, batch_size=len(A), verbose=0, return_dict=True)
        np.testing.assert_allclose(found[HARD.name], hard(student(A), Y), rtol=1e-5)
        weights = dict(zip(np.array([0.0, 1.0, 2.0]), [0.0, 0.0, 0.0], strict=True))
        before = [variable.numpy() for variable in student.variables]
        distiller.fit(A, Y, class_weight=weights, verbose=0)
        for expected, variable in zip(before, student.variables, strict=True):
            np.testing.assert_array_equal(variable, expected)
        with pytest.raises(InputError, match="`class_weight`, expected {class number"):
            distiller.fit(A, Y, class_weight={0.5: 1.0}, verbose=0)

    @pytest.mark.parametrize("labels", ["known", "unknown"])
    def test_datasets_of_unknown_rank(self, labels):
        shape = [None, 4] if labels == "unknown" else None
        data = tf.data.Dataset.from_generator(
            lambda: iter([(A, Y)]),
            output_types=(tf.float32, tf.int64),
            output_shapes=(shape, None if labels == "unknown" else [None]),
        )
        distiller = tfpeft.Distiller(of_inputs("a"), of_inputs("a", seed=1))
        distiller.compile("sgd", HARD)
        rank = "tensors of a known rank; .*shape=<unknown>"
        for method in (distiller.fit, distiller.evaluate):
            with pytest.raises(InputError, match=f"`x`, expected {rank}") as raised:
                method(data, verbose=0)
            assert "\n" not in str(raised.value)
        with pytest.raises(InputError, match=f"`validation_data`, expected {rank}"):
            distiller.fit(A, Y, validation_data=data, verbose=0)
        if labels == "unknown":  # the teacher needs none
            assert len(tfpeft.precompute(of_inputs("a"), data).outputs) == len(A)
        else:
            with pytest.raises(InputError, match=f"`data`, expected {rank}"):
                tfpeft.precompute(of_inputs("a"), data)
        with pytest.raises(InputError, match=rf"`data\['kind'\]`, expected {rank}"):
            tfpeft.mix_tasks({"kind": data})

    @pytest.mark.parametrize(
        ("y", "message"),
        [
            (Y + 1, "expected 0 to 2 for the student. Received: 1 to 3$"),
            (np.eye(3)[Y], "class numbers .*CategoricalCrossentropy takes rows.*3\\)$"),
            (np.where(Y > 1, np.nan, Y), "finite labels for the student"),
        ],
    )
    @pytest.mark.parametrize("run_eagerly", [True, False])
    def test_labels_out_of_range_change_nothing(self, y, message, run_eagerly):
        student = of_outputs(("kind",), (3,), seed=1)
        distiller = tfpeft.Distiller(of_outputs(("kind",), (3,)), student)
        distiller.compile("sgd", HARD, run_eagerly=run_eagerly)
        before = student.get_weights()
        with pytest.raises(InputError, match=message):
            distiller.train_on_batch(A, y)
        for old, new in zip(before, student.get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)

    @pytest.mark.parametrize(
        "weights",
        [{7: 1.0}, {0: np.nan}, {0: -1.0}, {0: True}, {True: 1.0}, {"0": 1.0}, [1.0], "a"],
    )
    def test_class_weights(self, weights):
        models = (of_outputs(("kind",), (3,), seed=seed) for seed in (0, 1))
        distiller = tfpeft.Distiller(*models)
        distiller.compile("sgd", HARD)
        with pytest.raises(InputError, match="`class_weight`, expected .*class number"):
            distiller.fit(A, Y, class_weight=weights, verbose=0)
        several = tfpeft.Distiller(of_outputs(), of_outputs(seed=1))
        several.compile("sgd", HARD)
        with pytest.raises(InputError, match="`class_weight`, expected None .*several outputs"):
            several.fit(A, [Y, Y % 2], class_weight=weights, verbose=0)
