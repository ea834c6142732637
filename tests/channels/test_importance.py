"""Scores by hand, and which channels go for given scores."""

import keras
import numpy as np
import pytest
from keras import layers

import tfpeft
from tests.channels.models import classifier, functional, images
from tfpeft.channels import importance as importance_module
from tfpeft.channels.families import Family
from tfpeft.channels.plan import Plan

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.fixture(scope="module")
def model():
    """Two convolutions, of which the first has a BatchNormalization."""
    return classifier()


@pytest.fixture(scope="module")
def plan(model):
    return Plan(model)


def scores(plan, importance, data=None, aggregate="mean", normalize="none", batch_size=32, seed=0):
    """Returns {names of the layers of a family: scores}."""
    made = plan.scores(
        importance,
        data,
        aggregate=aggregate,
        normalize=normalize,
        batch_size=batch_size,
        seed=seed,
    )
    return {family.name: each for family, each in zip(plan.families, made, strict=True)}


def kernels(model):
    """Returns rows of the kernel that makes channels, and of the one that consumes them."""
    first, second = (model.get_layer(name).kernel.numpy() for name in ("first", "second"))
    head = model.get_layer("head").kernel.numpy()
    return {
        "first": (np.moveaxis(first, 3, 0).reshape(6, -1), np.moveaxis(second, 2, 0)),
        "second": (np.moveaxis(second, 3, 0).reshape(8, -1), head),
    }


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize(("importance", "power"), [("l1", 1), ("l2", 2)])
def test_l1_and_l2_of_each_kernel_of_a_channel(model, plan, importance, power, aggregate):
    found = scores(plan, importance, aggregate=aggregate)
    for name, rows in kernels(model).items():
        each = [np.sum(np.abs(r.reshape(len(r), -1)) ** power, axis=1) for r in rows]
        expected = {"mean": np.mean, "sum": np.sum, "max": np.max}[aggregate](each, axis=0)
        np.testing.assert_allclose(found[name], expected, rtol=1e-5)


def test_slices_of_a_channel_are_added():
    def build(x):
        return layers.Dense(2, name="head")(layers.Flatten()(layers.Conv2D(3, 1, name="a")(x)))

    model = functional((2, 2, 2), build)
    kernel, head = model.get_layer("a").kernel.numpy(), model.get_layer("head").kernel.numpy()
    expected = np.abs(kernel).sum((0, 1, 2)) + np.abs(head).reshape(4, 3, 2).sum((0, 2))
    np.testing.assert_allclose(scores(Plan(model), "l1", aggregate="sum")["a"], expected, rtol=1e-5)


@pytest.mark.parametrize("rows", [1024, 4])
def test_fpgm_is_the_distance_to_the_other_filters(monkeypatch, model, plan, rows):
    monkeypatch.setattr(importance_module, "_ROWS", rows)
    found = scores(plan, "fpgm")
    for name, (rows, _) in kernels(model).items():
        expected = [sum(np.linalg.norm(a - b) for b in rows) for a in rows]
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)


def test_bn_scale_is_gamma_and_channels_without_one_have_none(model, plan):
    found = scores(plan, "bn_scale")
    np.testing.assert_allclose(found["first"], np.abs(model.get_layer("norm").gamma), rtol=1e-6)
    assert np.all(np.isnan(found["second"]))
    report = tfpeft.prune_channels(model, ratio=0.2, importance="bn_scale").channel_report
    assert report.widths["second"] == (8, 8)
    assert report.widths["first"] == (6, 3)  # 0.2 of all 14


def test_random_is_of_the_seed(plan):
    assert np.array_equal(scores(plan, "random")["first"], scores(plan, "random")["first"])
    assert not np.array_equal(
        scores(plan, "random")["first"], scores(plan, "random", seed=1)["first"]
    )
    assert all(np.all((each >= 0) & (each < 1)) for each in scores(plan, "random").values())


