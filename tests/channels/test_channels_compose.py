"""What is pruned is a plain model: saved, trained, distilled, adapted, exported, pruned again."""

import keras
import numpy as np
import pytest
from keras import layers

import tfpeft
from tests.channels.models import classifier, images, with_random_weights
from tests.networks import zeros
from tests.test_contract import TECHNIQUES, WAYS

X, Y = images(32)


def half(model, **options):
    return tfpeft.prune_channels(model, **{"ratio": 0.5, "importance": "l2", **options})


@pytest.fixture(scope="module")
def model():
    model = classifier()
    model.fit(X, Y, epochs=2, batch_size=16, verbose=0)
    return model


@pytest.fixture(scope="module")
def small(model):
    return half(model)


def test_it_is_plain_keras_of_the_same_names(model, small):
    assert type(small) is type(model)
    assert small.name == model.name
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    assert all(not type(layer).__module__.startswith("tfpeft") for layer in small.layers)
    assert small.output_shape == model.output_shape


def test_it_is_saved_and_loaded_without_tfpeft(small, tmp_path):
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(loaded(X), small(X))
    assert loaded.compiled


def test_it_is_compiled_as_the_model_is_with_a_new_optimizer(model, small):
    assert small.optimizer is not model.optimizer
    assert small.optimizer.get_config() == model.optimizer.get_config()
    assert small.optimizer.iterations.numpy() == 0
    assert small.loss.get_config() == model.loss.get_config()
    assert set(small.evaluate(X, Y, return_dict=True, verbose=0)) == {"loss", "accuracy"}
    assert not half(classifier(compiled=False)).compiled


def test_the_model_stays_as_it_is_bit_for_bit(model):
    before = [w.numpy() for w in model.weights]
    optimizer = [v.numpy() for v in model.optimizer.variables]
    config, calls = model.to_json(), [layer.call for layer in model.layers]
    for importance in ("taylor", "hessian", "l1", "fpgm"):
        half(model, importance=importance, data=(X, Y))
    for now, then in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(now, then)
    for now, then in zip(model.optimizer.variables, optimizer, strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.to_json() == config
    assert [layer.call for layer in model.layers] == calls
    assert not hasattr(model, "channel_report")


def test_the_same_call_gives_the_same_model(model):
    first, second = (half(model, importance="taylor", data=(X, Y)) for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", WAYS)
def test_it_trains_under_sparse_optimizers(small, name):
    model = keras.models.clone_model(small)
    model.set_weights(small.get_weights())
    if name == "fixed_mask":
        for weight in model.trainable_weights:
            weight.assign(weight * (np.arange(weight.numpy().size).reshape(weight.shape) % 2))
    model.compile(TECHNIQUES[name](keras.optimizers.Adam(1e-2)), small.loss, metrics=["accuracy"])
    model.fit(X, Y, batch_size=4, verbose=0)  # the eight steps of the schedules
    stripped = tfpeft.strip_pruning(model)
    np.testing.assert_array_equal(stripped(X), model(X))
    if name == "magnitude":  # and what was pruned that way can lose channels
        smaller = half(stripped)
        assert sum(map(zeros, smaller.weights)) > 0
        assert smaller.count_params() < model.count_params()


def test_a_model_with_a_sparse_optimizer_can_lose_channels():
    model = classifier()
    schedule = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=4)
    model.compile(tfpeft.MagnitudePruning(keras.optimizers.Adam(), schedule), model.loss)
    model.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    small = half(model)
    assert type(small.optimizer) is tfpeft.MagnitudePruning
    small.fit(X, Y, batch_size=16, epochs=2, verbose=0)
    tfpeft.strip_pruning(small)


def test_it_learns_from_the_model_that_it_comes_from(model, small):
    distiller = tfpeft.Distiller(model, small, alpha=0.1, temperature=2.0)
    distiller.compile(keras.optimizers.Adam(1e-2), model.loss, metrics=["accuracy"])
    before = small.get_weights()
    distiller.fit(X, Y, batch_size=16, verbose=0)
    assert any(not np.array_equal(a, b) for a, b in zip(before, small.get_weights(), strict=True))
    assert half(distiller.student).count_params() < small.count_params()


def test_it_takes_adapters_and_models_with_merged_ones_can_be_pruned(small):
    adapted = tfpeft.add_adapters(small, tfpeft.LoRA(rank=2))
    adapted.compile("adam", small.loss)
    adapted.fit(X, Y, batch_size=16, verbose=0)
    merged = tfpeft.merge_adapters(adapted)
    np.testing.assert_allclose(merged(X), adapted(X), rtol=1e-4, atol=1e-5)
    assert half(merged).count_params() < merged.count_params()


def test_adapters_are_not_pruned_and_say_so(model):
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2))
    try:
        report = half(adapted).channel_report
    except tfpeft.InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert report.difference <= 1e-4


def test_it_is_exported_and_its_file_is_smaller(model, small, tmp_path):
    sizes = []
    for name, each in (("model", model), ("small", small)):
        path = tmp_path / f"{name}.tflite"
        tfpeft.export_tflite(each, path)
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]
    outputs = tfpeft.TFLiteFile(tmp_path / "small.tflite").predict(X)
    np.testing.assert_allclose(outputs, small(X), rtol=1e-4, atol=1e-5)


