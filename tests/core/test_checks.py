"""Checks inside a graph: which error reaches the caller, and with which values."""

import functools

import pytest
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.checks import assert_in_graph, input_errors


def too_large(limit, received):
    return InputError(f"expected at most {limit}. Received: {received:g}")


def only_small(x, limit=3.0):
    """Returns x after the check."""
    make_error = functools.partial(too_large, limit)
    largest = tf.reduce_max(x)
    with tf.control_dependencies(assert_in_graph(largest <= limit, make_error, values=[largest])):
        return tf.identity(x)


@pytest.mark.parametrize("run", [only_small, tf.function(only_small)], ids=["eager", "graph"])
def test_the_error_of_the_check_that_fails(run):
    with input_errors():
        assert run(tf.constant([1.0, 3.0])).numpy().tolist() == [1.0, 3.0]
        for largest in (7.0, 8.5):
            message = f"at most 3.0. Received: {largest:g}$"
            with pytest.raises(InputError, match=message), input_errors():
                run(tf.constant([1.0, largest]))


def test_of_two_checks_the_one_that_fails():
    @tf.function
    def run(x):
        return only_small(only_small(x, 5.0), 3.0)

    for largest, limit in ((4.0, 3.0), (6.0, 5.0)):
        message = f"at most {limit}. Received: {largest:g}$"
        with pytest.raises(InputError, match=message), input_errors():
            run(tf.constant([largest]))


def test_nothing_runs_after_a_check_that_fails():
    state = tf.Variable(0.0)

    @tf.function
    def run(x):
        with tf.control_dependencies([only_small(x)]):
            state.assign_add(1.0)

    with pytest.raises(InputError), input_errors():
        run(tf.constant([4.0]))
    assert float(state) == 0.0


def nan_error():
    return InputError("expected finite values")


def test_without_values_it_compiles_and_shows_what_is_given():
    def checked(x):
        with tf.control_dependencies(
            assert_in_graph(x < 3.0, nan_error, shown=lambda: ["the value is", x])
        ):
            return tf.identity(x)

    assert float(tf.function(checked, jit_compile=True)(tf.constant(4.0))) == 4.0
    run = tf.function(checked)
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"(?s)the value is.*4"):
        run(tf.constant(4.0))
    with pytest.raises(InputError, match="expected finite values"), input_errors():
        run(tf.constant(4.0))


def test_other_errors_pass():
    @tf.function
    def run(x):
        tf.debugging.assert_less(x, 3.0)
        return x

    with pytest.raises(tf.errors.InvalidArgumentError), input_errors():
        run(tf.constant(4.0))


def test_every_replica_is_checked(mirrored):
    values = mirrored.experimental_distribute_values_from_function(
        lambda context: tf.constant([1.0, 9.0][context.replica_id_in_sync_group])
    )
    run = tf.function(lambda: mirrored.run(only_small, args=(values,)))
    with pytest.raises(InputError, match=r"at most 3.0. Received: 9$"), input_errors():
        run()