@pytest.mark.parametrize("normalize", ["mean", "max", "none"])
def test_scores_are_divided_by_those_of_the_family(plan, normalize):
    plain = scores(plan, "l2")
    for name, each in scores(plan, "l2", normalize=normalize).items():
        scale = {"mean": np.mean, "max": np.max, "none": lambda _: 1.0}[normalize](plain[name])
        np.testing.assert_allclose(each, plain[name] / scale)


def test_normalization_by_default(plan):
    data = images(8)
    for importance in ("l1", "l2", "fpgm", "taylor", "hessian", "random"):
        normalize = "none" if importance == "random" else "mean"
        expected = scores(plan, importance, data, normalize=normalize)
        found = scores(plan, importance, data, normalize=None)
        assert all(np.array_equal(found[name], expected[name]) for name in found)


def loss_of(model, x, y):
    return float(LOSS(y, model(x, training=False)))


@pytest.fixture(scope="module")
def derivatives(model):
    """What the loss changes when all weights that consume a channel are scaled a little."""
    x, y = images(12)

    def of(name, channel, x, y):
        consumer = model.get_layer({"first": "second", "second": "head"}[name])
        before, values = consumer.get_weights(), consumer.get_weights()
        step, found = 0.02, []
        for sign in (1, -1):
            values[0] = before[0].copy()
            np.moveaxis(values[0], -2, 0)[channel] *= 1 + sign * step
            consumer.set_weights(values)
            found.append(loss_of(model, x, y))
        consumer.set_weights(before)
        return (found[0] - found[1]) / (2 * step)

    batches = [(x[:8], y[:8]), (x[8:], y[8:])]
    sizes = {"first": 6, "second": 8}
    return {
        name: np.array([[of(name, c, *batch) for batch in batches] for c in range(size)])
        for name, size in sizes.items()
    }


def test_taylor_is_the_squared_change_of_the_loss_to_first_order(plan, derivatives):
    found = scores(plan, "taylor", images(12), batch_size=8)
    for name, each in derivatives.items():
        expected = np.mean(np.square(each), axis=1)
        np.testing.assert_allclose(found[name], expected, rtol=0.05, atol=1e-2 * expected.max())


def test_hessian_of_the_last_layer_by_hand(model, plan):
    x, y = images(8)
    features = keras.Model(model.inputs, model.layers[-2].output)(x).numpy()
    probabilities = keras.ops.softmax(model(x)).numpy()
    gradient = features.T @ (probabilities - np.eye(3)[y]) / len(y)
    expected = np.sum(np.square(model.get_layer("head").kernel * gradient), axis=1) / 2
    found = scores(plan, "hessian", (x, y))["second"]
    np.testing.assert_allclose(found, expected, rtol=1e-3)
    gradient = np.sum(model.get_layer("head").kernel * gradient, axis=1)
    np.testing.assert_allclose(
        scores(plan, "taylor", (x, y))["second"], np.square(gradient), rtol=1e-3
    )


def test_sample_weights_and_datasets_count(plan):
    x, y = images(12)
    weights = np.concatenate([np.ones(8), np.zeros(4)]).astype("float32")
    weighted = scores(plan, "taylor", (x, y, weights), batch_size=12)["second"]
    alone = scores(plan, "taylor", (x[:8], y[:8]), batch_size=8)["second"]
    # The loss is a mean over 12 samples.
    np.testing.assert_allclose(weighted, alone * (8 / 12) ** 2, rtol=1e-3)


def test_the_score_of_a_dead_channel_is_zero():
    model = classifier()
    kernel, bias = model.get_layer("second").get_weights()
    kernel[..., 2], bias[2] = 0.0, -1.0  # after ReLU nothing is left
    model.get_layer("second").set_weights([kernel, bias])
    plan = Plan(model)
    for importance in ("taylor", "hessian"):
        assert scores(plan, importance, images(8))["second"].argmin() == 2
    small = tfpeft.prune_channels(model, ratio=1 / 14, data=images(8))
    assert small.channel_report.widths["second"] == (8, 7)
    np.testing.assert_allclose(small(images(4)[0]), model(images(4)[0]), rtol=1e-4, atol=1e-5)


