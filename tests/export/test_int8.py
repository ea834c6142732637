"""int8 files: which samples calibrate them, what 8 bits cannot hold, and which files are kept."""

import contextlib

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.export.deviation import Deviation, _deviation

rng = np.random.default_rng(0)
layers = keras.layers


def export(model, path, data, **options):
    return tfpeft.export_tflite(
        model, path, quantization="int8", representative_data=data, **options
    )


def relative_error(path, model, data):
    found, expected = tfpeft.TFLiteFile(path).predict(data), model.predict(data, verbose=0)
    return np.sqrt(np.mean((found - expected) ** 2) / np.mean(np.var(expected, axis=0)))


def test_sorted_data_calibrates_as_shuffled_data(tmp_path):
    """The first samples are the smallest: ranges taken from them cut the others off."""
    x = np.sort(rng.gamma(1.0, 2.0, (900, 1)), axis=0) * rng.normal(size=(900, 6))
    x = x.astype("float32")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(8, "relu"), layers.Dense(3)])
    report = export(model, tmp_path / "m.tflite", x)
    assert relative_error(tmp_path / "m.tflite", model, x) < 0.1
    assert report.relative_error < 0.1
    assert (report.calibration_samples, report.compared_samples) == (400, 200)
    assert report.held_out
    assert "calibrated on 400 samples, compared on 200 others" in str(report)
    few = export(model, tmp_path / "m.tflite", x[::50])
    assert (few.calibration_samples, few.compared_samples, few.held_out) == (18, 18, False)
    assert "the same, as there are few" in str(few)
    again = export(model, tmp_path / "m.tflite", np.tile(x[::50], (40, 1)))
    assert (again.calibration_samples, again.compared_samples, again.held_out) == (600, 600, False)


def table(**extra):
    columns = {"age": rng.normal(40, 12, 600), "income": rng.normal(5e4, 2e4, 600), **extra}
    return np.stack(list(columns.values()), axis=1).astype("float32")


def test_a_table_stays_in_float_up_to_its_normalization(tmp_path):
    x = table(share=rng.random(600), height=rng.normal(1.7, 0.1, 600))
    normalization = layers.Normalization(name="scaling")
    normalization.adapt(x)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), normalization, layers.Dense(8, "relu"), layers.Dense(2)]
    )
    report = export(model, tmp_path / "m.tflite", x)
    assert relative_error(tmp_path / "m.tflite", model, x) < 0.05
    assert report.notes == ("float32: scaling",)
    assert report.ops["FULLY_CONNECTED"] == 2
    assert report.int8_share == 0.5


def test_columns_that_are_alike_are_normalized_in_int8(tmp_path):
    x = rng.normal(3.0, 2.0, (200, 4)).astype("float32")
    normalization = layers.Normalization()
    normalization.adapt(x)
    model = keras.Sequential([keras.Input((4,)), normalization, layers.Dense(3)])
    report = export(model, tmp_path / "m.tflite", x)
    assert report.int8_share == 1.0
    assert report.notes == ()


def test_a_table_without_normalization_keeps_what_reads_it_in_float(tmp_path):
    x = table()
    dense = layers.Dense(2, use_bias=False, name="first")
    model = keras.Sequential([keras.Input((2,)), dense])
    dense.kernel.assign([[1.0, 0.0], [0.0, 1e-3]])
    report = export(model, tmp_path / "m.tflite", x)
    assert report.notes == ("float32: first",)
    assert report.max_deviation < 1e-2


def test_numbers_of_categories_stay_whole(tmp_path):
    """A slice of a table that an embedding reads: 8 bits of incomes have no steps for it."""
    x = table(category=rng.integers(0, 9, 600))
    inputs = keras.Input((3,))
    category = keras.ops.cast(inputs[:, 2], "int32")
    embedding = layers.Embedding(9, 3, embeddings_initializer=keras.initializers.RandomNormal(0, 1))
    model = keras.Model(inputs, layers.Dense(2)(embedding(category)))
    export(model, tmp_path / "m.tflite", x)
    assert relative_error(tmp_path / "m.tflite", model, x) < 0.05


