"""Formulas of tfpeft with a mistake in each, and the tests that must notice it."""

import typing


class Mutant(typing.NamedTuple):
    """A change of a formula.

    Attributes:
        name: What is wrong in it.
        file: The file in tfpeft/.
        right: The formula; it is in the file once.
        wrong: What takes its place.
        tests: Tests, in tests/, one of which must fail: "folder/file.py::test".
    """

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


_MASKS = "sparsity/test_masks.py::"
_PRUNING = "sparsity/test_pruning.py::"
_SPARSE = "sparsity/test_sparse_training.py::"
_L1 = "sparsity/test_l1.py::"
_LOSSES = "distillation/test_distillation_losses.py::"
_ADAPTERS = "adapters/test_formulas.py::TestFormulas::"
_CHANNELS = "channels/"
_TASKS = "sharing/test_task_losses.py::"
_CLASSES = (f"{_LOSSES}test_losses_on_classes_equal_loops",)
_FEATURES = (f"{_LOSSES}test_losses_on_features_equal_loops",)

MUTANTS = (
    Mutant(
        "kept weights: rounded down",
        "sparsity/masks.py",
        "kept = tf.round(",
        "kept = tf.floor(",
        (f"{_MASKS}test_masks_are_those_of_tfmot",),
    ),
    Mutant(
        "kept weights: none may be left",
        "sparsity/masks.py",
        "tf.maximum(kept, 1.0)",
        "tf.maximum(kept, 0.0)",
        (f"{_MASKS}test_masks_are_those_of_tfmot", f"{_MASKS}test_one_weight_stays"),
    ),
    Mutant(
        "threshold: > in place of >=",
        "sparsity/masks.py",
        "lambda: flat >= limit,",
        "lambda: flat > limit,",
        (f"{_MASKS}test_masks_are_those_of_tfmot",),
    ),
    Mutant(
        "equal scores: one too few with XLA",
        "sparsity/masks.py",
        "tf.int32)) <= wanted))",
        "tf.int32)) < wanted))",
        (f"{_MASKS}test_top_mask_equals_a_stable_sort",),
    ),
    Mutant(
        "ERK: without the sum of the sides",
        "sparsity/masks.py",
        "[sum(shape) / size for",
        "[1.0 / size for",
        (f"{_MASKS}test_erk_densities_by_hand",),
    ),
    Mutant(
        "ERK: densities above 1",
        "sparsity/masks.py",
        "tf.minimum(scale * weights, 1.0)",
        "scale * weights",
        (f"{_MASKS}test_erk_densities_by_hand", f"{_MASKS}test_scaled_densities_give_the_sparsity"),
    ),
    Mutant(
        "blocks: the maximum in place of the mean",
        "sparsity/masks.py",
        "tf.reduce_mean(blocks, axis=[-3, -1])",
        "tf.reduce_max(blocks, axis=[-3, -1])",
        (f"{_MASKS}test_blocks_are_pooled_and_spread",),
    ),
    Mutant(
        "n:m: without the rule for equal scores",
        "sparsity/masks.py",
        "(there > here) | ((there == here) & earlier)",
        "there > here",
        (f"{_MASKS}test_n_m_of_equal_scores",),
    ),
    Mutant(
        "n:m: the last of equal scores",
        "sparsity/masks.py",
        "np.tril(np.ones((m, m), bool), -1)",
        "np.triu(np.ones((m, m), bool), 1)",
        (f"{_MASKS}test_n_m_of_equal_scores",),
    ),
    Mutant(
        "magnitude: without the absolute value",
        "sparsity/criteria.py",
        "return tf.abs(kernel.weight)",
        "return kernel.weight",
        (f"{_PRUNING}test_step_by_step_against_numpy",),
    ),
    Mutant(
        "Taylor: without the absolute value",
        "sparsity/criteria.py",
        "score.assign_add(tf.abs(weight * gradient))",
        "score.assign_add(weight * gradient)",
        (f"{_PRUNING}test_gradient_pruning_against_numpy",),
    ),
    Mutant(
        "Taylor: scores of all steps",
        "sparsity/criteria.py",
        'kernel.state["score"].assign(tf.zeros_like(scores))',
        'kernel.state["score"].assign(scores)',
        (f"{_PRUNING}test_gradient_pruning_against_numpy",),
    ),
    Mutant(
        "movement: the other sign",
        "sparsity/criteria.py",
        "score.assign_sub(weight * gradient)",
        "score.assign_add(weight * gradient)",
        (f"{_PRUNING}test_movement_pruning_against_numpy",),
    ),
    Mutant(
        "importance in rounds: of the gradient alone",
        "sparsity/importance.py",
        "tf.abs(variable * gradient)",
        "tf.abs(gradient)",
        ("sparsity/test_iterative_pruning.py::test_gradient_importance_of_a_linear_model_by_hand",),
    ),
    Mutant(
        "polynomial decay: a square",
        "sparsity/schedules.py",
        "power: float = 3.0",
        "power: float = 2.0",
        ("sparsity/test_schedules.py::test_polynomial_decay_by_hand",),
    ),
    Mutant(
        "schedules: no update at the end",
        "sparsity/schedules.py",
        "begin_step + (end_step - begin_step) % frequency, end_step",
        "begin_step, end_step",
        ("sparsity/test_schedules.py::test_the_last_update_is_at_the_end",),
    ),
    Mutant(
        "SET: the cosine grows",
        "sparsity/set_rigl.py",
        "(1 + tf.cos(math.pi * progress))",
        "(1 - tf.cos(math.pi * progress))",
        (f"{_SPARSE}test_rigl_drops_the_smallest_and_grows_by_gradient",),
    ),
    Mutant(
        "SET: twice the drop fraction",
        "sparsity/set_rigl.py",
        "self.drop_fraction / 2 * (1",
        "self.drop_fraction * (1",
        (f"{_SPARSE}test_rigl_drops_the_smallest_and_grows_by_gradient",),
    ),
    Mutant(
        "RigL: grows by magnitude",
        "sparsity/set_rigl.py",
        "return tf.abs(kernel.gradient)",
        "return tf.abs(kernel.weight)",
        (f"{_SPARSE}test_rigl_drops_the_smallest_and_grows_by_gradient",),
    ),
    Mutant(
        "SET: what grows keeps its moments",
        "sparsity/set_rigl.py",
        "moment.assign(tf.where(grown, tf.cast(initial, moment.dtype), moment))",
        "moment.assign(moment)",
        (f"{_SPARSE}test_what_grows_starts_with_fresh_moments",),
    ),
    Mutant(
        "proximal L1: a hard threshold",
        "sparsity/l1.py",
        "weight - tf.clip_by_value(weight, -threshold, threshold)",
        "tf.where(tf.abs(weight) > threshold, weight, 0.0)",
        (f"{_L1}test_proximal_l1_against_numpy",),
    ),
    Mutant(
        "proximal L1: without the learning rate",
        "sparsity/l1.py",
        "learning_rate * self.l1, 0.0)",
        "self.l1, 0.0)",
        (f"{_L1}test_proximal_l1_against_numpy",),
    ),
    Mutant(
        "proximal group L1: n in place of its root",
        "sparsity/l1.py",
        "threshold * math.sqrt(math.prod(weight.shape) / math.prod(sides))",
        "threshold * (math.prod(weight.shape) / math.prod(sides))",
        (f"{_L1}test_proximal_group_l1_against_numpy",),
    ),
    Mutant(
        "targeted dropout: keeps where it drops",
        "sparsity/targeted_dropout.py",
        "step) >= drop_rate",
        "step) < drop_rate",
        (f"{_SPARSE}test_targeted_dropout_drops_targets_only_and_gives_them_back",),
    ),
    Mutant(
        "soft labels: without T^2",
        "distillation/distillation_loss.py",
        "return temperature**2 * super()",
        "return super()",
        ("distillation/test_distillation.py::test_value_equals_numpy",),
    ),
    Mutant(
        "soft labels: a mean over the classes",
        "distillation/logits_losses.py",
        "ops.sum(ops.where(p > 0.0, p * (log_p - log_q), 0.0), axis=-1)",
        "ops.mean(ops.where(p > 0.0, p * (log_p - log_q), 0.0), axis=-1)",
        _CLASSES,
    ),
    Mutant(
        "soft labels: the student's divergence from the teacher",
        "distillation/logits_losses.py",
        "_divergence(ops.log_softmax(teacher, axis=-1), ops.log_softmax(student, axis=-1))",
        "_divergence(ops.log_softmax(student, axis=-1), ops.log_softmax(teacher, axis=-1))",
        _CLASSES,
    ),
    Mutant(
        "distiller: alpha is the teacher's",
        "distillation/distiller.py",
        "alpha * hard + (1.0 - alpha) * soft",
        "(1.0 - alpha) * hard + alpha * soft",
        ("distillation/test_distillation.py::test_value_equals_numpy",),
    ),
    Mutant(
        "binary soft labels: a sum over the outputs",
        "distillation/logits_losses.py",
        "ops.mean(yes + no, axis=-1)",
        "ops.sum(yes + no, axis=-1)",
        (*_CLASSES, f"{_LOSSES}test_binary_soft_labels_of_one_output_and_of_several"),
    ),
    Mutant(
        "decoupled KD: the weights exchanged",
        "distillation/logits_losses.py",
        "self.target * tckd + self.other * nckd",
        "self.other * tckd + self.target * nckd",
        _CLASSES,
    ),
    Mutant(
        "DIST: inter and intra exchanged",
        "distillation/logits_losses.py",
        "self.inter * (1.0 - of_samples) + self.intra * (1.0 - of_classes)",
        "self.intra * (1.0 - of_samples) + self.inter * (1.0 - of_classes)",
        _CLASSES,
    ),
    Mutant(
        "DIST: correlations that are not centred",
        "distillation/logits_losses.py",
        "weights * (p - ops.sum(weights * p, axis=axes, keepdims=True) / total)",
        "weights * p",
        _CLASSES,
    ),
    Mutant(
        "several teachers: weights of logits",
        "distillation/distillation_loss.py",
        "ops.log(weight) + ops.log_softmax(z / temperature, axis=-1)",
        "ops.log(weight) + z / temperature",
        (f"{_LOSSES}test_several_teachers_are_the_mean_of_their_softened_probabilities",),
    ),
    Mutant(
        "squared error: a sum over the values",
        "distillation/distillation_loss.py",
        "ops.mean(ops.square(teacher - student), axis=-1)",
        "ops.sum(ops.square(teacher - student), axis=-1)",
        _FEATURES,
    ),
    Mutant(
        "attention transfer: absolute values in place of squares",
        "distillation/feature_losses.py",
        "ops.mean(ops.square(zeros_where_masked(f, mask)), axis=-1)",
        "ops.mean(ops.abs(zeros_where_masked(f, mask)), axis=-1)",
        _FEATURES,
    ),
    Mutant(
        "similarities: rows that are not normalized",
        "distillation/feature_losses.py",
        "unit_vectors(f @ ops.transpose(f))",
        "(f @ ops.transpose(f))",
        _FEATURES,
    ),
    Mutant(
        "relational distances: not divided by their mean",
        "distillation/relation_losses.py",
        "ops.divide_no_nan(distances * count, ops.sum(distances))",
        "distances",
        _FEATURES,
    ),
    Mutant(
        "Huber loss: a step where it turns linear",
        "distillation/relation_losses.py",
        "ops.square(size), size - 0.5)",
        "ops.square(size), size)",
        (f"{_LOSSES}test_huber_counts_large_differences_linearly",),
    ),
    Mutant(
        "scaled width: rounded down",
        "distillation/students.py",
        "max(1, round(width * config[argument] / groups))",
        "max(1, int(width * config[argument] / groups))",
        ("distillation/test_students.py::test_widths_are_rounded_and_never_zero",),
    ),
    Mutant(
        "LoRA: alpha without the rank",
        "adapters/lora.py",
        "scale = self.alpha / self.rank",
        "scale = self.alpha",
        (f"{_ADAPTERS}test_dense",),
    ),
    Mutant(
        "LoRA, merged: the rank twice",
        "adapters/lora.py",
        "self.alpha / self.rank * product",
        "self.alpha / self.rank**2 * product",
        ("adapters/test_adapters.py::test_trains_only_the_adapter_and_merges",),
    ),
    Mutant(
        "LoRA: A of another size at first",
        "adapters/lora.py",
        "part.a / math.sqrt(fan_in)",
        "part.a / fan_in",
        (f"{_ADAPTERS}test_the_first_a",),
    ),
    Mutant(
        "DoRA: the norm over all axes",
        "adapters/lora.py",
        "ops.sqrt(ops.sum(squares, axis=input_axes(layer)))",
        "ops.sqrt(ops.sum(squares)) + 0.0 * ops.sum(squares, axis=input_axes(layer))",
        (f"{_ADAPTERS}test_dense",),
    ),
    Mutant(
        "IA3: zeros at first",
        "adapters/ia3.py",
        'initializer="ones"',
        'initializer="zeros"',
        ("adapters/test_adapters.py::test_trains_only_the_adapter_and_merges",),
    ),
    Mutant(
        "bottleneck: without what it adds to",
        "adapters/bottleneck.py",
        "return outputs + ops.matmul(hidden, up) + up_bias",
        "return ops.matmul(hidden, up) + up_bias",
        (f"{_ADAPTERS}test_bottleneck",),
    ),
    Mutant(
        "uncertainty: a penalty of s",
        "sharing/weighting.py",
        "0.5 * log_variance",
        "log_variance",
        (f"{_TASKS}TestLoss::test_uncertainty_weights_by_hand",),
    ),
    Mutant(
        "uncertainty: squared errors in full",
        "sharing/weighting.py",
        "(0.5 if is_squared_error else 1.0)",
        "1.0",
        (f"{_TASKS}TestLoss::test_uncertainty_weights_by_hand",),
    ),
    Mutant(
        "mixed tasks: N^T in place of N^(1 / T)",
        "sharing/mixing.py",
        '"temperature": 1.0 / temperature',
        '"temperature": temperature',
        ("sharing/test_mixing.py::test_rows_of_each_task_in_a_batch",),
    ),
    Mutant(
        "missing labels: -1 is a class",
        "core/labels.py",
        "in {-1, _ignored(",
        "in {_ignored(",
        (f"{_TASKS}TestLoss::test_missing_labels_count_in_nothing",),
    ),
    Mutant(
        "MACs of a convolution: its outputs twice",
        "core/macs.py",
        "output * math.prod(shapes[1][:-1])",
        "output * math.prod(shapes[1])",
        ("evaluation/test_evaluation.py::test_model_and_file_have_the_figures_of_numpy",),
    ),
    Mutant(
        "tolerance: lower is better where higher is",
        "core/monitor.py",
        'value - baseline if mode == "min" else baseline - value',
        'value - baseline if mode == "max" else baseline - value',
        ("core/test_monitor.py::test_tolerances_in_float32",),
    ),
    Mutant(
        "F1 and its parts: all samples together",
        "evaluation/quality.py",
        'average="macro"',
        'average="micro"',
        ("evaluation/test_evaluation.py::test_model_and_file_have_the_figures_of_numpy",),
    ),
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
