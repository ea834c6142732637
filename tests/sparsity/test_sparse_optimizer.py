"""What every sparse optimizer shares, beyond test_contract.py."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework.ops import gradient_registry

import tfpeft
from tests.networks import X, Y, compiled, sequential, train, zeros
from tfpeft.core.arguments import InputError, NoMatchError


def schedule(final=0.5):
    return tfpeft.polynomial_decay(final, begin=0.25, end=0.75, total_steps=8, frequency=2)


def pruning(**options):
    return tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), schedule(), **options)


def test_exclude_and_the_reasons_for_skipping():
    model = compiled(sequential(), pruning(exclude=("head",)))
    train(model)
    assert [zeros(layer.kernel) for layer in model.layers] == [30, 0]
    reasons = {path.split("/", 1)[1]: why for path, why in model.optimizer.skipped.items()}
    assert reasons == {
        "hidden/bias": "rank 1: no kernel",
        "head/bias": "rank 1: no kernel",
        "head/kernel": "excluded by 'head'",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfpeft.MagnitudePruning("adam", schedule()), "`optimizer`.*'adam'"),
        (lambda: tfpeft.MagnitudePruning(keras.optimizers.SGD(), 0.5), "`schedule`.*0.5"),
        (lambda: pruning(exclude="head"), "`exclude`.*'head'"),
        (lambda: pruning(exclude=None), "`exclude`.*None"),
        (lambda: pruning(exclude=[keras.layers.ReLU()]), "`exclude`.*ReLU"),
        (lambda: pruning().apply([]), "`trainable_variables`.*None"),
        (lambda: pruning(exclude=("tail",)).build(sequential().weights), "`exclude`.*tail"),
        (lambda: pruning(exclude=("*",)).build(sequential().weights), "no kernel"),
        (lambda: tfpeft.strip_pruning("model"), "`model`.*'model'"),
    ],
)
def test_bad_input_names_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_gradients_are_matched_to_kernels_by_variable():
    """In whatever order they come, and where one has none."""
    a, b = (
        keras.Variable(np.ones((2, 2), "float32"), name=name) for name in ("a_kernel", "b_kernel")
    )
    optimizer = tfpeft.MovementPruning(keras.optimizers.SGD(0.0), schedule())
    optimizer.build([a, b])
    optimizer.apply([tf.fill((2, 2), 2.0), tf.fill((2, 2), 1.0)], [b, a])
    scores = [score.numpy()[0, 0] for score in optimizer._states["score"]]
    assert scores == [-1.0, -2.0]
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        optimizer.apply([None, tf.fill((2, 2), 1.0)], [a, b])
    scores = [score.numpy()[0, 0] for score in optimizer._states["score"]]
    assert scores == [-1.0, -3.0]


def test_gradients_under_loss_scaling_are_those_without():
    results = []
    for inner in (keras.optimizers.SGD(0.0), None):
        if inner is None:
            inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.0), 1024.0)
        keras.utils.set_random_seed(0)
        model = compiled(sequential(), tfpeft.MovementPruning(inner, schedule(0.1)))
        train(model, epochs=1)
        results.append([score.numpy() for score in model.optimizer._states["score"]])
    assert np.any(results[0][0])
    for expected, scores in zip(*results, strict=True):
        np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-6)


def test_steps_that_overflow_do_not_count():
    """A LossScaleOptimizer inside skips them; scores stay finite."""
    inner = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))
    weight = keras.Variable(np.ones((2, 2), "float32"), name="kernel")
    optimizer = tfpeft.MovementPruning(inner, schedule())
    optimizer.apply([tf.fill((2, 2), np.inf)], [weight])
    np.testing.assert_array_equal(weight.numpy(), np.ones((2, 2)))
    np.testing.assert_array_equal(optimizer._states["score"][0].numpy(), np.zeros((2, 2)))


def test_sparsity_is_logged_to_history_and_tensorboard(tmp_path):
    model = compiled(sequential(), pruning(exclude=("head",)))
    callbacks = [tfpeft.SparsityLogger(), keras.callbacks.TensorBoard(tmp_path)]
    history = train(model, callbacks=callbacks).history
    np.testing.assert_allclose(history["sparsity"], [26 / 60, 0.5])
    tags = {}
    for file in (tmp_path / "train").glob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            tags.update({v.tag: tf.make_ndarray(v.tensor) for v in event.summary.value})
    assert float(tags["epoch_sparsity"]) == 0.5
    model = compiled(sequential(), keras.optimizers.Adam())
    with pytest.raises(ValueError, match="SparsityLogger expected.*Adam"):
        train(model, callbacks=[tfpeft.SparsityLogger()])


def test_the_learning_rate_can_be_set_by_callbacks():
    model = compiled(sequential(), pruning())
    train(model, callbacks=[keras.callbacks.LearningRateScheduler(lambda epoch: 0.5)])
    assert float(model.optimizer.inner_optimizer.learning_rate.numpy()) == 0.5


def test_predictions_come_from_the_zeros(tmp_path):
    """What is saved, exported and evaluated is the masked model, straight-through or not."""
    model = compiled(sequential(), pruning(straight_through=True))
    train(model)
    assert zeros(model.layers[0].kernel) == 30
    kernel, bias = model.layers[0].get_weights()
    hidden = np.maximum(X @ kernel + bias, 0)
    kernel, bias = model.layers[1].get_weights()
    np.testing.assert_allclose(model.predict(X, verbose=0), hidden @ kernel + bias, atol=1e-5)
    assert len(Y) == len(X)


def test_variables_need_neither_paths_nor_distinct_names():
    for make in (
        lambda o: tfpeft.MagnitudePruning(o, schedule(0.25)),
        lambda o: tfpeft.StaticSparse(o, 0.25, distribution="uniform"),
    ):
        variables = [tf.Variable(np.ones(shape, "float32")) for shape in [(4, 4), 4, (4, 2)]]
        optimizer = make(keras.optimizers.SGD(0.0))
        for _ in range(8):
            optimizer.apply([tf.zeros(v.shape) for v in variables], variables)
        assert [zeros(v) for v in variables] == [4, 0, 2]


def test_slopes_and_scales_are_no_kernels():
    model = keras.Sequential([keras.Input((2, 4)), keras.layers.Dense(4), keras.layers.PReLU()])
    model.add(keras.layers.RMSNormalization(axis=[1, 2]))
    optimizer = pruning()
    optimizer.build(model.trainable_variables)
    assert [variable.path.split("/")[-1] for variable in optimizer.sparse_variables] == ["kernel"]


def test_a_layer_that_is_frozen_later_stays_as_it_is():
    for make in (
        lambda o: tfpeft.ProximalL1(o, 0.1),
        lambda o: tfpeft.MagnitudePruning(o, schedule(), scope="erk"),
    ):
        model = sequential()
        optimizer = make(keras.optimizers.SGD(0.1))
        train(compiled(model, optimizer), epochs=1)
        model.layers[0].trainable = False
        before = model.layers[0].get_weights(), zeros(model.layers[1].kernel)
        train(compiled(model, optimizer), epochs=2)
        for old, new in zip(before[0], model.layers[0].get_weights(), strict=True):
            np.testing.assert_array_equal(new, old)
        assert zeros(model.layers[1].kernel) > before[1]


def test_a_build_that_raises_does_so_again_for_the_same_reason():
    for options in ({"exclude": ["hed"]}, {"block_size": (4, 7)}):
        optimizer, model = pruning(**options), sequential()
        for _ in range(2):
            with pytest.raises(ValueError, match=f"`{next(iter(options))}`"):
                train(compiled(model, optimizer))


def test_a_straight_through_weight_comes_back_as_it_was():
    """Whatever the model was given in between, and however often a step fails."""
    always = tfpeft.constant_sparsity(0.5, begin=0, total_steps=100, frequency=1)
    for make in (
        lambda o: tfpeft.MagnitudePruning(o, always, straight_through=True),
        lambda o: tfpeft.TargetedDropout(o, 1.0, 0.5),
    ):
        model = compiled(sequential(), make(keras.optimizers.SGD(0.0)))
        before = model.get_weights()
        for _ in range(3):
            train(model, epochs=1)
            model.set_weights(before)
        train(model, epochs=1)
        optimizer = model.optimizer
        for weight, dense in zip(
            optimizer.sparse_variables, optimizer._states["dense"], strict=True
        ):
            index = next(i for i, w in enumerate(model.weights) if w is weight)
            np.testing.assert_allclose(dense.numpy(), before[index], rtol=1e-6)
            assert zeros(weight) == weight.numpy().size // 2


@pytest.mark.parametrize("technique", ["pruning", "dropout"])
def test_a_model_without_trainable_kernels_is_an_error_in_one_line(technique):
    frozen = sequential()
    frozen.trainable = False
    for model, received in (
        (frozen, "no trainable variables"),
        (keras.Sequential([keras.Input((6,)), keras.layers.ReLU()]), "no trainable variables"),
        (keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization()]), "rank 1"),
    ):
        optimizer = pruning()
        if technique == "dropout":
            optimizer = tfpeft.TargetedDropout(keras.optimizers.SGD(0.1), 0.5, 0.5)
        model.compile(optimizer, "mse")
        with pytest.raises(NoMatchError, match=f"found no kernel to work on.*{received}") as error:
            model.fit(X, X[:, :1] if model is frozen else X, verbose=0)
        assert "\n" not in str(error.value)
    with pytest.raises(NoMatchError, match="no trainable variables"):
        pruning().apply([], [])
    with pytest.raises(NoMatchError, match="no trainable variables"):
        pruning().sparse_variables  # noqa: B018


def test_training_leaves_no_graph_in_the_registry_of_gradients():
    """As many as the plain optimizer leaves would be two for each `fit`."""
    for optimizer in (pruning(), tfpeft.MovementPruning(keras.optimizers.SGD(0.1), schedule())):
        model = compiled(sequential(), tfpeft.ProximalL1(optimizer, 1e-3))
        before = set(gradient_registry.list())
        train(model, epochs=1)
        assert set(gradient_registry.list()) == before
    plain = compiled(sequential(), keras.optimizers.SGD(0.1))
    train(plain, epochs=1)
    assert set(gradient_registry.list()) != before  # else Keras no longer needs the help


@pytest.mark.parametrize(
    "arguments",
    [{"straight_through": "no"}, {"straight_through": 1}, {"name": 3}, {"block_size": (True, 2)}],
)
def test_arguments_of_other_types(arguments):
    with pytest.raises(InputError, match=f"`{next(iter(arguments))}`, expected .*Received: "):
        pruning(**arguments)