def attention(kind, value):
    keras.utils.set_random_seed(0)
    x, mask = keras.Input((6, 8), name="x"), keras.Input((6,), name="mask")
    valid = keras.ops.expand_dims(mask, 1)
    if kind == "layer":
        hidden = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=valid > 0.5)
    else:
        query, key, values = (layers.Dense(8)(x) for _ in range(3))
        scores = keras.ops.matmul(query, keras.ops.transpose(key, (0, 2, 1)))
        if kind == "add":
            scores = scores + (1.0 - valid) * value
        elif kind == "input":
            scores = scores + valid
        else:
            scores = keras.ops.where(valid > 0.5, scores, value)
        hidden = keras.ops.matmul(keras.ops.softmax(scores), values)
    return keras.Model([x, mask], layers.Dense(3)(hidden))


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("layer", None),
        ("add", -1e9),
        ("add", float(np.finfo("float32").min)),
        ("where", -np.inf),
        ("input", -1e9),
    ],
)
def test_masks_of_attention_leave_the_scores_their_bits(tmp_path, kind, value):
    data = {
        "mask": (np.arange(6) < rng.integers(2, 7, (200, 1))).astype("float32"),
        "x": rng.normal(size=(200, 6, 8)).astype("float32"),
    }
    if kind == "input":
        data["mask"] = (1 - data["mask"]) * value
    model = attention(kind, value)
    report = export(model, tmp_path / "m.tflite", data)
    assert report.relative_error < 0.12
    assert any("masks of attention clipped to -2" in note for note in report.notes)


@pytest.fixture(scope="module")
def unlike():
    """A model whose second layer computes a large and a small output from one tensor."""
    keras.utils.set_random_seed(0)
    first = layers.Dense(2, use_bias=False, name="unlike")
    last = layers.Dense(2, use_bias=False, name="last")
    model = keras.Sequential([keras.Input((2,)), first, layers.Activation("tanh"), last])
    first.kernel.assign([[1.0, 0.0], [0.0, 1.0]])
    last.kernel.assign([[1000.0, 0.0], [0.0, 1.0]])
    return model, rng.normal(size=(300, 2)).astype("float32")


def test_a_file_that_lost_an_output_raises_and_names_the_layer(unlike, tmp_path):
    model, x = unlike
    with pytest.raises(tfpeft.ExportError, match="expected an error of at most 30%") as error:
        export(model, tmp_path / "m.tflite", x)
    text = str(error.value)
    assert "the layer last lost most" in text
    assert text.endswith("float_layers=['last'] or quantization=\"dynamic_range\"")
    assert "\n" not in text
    assert not list(tmp_path.iterdir())


def test_what_the_error_names_keeps_the_file(unlike, tmp_path):
    model, x = unlike
    report = export(model, tmp_path / "m.tflite", x, float_layers=["last"])
    assert report.relative_error < 0.05
    assert report.notes == ("float32: last",)
    report = export(model, tmp_path / "m.tflite", x, allow_deviation=2.0)
    assert 0.3 < report.relative_error < 2.0
    with pytest.raises(tfpeft.ExportError, match="an error of at most 10%"):
        export(model, tmp_path / "m.tflite", x, allow_deviation=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"float_layers": ["no_such"]}, "`float_layers`.*such as .*unlike, .*no_such"),
        ({"float_layers": "last"}, "`float_layers`, expected a list"),
        ({"float_layers": ["last"], "quantization": "none"}, 'quantization="int8"'),
        ({"allow_deviation": float("nan")}, "`allow_deviation`.*positive"),
        ({"allow_deviation": -1}, "`allow_deviation`.*positive"),
        ({"ranges": "minmax"}, "`ranges`, expected one of 'mse', 'percentile', 'extended'"),
        ({"equalize": 1}, "`equalize`, expected True or False"),
        ({"correct_bias": "no"}, "`correct_bias`, expected True or False"),
        ({"ranges": "percentile", "quantization": "none"}, 'quantization="int8" with `ranges`'),
        ({"equalize": True, "quantization": "float16"}, 'quantization="int8" with `equalize`'),
    ],
)
def test_bad_arguments(unlike, tmp_path, options, message):
    options = {"quantization": "int8", **options}
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.export_tflite(
            unlike[0], tmp_path / "m.tflite", representative_data=unlike[1], **options
        )


