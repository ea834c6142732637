"""Precomputed outputs of frozen models: stored, resumed, joined, and bad input."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.caching.samples import HARD, Batches, X, Y, dataset, rng, student


def counting(model, limit=None):
    """Returns a function of a batch, and the sizes of the batches that it was run on."""
    sizes = []

    def run(x):
        def count(x):
            if limit is not None and len(sizes) == limit:
                raise RuntimeError("killed")
            sizes.append(len(x))
            return x

        counted = tf.numpy_function(count, [x], tf.float32)
        counted.set_shape(x.shape)
        return model(counted, training=False)

    return run, sizes


DATA = {"arrays": lambda: (X, Y), "dataset": dataset, "pydataset": Batches}


@pytest.mark.parametrize("where", ["memory", "folder"])
@pytest.mark.parametrize("form", DATA)
def test_outputs_equal_predictions(where, form, teacher, tmp_path, small_shards):
    path = tmp_path / "outputs" if where == "folder" else None
    data = DATA[form]()
    found = tfpeft.precompute(teacher, data, path, features=["deep"], batch_size=20)
    assert found.samples == 50
    expected = teacher.predict(X, verbose=0)
    np.testing.assert_allclose(found.outputs, expected, rtol=1e-5, atol=1e-6)
    features = teacher.get_layer("body").predict(X, verbose=0)
    np.testing.assert_allclose(found.features["deep"], features, rtol=1e-5, atol=1e-6)
    half = tfpeft.precompute(teacher, data, float16=True)
    assert half.outputs.dtype == "float16"
    np.testing.assert_allclose(half.outputs, expected, rtol=1e-3, atol=1e-3)
    other_form = tfpeft.precompute(teacher, (X, Y), path, features=["deep"])
    np.testing.assert_allclose(other_form.outputs, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_an_epoch_equals_one_with_the_teacher(form, teacher, tmp_path, small_shards):
    losses = [
        tfpeft.SoftLabels(),
        tfpeft.FeatureMatching(teacher_layer="deep", student_layer="hidden"),
    ]

    def train(model, data):
        keras.utils.set_random_seed(1)
        distiller = tfpeft.Distiller(
            model, student(), distillation_losses=losses, teacher_from_logits=True
        )
        distiller.compile(keras.optimizers.SGD(0.1, momentum=0.9), HARD, metrics=["accuracy"])
        is_arrays = isinstance(data, tuple)
        data = data if is_arrays else (data,)
        history = distiller.fit(*data, batch_size=10 if is_arrays else None, verbose=0)
        return history.history, distiller.student.get_weights()

    data = (X, Y) if form == "arrays" else dataset(10)
    logs, weights = train(teacher, data)
    for path in (None, tmp_path / "outputs"):
        precomputed = tfpeft.precompute(teacher, (X, Y), path, features=["deep"])
        found_logs, found_weights = train(None, precomputed.join(data))
        assert set(found_logs) == set(logs)
        for name, value in logs.items():
            np.testing.assert_allclose(found_logs[name], value, rtol=1e-5)
        for expected, weight in zip(weights, found_weights, strict=True):
            np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_a_pydataset_joins_as_a_dataset(teacher):
    joined = tfpeft.precompute(teacher, Batches()).join(Batches())
    assert joined.cardinality() == 7
    elements = list(joined)
    assert [len(x.inputs) for x, _ in elements] == [8] * 6 + [2]
    np.testing.assert_array_equal(np.concatenate([x.inputs for x, _ in elements]), X)
    np.testing.assert_array_equal(np.concatenate([y for _, y in elements]), Y)
    outputs = np.concatenate([x.teacher["outputs"][0] for x, _ in elements])
    np.testing.assert_allclose(outputs, teacher(X, training=False), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_data_without_labels(form, teacher):
    data = X if form == "arrays" else dataset(10).map(lambda x, y: x)
    joined = tfpeft.precompute(teacher, data).join(data)
    distiller = tfpeft.Distiller(None, student(), alpha=0.0, teacher_from_logits=True)
    distiller.compile("sgd")
    with_teacher = tfpeft.Distiller(teacher, distiller.student, alpha=0.0)
    with_teacher.compile("sgd")
    expected = with_teacher.evaluate(X, verbose=0, return_dict=True)["loss"]
    joined = joined if form == "arrays" else (joined,)
    found = distiller.evaluate(*joined, verbose=0, return_dict=True)["loss"]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_outputs_in_the_data_go_before_the_teacher(teacher):
    counted, sizes = counting(teacher)
    joined = tfpeft.precompute(counted, (X, Y)).join((X, Y))
    assert sizes == [50]
    distiller = tfpeft.Distiller(counted, student(), teacher_from_logits=True)
    distiller.compile("adam", HARD)
    distiller.fit(*joined, verbose=0)
    assert sizes == [50]


def test_joined_data_may_be_shuffled_and_has_weights_and_predictions(teacher):
    joined = tfpeft.precompute(teacher, dataset()).join(dataset())
    shuffled = joined.unbatch().shuffle(50, seed=1).batch(10)
    expected = teacher.predict(X, verbose=0)
    rows = {row.tobytes(): logits for row, logits in zip(X, expected, strict=True)}
    order = []
    for (inputs, teacher_outputs), labels in shuffled:
        order += labels.numpy().tolist()
        for row, logits in zip(inputs.numpy(), teacher_outputs["outputs"][0].numpy(), strict=True):
            np.testing.assert_allclose(logits, rows[row.tobytes()], rtol=1e-5, atol=1e-6)
    assert sorted(order) == sorted(Y.tolist())
    assert order != Y.tolist()

    x, y, weight = tfpeft.precompute(teacher, (X, Y, 2.0 * Y)).join((X, Y, 2.0 * Y))
    distiller = tfpeft.Distiller(None, student(), teacher_from_logits=True)
    distiller.compile("adam", HARD)
    distiller.fit(shuffled, validation_data=(x, y), verbose=0)
    distiller.fit(x, y, sample_weight=weight, verbose=0)
    distiller.fit(joined, class_weight={0: 1, 1: 2, 2: 3}, verbose=0)
    np.testing.assert_array_equal(
        distiller.predict(x, verbose=0), distiller.student.predict(X, verbose=0)
    )


def test_validation_data_without_outputs_is_measured_by_labels(teacher):
    precomputed = tfpeft.precompute(teacher, (X, Y))
    distiller = tfpeft.Distiller(None, student(), alpha=0.3, teacher_from_logits=True)
    distiller.compile(keras.optimizers.SGD(0.0), HARD)
    logs = distiller.fit(*precomputed.join((X, Y)), validation_data=(X, Y), verbose=0).history
    hard = float(HARD(Y, distiller.student.predict(X, verbose=0)))
    np.testing.assert_allclose(logs["val_loss"][0], hard, rtol=1e-5)
    assert "val_soft_labels" not in logs
    assert logs["loss"][0] != pytest.approx(hard, rel=1e-3)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_a_killed_call_resumes(form, teacher, tmp_path, small_shards):
    data = (X, Y) if form == "arrays" else dataset()
    running, sizes = counting(teacher, limit=5)

    def model(x):
        return running(x)

    with pytest.raises(tf.errors.OpError, match="killed"):
        tfpeft.precompute(model, data, tmp_path / "outputs", batch_size=8)
    assert sizes == [8] * 5
    (tmp_path / "outputs" / "tfpeft-partial.00002").mkdir()  # what a kill may leave behind
    running, sizes = counting(teacher)
    found = tfpeft.precompute(model, data, tmp_path / "outputs", batch_size=8)
    assert sizes == [8, 8, 8, 2]  # two shards of 16 exist; the first batch identifies the model
    np.testing.assert_allclose(found.outputs, teacher.predict(X, verbose=0), rtol=1e-5, atol=1e-6)
    other_size = tfpeft.precompute(model, (X, Y), tmp_path / "outputs", batch_size=7)
    assert other_size.samples == 50
    running, sizes = counting(teacher)
    again = tfpeft.precompute(model, data, tmp_path / "outputs", batch_size=8)
    assert sizes == [8]
    np.testing.assert_array_equal(again.outputs, found.outputs)
    assert not list((tmp_path / "outputs").glob("tfpeft-partial*"))


def test_structures_of_inputs_and_outputs_and_several_models(tmp_path):
    def two(units):
        words = keras.Input((), dtype="string", name="words")
        numbers = keras.Input((2,), name="numbers")
        lookup = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
        hidden = keras.layers.Concatenate()([lookup(words), numbers])
        outputs = {"kind": keras.layers.Dense(3)(hidden), "size": keras.layers.Dense(1)(hidden)}
        return keras.Model({"words": words, "numbers": numbers}, outputs)

    x = {"words": np.array(["a", "b", "é"] * 4), "numbers": rng.normal(size=(12, 2))}
    models = [two(3), two(4)]
    for path in (None, tmp_path / "outputs", tmp_path / "outputs"):
        found = tfpeft.precompute(models, x, path)
        for model, outputs in zip(models, found.outputs, strict=True):
            for name, expected in model.predict(_tensors(x), verbose=0).items():
                np.testing.assert_allclose(outputs[name], expected, rtol=1e-5, atol=1e-6)
        data = tf.data.Dataset.from_tensor_slices(x).batch(5)
        assert sum(1 for _ in found.join(data)) == 3
    changed = {**x, "words": x["words"][::-1]}
    with pytest.raises(ValueError, match="samples 0 to 11"):
        found.join(changed)


def _tensors(x):
    return {name: tf.constant(array) for name, array in x.items()}


def test_probabilities_are_not_halved(teacher):
    model = keras.Sequential([teacher, keras.layers.Softmax()])
    model.build((None, 5))
    half = tfpeft.precompute(model, (X, Y), features=["deep"], float16=True)
    assert (half.outputs.dtype, half.features["deep"].dtype) == ("float32", "float16")


def test_batches_of_texts_of_other_lengths():
    rows = [[1, 2], [3], [1, 2, 3, 4], [5, 6, 7], [1], [2]]
    data = tf.data.Dataset.from_generator(
        lambda: rows, output_signature=tf.TensorSpec((None,), tf.int32)
    ).padded_batch(2)
    found = tfpeft.precompute(lambda x: tf.cast(tf.reduce_sum(x, 1), "float32")[:, None], data)
    np.testing.assert_array_equal(found.outputs[:, 0], [sum(row) for row in rows])
    assert [int(tf.shape(x.inputs)[1]) for (x,) in found.join(data)] == [2, 4, 1]


def test_outputs_of_several_without_the_teachers(teacher):
    models = [teacher, keras.Sequential([teacher, keras.layers.Softmax()])]
    models[1].build((None, 5))
    joined = tfpeft.precompute(models, (X, Y)).join((X, Y))
    options = {"teacher_weights": [1.0, 3.0], "alpha": 0.0}
    results = []
    for each, flags in ((models, None), (None, [True, False])):
        keras.utils.set_random_seed(1)
        distiller = tfpeft.Distiller(each, student(), teacher_from_logits=flags, **options)
        distiller.compile("sgd")
        results.append(distiller.evaluate(*joined, verbose=0, return_dict=True)["loss"])
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    for each, options, message in [
        (teacher, {}, "outputs of 1 teachers.*2"),
        (None, {"teacher_weights": [1.0, 1.0, 1.0]}, "`teacher_weights`.*2 numbers"),
        (None, {"teacher_from_logits": [True]}, "2 entries"),
    ]:
        options = {"teacher_from_logits": True, **options}
        distiller = tfpeft.Distiller(each, student(), alpha=0.0, **options)
        distiller.compile("sgd")
        with pytest.raises(ValueError, match=message):
            distiller.fit(*joined, verbose=0)


def test_the_folder_is_plain_to_read(teacher, tmp_path, small_shards):
    tfpeft.precompute(teacher, (X, Y), tmp_path, features=["deep"], batch_size=16)
    about = json.loads((tmp_path / "about.json").read_text())
    assert about["features"] == ["deep"]
    shards = sorted(each.name for each in tmp_path.iterdir() if each.is_dir())
    assert shards == ["00000", "00001", "00002", "00003"]
    assert [len(np.load(tmp_path / shard / "0.npy")) for shard in shards] == [16, 16, 16, 2]
