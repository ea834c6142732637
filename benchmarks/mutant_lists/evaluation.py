"""Mutants of what evaluate measures: figures of tasks, intervals, chance, agreement."""

from mutant_lists.mutant import Mutant

_FIGURES = "evaluation/test_figures.py::"
_RESAMPLING = "evaluation/test_resampling.py::"
_TASKS = "evaluation/test_tasks_of_models.py::"

MUTANTS = (
    Mutant(
        "IoU in training: weights below 1 are 0",
        "evaluation/tasks.py",
        """sparse_y_pred=False,
                    dtype="float32",
""",
        """sparse_y_pred=False,
                    dtype="int64",
""",
        ("pipelines/test_masks.py::test_the_metric_of_training_counts_weights",),
    ),
    Mutant(
        "macro means over absent classes, too",
        "evaluation/class_counts.py",
        "is_there = counts[1] + counts[2] > 0",
        "is_there = counts[1] + counts[2] >= 0",
        (f"{_FIGURES}test_labels_have_the_figures_of_scikit_learn",),
    ),
    Mutant(
        "IoU without what is not found",
        "evaluation/class_counts.py",
        '"iou": _ratio(right, both - right)',
        '"iou": _ratio(right, both)',
        (f"{_FIGURES}test_positions_have_the_figures_of_scikit_learn_and_keras",),
    ),
    Mutant(
        "area under the curve: ties count as right",
        "evaluation/ranks.py",
        "below = np.cumsum(negatives) - negatives / 2",
        "below = np.cumsum(negatives)",
        (f"{_FIGURES}test_ties_count_half",),
    ),
    Mutant(
        "calibration: gaps within a bin do not cancel",
        "evaluation/classification.py",
        "(confidence - hit)[:, None], 0.0)",
        "np.abs(confidence - hit)[:, None], 0.0)",
        (f"{_FIGURES}test_the_calibration_error_by_hand",),
    ),
    Mutant(
        "R2 against zero",
        "evaluation/regression.py",
        "    spread = squares - total * total / weight\n",
        "    spread = squares\n",
        (f"{_FIGURES}test_numbers_have_the_figures_of_scikit_learn",),
    ),
    Mutant(
        "squares of large numbers",
        "evaluation/regression.py",
        "y - self._shift, p - self._shift\n",
        "y, p\n",
        (f"{_FIGURES}test_numbers_have_the_figures_of_scikit_learn",),
    ),
    Mutant(
        "weights of samples are left out",
        "evaluation/figures.py",
        "rows * weight[:, None])",
        "rows)",
        (f"{_RESAMPLING}test_a_weight_of_two_is_a_sample_twice",),
    ),
    Mutant(
        "every 2,000th sample is a group",
        "evaluation/resampling.py",
        "np.where(numbers < GROUPS, numbers, drawn)",
        "numbers % GROUPS",
        (f"{_RESAMPLING}test_samples_beyond_the_groups_join_one_at_random",),
    ),
    Mutant(
        "differences are not paired",
        "evaluation/results.py",
        "both[0][metric] - both[1][metric]",
        "both[0][metric] - both[1][metric][::-1]",
        (f"{_RESAMPLING}test_the_difference_of_two_rows_is_paired",),
    ),
    Mutant(
        "chance: the mean recall of random masks is enough",
        "evaluation/chance.py",
        "is_better &= recall",
        "is_better |= recall",
        (f"{_FIGURES}test_better_than_chance",),
    ),
    Mutant(
        "agreement: classes of the model itself",
        "evaluation/agreement.py",
        "self._reference.class_numbers(b)",
        "self._reference.class_numbers(a)",
        (f"{_TASKS}test_agreement_without_labels",),
    ),
)
