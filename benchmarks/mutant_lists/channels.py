"""Formulas of channel pruning with a mistake in each."""

from mutant_lists.mutant import Mutant

_CHANNELS = "channels/"

MUTANTS = (
    Mutant(
        "channels, Taylor: without the square",
        "channels/importance.py",
        'np.square(each) if importance == "taylor" else each',
        "each",
        (
            f"{_CHANNELS}test_importance.py::test_taylor_is_the_squared_change_of_the_loss_to_first_order",
        ),
    ),
    Mutant(
        "channels, Hessian: without the half",
        "channels/importance.py",
        "0.5 * tf.square(each)",
        "tf.square(each)",
        (f"{_CHANNELS}test_importance.py::test_hessian_of_the_last_layer_by_hand",),
    ),
    Mutant(
        "channels, L2: the absolute value",
        "channels/importance.py",
        "np.sum(np.square(_rows(member)), axis=1)",
        "np.sum(np.abs(_rows(member)), axis=1)",
        (f"{_CHANNELS}test_importance.py::test_l1_and_l2_of_each_kernel_of_a_channel",),
    ),
    Mutant(
        "channels, FPGM: squared distances",
        "channels/importance.py",
        "np.sum(np.sqrt(np.maximum(distances, 0)), axis=1)",
        "np.sum(np.maximum(distances, 0), axis=1)",
        (f"{_CHANNELS}test_importance.py::test_fpgm_is_the_distance_to_the_other_filters",),
    ),
    Mutant(
        "channels: left over are rounded down",
        "channels/selection.py",
        "-(-(len(ranked) - number) // self._round_to)",
        "((len(ranked) - number) // self._round_to)",
        (f"{_CHANNELS}test_importance.py::test_scopes_and_limits",),
    ),
    Mutant(
        "channels: gates lose the first channels of all",
        "channels/layer_rules.py",
        "blocks = np.tile(made, gates)",
        "blocks = np.repeat(made, gates)",
        (
            f"{_CHANNELS}test_rules.py::test_slices_that_go_with_a_channel_and_the_outputs_without_it",
        ),
    ),
    Mutant(
        "channels: a depth multiplier in turn",
        "channels/layer_rules.py",
        "made = None if tags is None else np.repeat(tags, layer.depth_multiplier)",
        "made = None if tags is None else np.tile(tags, layer.depth_multiplier)",
        (
            f"{_CHANNELS}test_rules.py::test_slices_that_go_with_a_channel_and_the_outputs_without_it",
        ),
    ),
    Mutant(
        "constant channels: the other sign",
        "channels/constants.py",
        "layer.bias.numpy() + bias",
        "layer.bias.numpy() - bias",
        (f"{_CHANNELS}test_constants.py::test_a_constant_goes_into_the_bias_of_a_dense_layer",),
    ),
    Mutant(
        "constant channels: borders of zeros do not count",
        "channels/constants.py",
        'layer.padding == "valid" or all(side == 1 for side in layer.kernel_size)',
        "True",
        (f"{_CHANNELS}test_constants.py::test_where_a_constant_is_the_same_everywhere",),
    ),
    Mutant(
        "constant channels: BatchNormalization without its mean",
        "channels/constants.py",
        "(values - layer.moving_mean.numpy())",
        "values",
        (
            f"{_CHANNELS}test_constants.py::"
            "test_batch_normalization_makes_constants_by_its_scale_and_moves_others",
        ),
    ),
)