def test_deviation_by_hand():
    """Column 0: errors 1, spread 2; column 1: errors 0.3, spread 0.1; 4 of 4 predicted alike."""
    model = np.array([[9.0, 0.1], [13.0, 0.3], [9.0, 0.1], [13.0, 0.3]])
    file = model + [[1.0, 0.3], [-1.0, -0.3], [1.0, -0.3], [-1.0, 0.3]]
    deviation = _deviation([(file[:1], model[:1]), (file[1:], model[1:])], None)
    assert deviation.largest == pytest.approx(1.0)
    assert deviation.relative == pytest.approx(3.0)
    assert deviation.agreement == deviation.clear_agreement == deviation.clear_share == 1.0
    assert deviation.of_peak == pytest.approx(0.3)  # of column 1, and of 1
    # Of probabilities, all columns together: errors 0.1, spread 0.3.
    model = np.array([[0.2, 0.8], [0.8, 0.2]])
    deviation = _deviation([(model + [[0.1, -0.1], [-0.1, 0.1]], model)], "softmax")
    assert deviation.relative == pytest.approx(0.1 / 0.3)
    assert deviation.has_spread


@pytest.mark.parametrize("samples", [1, 5])
def test_outputs_without_spread_are_compared_with_their_size(samples):
    model = np.tile([[3.0, 4.0]], (samples, 1))
    deviation = _deviation([(model + [[0.3, 0.4]], model)], None)
    assert deviation.relative == deviation.lost == pytest.approx(0.1)
    assert not deviation.has_spread
    assert not Deviation().worse(deviation).has_spread
    deviation = _deviation([(np.zeros((samples, 1)), np.ones((samples, 1)))], "sigmoid")
    assert deviation.lost == 1.0
    # One column of several: relative to 2% of itself, and of the others.
    model = np.stack([np.full(4, 10.0), [1.0, -1.0, 1.0, -1.0]], 1)
    deviation = _deviation([(model + [[0.1, 0.0]], model)], None)
    assert deviation.relative == pytest.approx(0.1 / (0.2**2 + 4e-4 * 0.5) ** 0.5)


def _spread(scale, size=300, seed=1):
    return scale * np.random.default_rng(seed).normal(size=size)


RARE = 0.02 * (np.arange(300) == 7)


@pytest.mark.parametrize(
    ("activation", "model", "error", "is_lost"),
    [
        ("sigmoid", 0.01 + _spread(1e-4, (300, 5)), 1 / 256, False),
        ("sigmoid", 0.01 + _spread(1e-4, (300, 5)), 3 / 256, True),
        (
            "softmax",
            np.full((300, 4), 0.25) + _spread(1e-3, (300, 1)) * [1, -1, 1, -1],
            0.006,
            False,
        ),
        # The sum of squares of many classes does not hide the wrong one.
        ("softmax", 0.01 + _spread(3e-5, (300, 100)), [0.05] + [0] * 99, True),
        # Classes of noise: like columns, far apart.
        (None, [[2.0, -1.0, 0.5]] + _spread(0.005, (300, 3)), 3 / 255, False),
        (None, [[2.0, -1.0, 0.5]] + _spread(0.005, (300, 3)), 9 / 255, True),
        # A step of a large column or an offset is no measure.
        (None, _spread(1.0, (300, 2)) * [1000.0, 1.0], 1.0, True),
        (None, 300 + _spread(0.5, (300, 1)), 0.5, True),
        (None, 300 + _spread(0.5, (300, 2)), 0.5, True),
        # A feature that is hardly ever above zero decides nothing, a usual one does.
        ("relu", np.stack([*np.abs(_spread(1.0, (3, 300))), RARE], 1), 0.01, False),
        ("relu", np.abs(_spread(1.0, (300, 2))) * [1000.0, 1.0], 1.0, True),
    ],
)
def test_two_steps_of_8_bits_are_no_loss(activation, model, error, is_lost):
    deviation = _deviation([(model + error, model)], activation)
    assert deviation.relative > 0.3
    assert (deviation.lost > 0.3) == is_lost


