"""Formulas of recommendations with a mistake in each: gains, losses, the rule, layers."""

from mutant_lists.mutant import Mutant

_PARTS = "automl/test_recommend_parts.py::"
_PLAN = "automl/test_recommend_plan.py::"
_CHAINS = "automl/test_recommend_chains.py::"
_SENSITIVITY = "automl/test_recommend_sensitivity.py::"

MUTANTS = (
    Mutant(
        "recommendations: the rule takes the high end of the loss",
        "automl/advice/ranking.py",
        'UNCLEAR if loss["relative_interval"][0] <= most',
        'UNCLEAR if loss["relative_interval"][1] <= most',
        (f"{_PARTS}test_the_rule_is_gain_among_those_whose_loss_is_allowed",),
    ),
    Mutant(
        "recommendations: a gain by the middle of its interval",
        "automl/advice/ranking.py",
        'found["gain"]["interval"][0] > LEAST_GAIN',
        'found["gain"]["factor"] > LEAST_GAIN',
        (f"{_PARTS}test_what_gains_less_than_five_percent_or_failed_is_no_recommendation",),
    ),
    Mutant(
        "recommendations: rounds of two programs are resampled apart",
        "automl/advice/figures.py",
        "medians = np.median(times[:, rows], axis=2)",
        "medians = np.stack([np.median(times[0][rows], 1), np.median(times[1][rows[::-1]], 1)])",
        (f"{_PARTS}test_the_gain_of_times_by_hand",),
    ),
    Mutant(
        "recommendations: an error that grows is a gain",
        "automl/advice/figures.py",
        "sign = -1.0 if self._task(title).higher_is_better else 1.0",
        "sign = -1.0",
        (f"{_PARTS}test_the_loss_of_an_accuracy_and_of_an_error_by_hand",),
    ),
    Mutant(
        "recommendations: the layers' MACs of transposed convolutions by their outputs",
        "automl/advice/layers.py",
        "tensor = inputs if is_transposed else",
        "tensor = inputs if False else",
        (f"{_PARTS}test_the_macs_of_layers_are_those_of_the_model",),
    ),
    Mutant(
        "recommendations: bytes of training without Adam's second moment",
        "automl/advice/adapters.py",
        "3 * _count(model.trainable_variables)",
        "2 * _count(model.trainable_variables)",
        (f"{_PARTS}test_zeros_and_bytes_of_training_by_hand",),
    ),
    Mutant(
        "recommendations: XNNPACK skips a zero once, not at each position",
        "automl/advice/figures.py",
        "skipped += round(zeros[op.outputs[0].name] * kernel.size) * positions",
        "skipped += round(zeros[op.outputs[0].name] * kernel.size)",
        (f"{_PARTS}test_zeros_that_xnnpack_skips_are_not_computed",),
    ),
    Mutant(
        "recommendations: of two trials of a chain the shorter one counts",
        "automl/advice/ranking.py",
        'found[key]["updates"] < each["updates"]',
        'found[key]["updates"] > each["updates"]',
        (f"{_PARTS}test_of_a_chain_that_trained_twice_the_longer_trial_counts",),
    ),
    Mutant(
        "recommendations: what gains less than the best trains for longer, too",
        "automl/advice/plan.py",
        "if gain > LEAST_GAIN * best and",
        "if gain > 0 and",
        (f"{_PLAN}test_what_holds_is_not_trained_again_unless_its_loss_counted_half",),
    ),
    Mutant(
        "recommendations: half of every loss counts",
        "automl/advice/ranking.py",
        'short if found.get("is_short") else 1.0',
        "short",
        (f"{_PARTS}test_the_rule_is_gain_among_those_whose_loss_is_allowed",),
    ),
    Mutant(
        "recommendations: clusters in an equalized file",
        "automl/advice/plan.py",
        's[0] != "equalize"',
        's[0] != "none"',
        (f"{_PLAN}test_few_values_stay_few_in_a_file",),
    ),
    Mutant(
        "recommendations: a gain with quantization is estimated where it was measured",
        "automl/advice/plan.py",
        "is_known = key in self._quantized or",
        "is_known =",
        (f"{_PLAN}test_a_gain_with_quantization_is_estimated_only_where_it_was_not_tried",),
    ),
    Mutant(
        "recommendations: quantise-aware training moves clusters",
        "automl/advice/chains.py",
        "return kept if clusters is None else",
        "return kept if True else",
        (f"{_CHAINS}test_zeros_and_few_values_stay_in_quantise_aware_training",),
    ),
    Mutant(
        "recommendations: statistics of a student are those of before",
        "automl/advice/chains.py",
        "with following_statistics(student, training.steps):",
        "with following_statistics(model, training.steps):",
        (f"{_CHAINS}test_moving_statistics_are_those_of_the_new_model",),
    ),
    Mutant(
        "recommendations: sensitivity takes all of the time",
        "automl/advice/sensitivity.py",
        "_SHARE = 0.2",
        "_SHARE = 2.0",
        (f"{_SENSITIVITY}test_layers_are_not_measured_where_it_takes_too_much_of_the_time",),
    ),
)