def test_a_function_of_a_family_chooses_the_channels(model):
    seen = []

    def last_ones_first(family):
        assert isinstance(family, Family)
        seen.append((family.name, len(family)))
        return -np.arange(len(family))

    options = {"ratio": 0.5, "scope": "layer", "normalize": "none", "round_to": 1}
    small = tfpeft.prune_channels(model, importance=last_ones_first, **options)
    assert sorted(seen) == [("first", 6), ("second", 8)]
    kernel = model.get_layer("first").kernel.numpy()
    np.testing.assert_array_equal(small.get_layer("first").kernel, kernel[..., :3])


@pytest.mark.parametrize(
    "function",
    [
        lambda family: np.ones(len(family) + 1),
        lambda family: [np.nan] * len(family),
        lambda family: "many",
        lambda family: 1 / 0,
        lambda family: family.nothing,
        lambda: None,
    ],
)
def test_a_function_that_returns_no_scores_is_an_error_in_one_line(model, function):
    with pytest.raises(tfpeft.InputError, match="importance") as error:
        tfpeft.prune_channels(model, ratio=0.5, importance=function)
    assert "\n" not in str(error.value)


def by_number(family):
    """Channels of wide families matter more, those of a family in their order."""
    return 10.0 * len(family) + np.arange(len(family))


def three(shape=(4,)):
    return functional(
        shape,
        lambda x: layers.Dense(2, name="head")(
            layers.Dense(12, name="c")(layers.Dense(8, name="b")(layers.Dense(4, name="a")(x)))
        ),
    )


@pytest.fixture(scope="module")
def stack():
    return three()


def left(model, **options):
    options = {"importance": by_number, "normalize": "none", **options}
    widths = tfpeft.prune_channels(model, verify=False, **options).channel_report.widths
    return [widths[name][1] for name in "abc"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"scope": "global", "ratio": 0.25}, [1, 5, 12]),  # 6 of 24: 3 of a, then b
        ({"scope": "layer", "ratio": 0.5}, [2, 4, 6]),
        ({"scope": "layer", "ratio": 0.5, "round_to": 4}, [4, 4, 8]),
        ({"scope": "layer", "ratio": 0.5, "min_channels": 5}, [4, 5, 6]),
        ({"scope": "layer", "ratio": 0.25, "max_ratio_per_layer": 0.25}, [3, 6, 9]),
        ({"scope": "global", "ratio": 0.25, "max_ratio_per_layer": 0.5}, [2, 4, 12]),
        ({"scope": "global", "ratio": 0.5, "max_ratio_per_layer": 0.9}, [1, 1, 10]),
        ({"scope": "isomorphic", "ratio": 0.25}, [1, 5, 12]),  # three Dense layers: one structure
        ({"scope": "layer", "ratio": 0.5, "exclude": ["b"]}, [2, 8, 6]),
    ],
)
def test_scopes_and_limits(stack, options, expected):
    assert left(stack, **options) == expected


def test_isomorphic_ranks_layers_of_one_structure_together():
    def build(x):
        x = layers.Conv1D(4, 1, name="a")(layers.Conv1D(8, 1, name="d")(x))
        return layers.Dense(2, name="head")(
            layers.Dense(12, name="b")(layers.Dense(6, name="c")(x))
        )

    model = functional((3, 2), build)
    # d feeds a convolution; a, c and b feed a Dense: three structures, of which c and b are one.
    widths = tfpeft.prune_channels(
        model,
        **{"importance": by_number, "normalize": "none", "scope": "isomorphic", "ratio": 0.5},
    ).channel_report.widths
    assert [widths[name][1] for name in "dacb"] == [4, 2, 1, 8]


def test_equal_scores_are_removed_in_the_order_of_the_channels(stack):
    small = tfpeft.prune_channels(
        stack, ratio=0.5, scope="layer", importance=lambda family: np.ones(len(family))
    )
    np.testing.assert_array_equal(
        small.get_layer("a").kernel, stack.get_layer("a").kernel.numpy()[:, 2:]
    )