def test_it_is_pruned_again(model):
    once = half(model, ratio=0.25, scope="layer")
    twice = half(once, ratio=0.5, scope="layer")
    assert once.channel_report.widths["second"] == (8, 6)
    assert twice.channel_report.widths["second"] == (6, 3)


def test_what_layers_are_configured_with_stays():
    inputs = keras.Input((5,), name="features")
    x = layers.Dense(
        8,
        kernel_regularizer=keras.regularizers.L2(0.1),
        bias_constraint="non_neg",
        kernel_initializer="he_normal",
        name="a",
    )(inputs)
    x = layers.BatchNormalization(momentum=0.5, trainable=False, name="norm")(x)
    x = layers.Dense(6, trainable=False, name="b")(layers.Dropout(0.3)(x))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x), name="configured")
    model = with_random_weights(model)
    small = half(model)
    for old, new in zip(model.layers, small.layers, strict=True):
        ours, theirs = new.get_config(), old.get_config()
        for key in ("units", "batch_shape"):
            ours.pop(key, None), theirs.pop(key, None)
        assert ours == theirs
        assert new.trainable == old.trainable
    assert len(small.trainable_weights) == len(model.trainable_weights)
    assert [each.name for each in small.inputs] == ["features"]
    assert small.output_names == ["out"]
    assert len(small.losses) == 1


@pytest.mark.parametrize("make", ["sequential", "unnamed input", "loaded", "nested sequential"])
def test_ways_to_make_a_model(make, tmp_path):
    model = keras.Sequential(
        [layers.Dense(8, activation="relu", name="a"), layers.Dense(6), layers.Dense(2)]
    )
    model.build((None, 4))
    if make == "unnamed input":
        model = keras.Sequential([keras.Input((4,)), *model.layers])
    elif make == "nested sequential":
        model = keras.Sequential([keras.Input((4,)), model, layers.Softmax()])
    elif make == "loaded":
        model.save(tmp_path / "model.keras")
        model = keras.models.load_model(tmp_path / "model.keras")
    small = half(model)
    assert type(small) is keras.Sequential
    assert small.input_shape == model.input_shape
    assert small.output_shape == model.output_shape
    assert small.count_params() < model.count_params()


def test_outputs_that_are_inside_the_model_too():
    inputs = keras.Input((4,))
    middle = layers.Dense(6, name="middle")(inputs)
    out = layers.Dense(2, name="out")(layers.Dense(5, name="b")(middle))
    model = with_random_weights(keras.Model(inputs, [out, middle, out, inputs]))
    small = half(model, scope="layer")
    assert [each.shape for each in small.outputs] == [each.shape for each in model.outputs]
    widths = small.channel_report.widths
    assert widths == {"middle": (6, 6), "b": (5, 3), "out": (2, 2)}
    outputs = small(np.ones((2, 4), "float32"))
    np.testing.assert_array_equal(outputs[0], outputs[2])


def test_a_part_of_another_model():
    inputs = keras.Input((4,))
    a = layers.Dense(6, name="a")(inputs)
    b = layers.Dense(5, name="b")(a)
    whole = with_random_weights(keras.Model(inputs, layers.Dense(2)(b)))
    features = half(keras.Model(inputs, b), scope="layer")
    assert features.channel_report.widths == {"a": (6, 3), "b": (5, 5)}
    classes = half(keras.Model(a, whole.output), scope="layer")
    assert classes.input_shape == (None, 6)


def test_states_of_recurrent_layers_and_batches_of_a_fixed_size():
    inputs = keras.Input(batch_shape=(3, 4, 2))
    x = layers.LSTM(6, stateful=True, return_sequences=True, name="a")(inputs)
    model = with_random_weights(
        keras.Model(inputs, layers.Dense(2)(layers.GRU(4, stateful=True, name="b")(x)))
    )
    model(np.ones((3, 4, 2), "float32"))
    states = [np.array(each) for each in model.get_layer("a").states]
    small = half(model, scope="layer")
    assert small.channel_report.widths["a"] == (6, 3)
    assert small.input_shape == (3, 4, 2)
    for now, then in zip(model.get_layer("a").states, states, strict=True):
        np.testing.assert_array_equal(now, then)
    wide = keras.Input(batch_shape=(3, 5))
    model = with_random_weights(keras.Model(wide, layers.Dense(2)(layers.Dense(8)(wide))))
    assert half(model).channel_report.macs == (56, 28)  # of one sample


def test_the_report_as_a_table_and_a_plot(small, tmp_path):
    report = small.channel_report
    lines = str(report).splitlines()
    assert lines[0].split("|")[1:5] == [" layer ", " channels before ", " after ", " ratio "]
    assert lines[2].startswith("| first | 6 |")
    assert any(line.startswith("| parameters | 599 |") for line in lines)
    assert any(line.startswith("head keeps its channels: ") for line in lines)
    assert "largest difference" in lines[-1]
    report.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"
