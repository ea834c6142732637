"""`recommend` on tiny trained models: what each goal gets, resuming, and bad input."""

import importlib.util
import json

import keras
import numpy as np
import pytest
import sklearn.datasets

import tfpeft
from tfpeft.automl.advice.trials import FileTrials

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None,
    reason="the package tflite-micro is not installed",
)
needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None,
    reason="the package ethos-u-vela is not installed",
)


def digits():
    found = sklearn.datasets.load_digits()
    x = (found.images[..., None] / 16).astype("float32")
    return (x[:800], found.target[:800]), (x[1200:], found.target[1200:])


@pytest.fixture(scope="module")
def convolutional():
    """A trained network of two convolutions."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, activation="relu", name="first"),
            keras.layers.Conv2D(32, 3, activation="relu", name="second"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss, metrics=["accuracy"])
    model.fit(*digits()[0], epochs=6, verbose=0)
    return model


def recommended(model, **arguments):
    train, validation = digits()
    options = {"minutes": 5, "steps": 60, "max_metric_loss": 0.03, "verbose": False}
    return tfpeft.recommend(model, train, **{"validation_data": validation, **options, **arguments})


def factors(found):
    return {each["name"]: each["gain"]["factor"] for each in found.trials if each["gain"]}


def test_a_cnn_for_a_microcontroller_computes_less_without_channels(convolutional):
    found = recommended(
        convolutional, goal="latency", target="xnnpack", techniques=["prune_channels", "prune"]
    )
    first = found.recommendations[0]
    assert first.technique == "prune_channels"
    assert not found.nothing_to_gain
    assert first.figure == "macs"
    assert first.factor > 1.9
    assert "1x1" in found.not_tried["prune"] or "XNNPACK" in found.not_tried["prune"]
    rows = {row["layer"]: row for row in found.layers}
    assert rows["second"]["share_of_macs"] > 0.5
    assert rows["second"]["loss_of_half_channels"] is not None


def test_what_may_be_best_trains_again_for_longer(convolutional, tmp_path, monkeypatch):
    monkeypatch.setattr("tfpeft.automl.advice.files._MOST_STEPS", 5)
    monkeypatch.setattr("tfpeft.automl.advice.files.LONGER", (4,))
    options = {"goal": "latency", "target": "xnnpack", "techniques": ["prune_channels"]}
    options |= {"steps": None, "max_metric_loss": 0.0, "folder": tmp_path / "trials"}
    found = recommended(convolutional, **options)
    trials = {each["name"]: each for each in found.trials if each["gain"]}
    assert trials["prune_channels-0.5"]["updates"] == 5
    longer = trials["prune_channels-0.5@20"]
    assert (longer["updates"], longer["is_short"]) == (20, False)
    assert longer["gain"] == trials["prune_channels-0.5"]["gain"]  # of MACs
    assert longer["loss"]["relative"] < trials["prune_channels-0.5"]["loss"]["relative"]
    assert (tmp_path / "trials" / "prune_channels-0.5@20.tflite").is_file()
    assert "prune_channels-0.5" not in [each.trial for each in found.recommendations]
    assert "short" not in found.recommendations[0].limits
    again = recommended(convolutional, **options)
    assert [each["name"] for each in again.trials] == [each["name"] for each in found.trials]


def test_zeros_are_not_tried_for_latency_on_this_machine(convolutional):
    found = recommended(convolutional, goal="latency", techniques=["prune", "cluster"])
    assert "dense" in found.not_tried["prune"]
    assert found.nothing_to_gain


def test_a_download_gets_int8_and_zeros(convolutional):
    found = recommended(convolutional, goal="download", techniques=["quantize", "prune"])
    gains = factors(found)
    both = [name for name in gains if name.startswith("prune") and "quantize" in name]
    assert max(gains, key=gains.get) in both
    first = found.recommendations[0]
    assert first.technique == "prune+quantize"
    assert first.factor > 1.3 * gains["quantize-int8"] > 2.0
    assert "--stages=prune,quantize --final_sparsity=" in first.command
    assert json.loads(json.dumps(found.as_dict()))["recommendations"][0]["gain"]["factor"] > 2
    assert found.model["gzip_bytes"] < found.model["size_bytes"] < 10 * found.model["parameters"]
    low, high = found.model["intervals"]["accuracy"]
    assert low <= found.metric["accuracy"] <= high
    text = str(found)
    assert text.startswith("For download (size of the compressed file on this machine): Prune")
    assert first.command in text
    assert first.code in found.to_markdown()


@needs_vela
def test_zeros_count_for_an_ethos_u(convolutional):
    found = recommended(convolutional, goal="size", target="ethos-u55-128", techniques=["prune"])
    gains = factors(found)
    assert gains["prune-0.8+quantize-int8"] > 1.1
    assert not found.nothing_to_gain
    assert found.figure == "flash_bytes"
    assert "--input_type=int8 --output_type=int8 --target=ethos-u55-128" in str(found)


@needs_tflm
def test_clusters_count_for_tflm_and_int8_for_its_arena(convolutional):
    found = recommended(convolutional, goal="size", target="tflm", techniques=["cluster"])
    assert factors(found)["cluster-16"] > 3.0  # tables of values
    assert found.figure == "flash_bytes"
    assert "one value of many" in found.not_tried["prune"]
    found = recommended(convolutional, goal="memory", target="tflm", techniques=["quantize"])
    assert found.recommendations[0].technique == "quantize"
    assert found.recommendations[0].factor > 1.5
    assert found.figure == "arena_bytes"
    assert "arena" in found.not_tried["prune"]


def test_a_small_net_that_overfits_gets_distillation():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(460, 20)).astype("float32")
    y = (x[:, :3].sum(axis=1) > 0).astype("int64")
    train = x[:60], np.where(rng.random(60) < 0.1, 1 - y[:60], y[:60])
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((20,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(2)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    model.fit(*train, epochs=20, verbose=0)
    options = {"techniques": ["distill"], "seed": 2}
    found = recommended_of(model, train, (x[60:], y[60:]), **options)
    assert found.model["gap"]["relative"] > 0.1
    assert "overfits" in str(found)
    trained = [each["name"] for each in found.trials if each["gain"]]
    assert trained[:2] == ["tune", "distill-0.5"]
    assert found.recommendations[0].trial == "distill-0.5"
    assert found.recommendations[0].loss_is == "allowed"
    again = recommended_of(model, train, (x[60:], y[60:]), **options)  # with the same numbers
    assert [each["loss"] for each in again.trials] == [each["loss"] for each in found.trials]


def recommended_of(model, train, validation, **arguments):
    options = {"goal": "size", "minutes": 5, "steps": 60, "verbose": False}
    return tfpeft.recommend(model, train, **{"validation_data": validation, **options, **arguments})


def test_a_tiny_model_has_nothing_to_gain():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 3)).astype("float32")
    y = x @ np.float32([[1.0], [2.0], [3.0]])
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.set_weights([np.float32([[1.0], [2.0], [3.0]]), np.zeros(1, "float32")])
    found = recommended_of(model, (x, y), None, techniques=["quantize", "prune_channels"])
    assert found.nothing_to_gain
    assert not any(each.loss_is != "too much" for each in found.recommendations)
    assert "most of it is the format" in str(found)
    assert "The metric is of 20 validation samples, which are a fifth of `data`" in str(found)
    assert found.as_dict()["nothing_to_gain"]
    assert "channels" in found.not_tried["prune_channels"]
    # Of a fifth of the data it is not known whether the model was trained on it.
    assert found.model["gap"]["relative"] is None


def test_a_quantise_aware_model_has_nothing_to_gain(convolutional):
    aware = tfpeft.quantize_aware(convolutional, representative_data=digits()[0])
    found = recommended(aware, goal="size")
    assert found.nothing_to_gain
    assert found.trials == []
    assert "integer already" in found.not_tried["quantize"]


def test_a_model_of_zeros_keeps_them(convolutional):
    pruned = keras.models.clone_model(convolutional)
    pruned.set_weights(
        [
            np.where(np.abs(w) >= np.quantile(np.abs(w), 0.85), w, 0) if w.ndim > 1 else w
            for w in convolutional.get_weights()
        ]
    )
    found = recommended(pruned, goal="download", techniques=["prune", "distill", "quantize"])
    assert "zeros already" in found.not_tried["prune"]
    assert "distill" in found.not_tried
    assert found.recommendations[0].technique == "quantize"


def test_outputs_in_a_list_are_compared_by_their_names():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 8)).astype("float32")
    y = {"total": x.sum(axis=1, keepdims=True), "sign": (x[:, 0] > 0).astype("int64")}
    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    heads = [keras.layers.Dense(1, name="total"), keras.layers.Dense(2, "softmax", name="sign")]
    model = keras.Model(inputs, [head(hidden) for head in heads])
    train = {name: each[:80] for name, each in y.items()}
    validation = [y[name][80:] for name in ("total", "sign")]
    found = recommended_of(
        model, (x[:80], train), (x[80:], validation), steps=5, techniques=["distill"]
    )
    assert set(found.metric) == {"total/rmse", "sign/accuracy"}
    _, first, second = [each for each in found.trials if each["gain"]]  # after training alone
    assert first["gain"]["factor"] > 1.1
    assert second["loss"]["metric"] in found.metric


def test_three_tasks_share_a_backbone_with_adapters():
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, 12, (360, 8))
    labels = {
        "first": tokens[:, 0] // 6,
        "middle": tokens[:, 4] // 4,
        "last": tokens[:, -1] // 4,
    }
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,), dtype="int32")
    hidden = keras.layers.Embedding(12, 32)(inputs)
    hidden = keras.layers.Flatten()(hidden)
    hidden = keras.layers.Dense(256, activation="relu", name="wide")(hidden)
    backbone = keras.Model(inputs, keras.layers.Dense(8, activation="tanh", name="out")(hidden))
    found = tfpeft.recommend(
        backbone,
        None,
        goal="tasks",
        tasks={name: (tokens, y) for name, y in labels.items()},
        minutes=5,
        steps=150,
        learning_rate=3e-3,
        max_metric_loss=0.03,
        verbose=False,
    )
    first = found.recommendations[0]
    assert first.technique == "lora", str(found)
    assert first.loss_is != "too much"
    assert first.factor > 1.5
    assert "--backbone=model.keras" in first.command
    assert "--adapter=lora" in first.command
    assert "--task=middle=middle.npz" in first.command


def test_a_backbone_has_no_head(convolutional):
    classes = keras.Sequential([convolutional, keras.layers.Softmax()])
    tasks = dict.fromkeys(("first", "second"), digits()[0])
    with pytest.raises(tfpeft.InputError, match="a backbone without its head"):
        tfpeft.recommend(classes, None, goal="tasks", tasks=tasks, minutes=1, verbose=False)


def test_adapters_are_compared_with_training_of_all_weights():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(64, 64)).astype("float32")
    y = (x[:, 0] > 0).astype("int64")
    model = keras.Sequential(
        [keras.Input((64,)), keras.layers.Dense(128, "relu", name="hidden"), keras.layers.Dense(2)]
    )
    found = tfpeft.recommend(
        model,
        (x, y),
        goal="training_cost",
        minutes=5,
        steps=20,
        techniques=["lora", "norm_tuning"],
        verbose=False,
    )
    (lora,) = [each for each in found.trials if each["gain"]]
    assert lora["trainable_parameters"] < model.count_params() / 3
    assert lora["training_bytes"] < found.model["training_bytes"]
    assert "norm" in found.not_tried["norm_tuning"].lower()


def test_a_call_that_was_killed_goes_on(convolutional, tmp_path, monkeypatch):
    measured, run = [], FileTrials._measured

    def killed_at_the_second(self, chain):
        measured.append(chain.name)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return run(self, chain)

    monkeypatch.setattr(FileTrials, "_measured", killed_at_the_second)
    arguments = {"goal": "download", "techniques": ["quantize"], "folder": tmp_path / "trials"}
    with pytest.raises(KeyboardInterrupt):
        recommended(convolutional, **arguments)
    found = recommended(convolutional, **arguments)
    assert measured == ["quantize-int8", *["quantize-dynamic_range"] * 2, "quantize-float16"]
    again = recommended(convolutional, **{**arguments, "minutes": 1e-6})
    assert len(measured) == 4
    assert again.as_dict() == found.as_dict()
    with pytest.raises(tfpeft.InputError, match="seed was 0 and is 1"):
        recommended(convolutional, **arguments, seed=1)


def test_what_there_is_no_time_for_is_listed(convolutional):
    found = recommended(convolutional, goal="size", minutes=1e-6)
    assert found.trials == []
    assert found.nothing_to_gain
    assert {"quantize-int8", "prune_channels-0.5"} <= set(found.not_tried)
    assert "no time was left" in found.not_tried["distill-0.5"]
    assert str(found).startswith("No trial for size ended")
    assert "quantize-float16" in found.reasons[0]


@pytest.mark.parametrize(
    ("argument", "value", "message"),
    [
        ("goal", "speed", "'latency', 'size'"),
        ("goal", "tasks", "two tasks or more"),
        ("goal", "memory", "'tflm' or an Ethos-U"),
        ("target", "phone", "`target`"),
        ("minutes", 0, "`minutes`, expected a positive number"),
        ("minutes", -1.0, "`minutes`"),
        ("max_metric_loss", -0.1, "`max_metric_loss`"),
        ("techniques", ["lora"], "some of quantize"),
        ("techniques", "quantize", "a list of some"),
        ("steps", 0, "`steps`"),
        ("folder", "", "`folder`"),
        ("data", (np.zeros((20, 5), "float32"), np.zeros(20, int)), "takes"),
        ("data", (np.zeros((4, 8, 8, 1), "float32"), np.zeros(4, int)), "10 samples or more"),
        ("data", (np.full((20, 8, 8, 1), np.nan), np.zeros(20, int)), "finite"),
        ("data", (np.zeros((20, 8, 8, 1), "float32"),), "labels"),
    ],
)
def test_bad_input(convolutional, argument, value, message):
    train, _ = digits()
    arguments = {"data": train, "goal": "size", "minutes": 1, "verbose": False, argument: value}
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.recommend(convolutional, **arguments)


def test_a_device_that_is_not_installed(convolutional, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tfpeft.InputError, match="pip install 'tfpeft\\[devices\\]'"):
        recommended(convolutional, goal="size", target="ethos-u55-128")