@pytest.mark.parametrize("samples", [1, 60])
def test_untrained_models_and_equal_samples_are_exported(tmp_path, samples):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3, activation="relu")])
    model.add(layers.GlobalAveragePooling2D())
    model.add(layers.Dense(50, activation="softmax"))
    x = np.random.default_rng(2).random((samples, 8, 8, 3)).astype("float32")
    is_one = samples == 1
    expected = pytest.warns(UserWarning, match="one sample") if is_one else contextlib.nullcontext()
    with expected:
        report = export(model, tmp_path / "m.tflite", x)
    assert report.max_deviation < 1 / 128
    with pytest.raises(tfpeft.ExportError, match="an error of at most 0%"):
        export(model, tmp_path / "n.tflite", np.concatenate([x, x]), allow_deviation=1e-5)
    assert ("spread of the outputs is not known" in str(report)) == is_one


def test_all_samples_count_for_the_agreement_and_clear_ones_for_the_file():
    """Of ten samples three are near ties; the file has two of these and a clear one otherwise."""
    model = np.array([[0.0, 5.0]] * 4 + [[5.0, 0.0]] * 3 + [[2.0, 2.01]] * 3)
    file = model.copy()
    file[[0, 8, 9]] = file[[0, 8, 9], ::-1]
    deviation = _deviation([(file, model)], None)
    assert deviation.agreement == 0.7
    assert deviation.clear_share == 0.7
    assert deviation.clear_agreement == pytest.approx(6 / 7)
    # Softmax of tokens or pixels has classes too, other maps have not.
    maps = [(file.reshape(2, 5, 2), model.reshape(2, 5, 2))]
    assert _deviation(maps, "softmax").agreement == 0.7
    assert _deviation(maps, None).agreement is None


@pytest.mark.parametrize("mask", [-1e4, -1e9, float(np.finfo("float32").min), -np.inf])
@pytest.mark.parametrize("per_sample", [False, True])
def test_masks_among_the_outputs_hide_no_other_error(mask, per_sample):
    logits = rng.normal(size=(200, 4)).astype("float32")
    rows = np.arange(200) % 4 if per_sample else 2
    model = logits.copy()
    model[np.arange(200), rows] += np.float32(mask)
    good = np.maximum(model + np.float32(0.01), -65504)  # float16 has no lower ones
    deviation = _deviation([(good, model)], None)
    assert deviation.relative == pytest.approx(0.01, rel=0.2)
    assert deviation.of_peak == pytest.approx(0.01 / np.abs(logits).max(), rel=0.5)
    assert deviation.agreement == 1.0
    assert deviation.clear_share > 0.8
    lost = np.where(model < -1e3, model, 0.0)  # as int8 has it
    deviation = _deviation([(lost, model)], None)
    assert deviation.relative == pytest.approx(1.0, rel=0.2)
    assert deviation.of_peak > 0.9
    assert deviation.clear_agreement < 0.6
    deviation = _deviation([(logits, model)], None)
    assert deviation.relative == deviation.of_peak == 1.0


def test_a_large_column_hides_no_other_one():
    model = np.stack([rng.normal(1e5, 2e4, 300), rng.random(300), rng.normal(-4e3, 500, 300)], 1)
    file = model + np.array([50.0, 0.5, 0.0])
    deviation = _deviation([(file, model)], None)
    assert deviation.relative == pytest.approx(0.5 * 12**0.5, rel=0.1)
    assert deviation.of_peak > 2e-3
    deviation = _deviation([(model - np.array([0.0, 0.0, 500.0]), model)], None)
    assert deviation.relative == pytest.approx(1.0, rel=0.1)  # prices below zero are no masks


def test_logits_that_lost_the_bits_to_masked_classes_raise(tmp_path):
    x = rng.normal(size=(400, 6)).astype("float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    logits = layers.Dense(4, name="logits")(layers.Dense(16, activation="relu")(inputs))
    ruled_out = np.array([0.0, 0.0, -1e9, -1e9], "float32")
    model = keras.Model(inputs, logits + ruled_out)
    with pytest.raises(tfpeft.ExportError, match="clearly predicted classes.*logits lost most"):
        export(model, tmp_path / "m.tflite", x)
    report = export(model, tmp_path / "m.tflite", x, float_layers=["logits"])
    assert report.agreement > 0.97
    report = tfpeft.export_tflite(
        model, tmp_path / "m.tflite", quantization="float16", representative_data=x
    )
    assert report.agreement > 0.97
