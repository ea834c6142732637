"""Whether channel pruning is right on models that are drawn at random: its proof, a model a seed.

    python benchmarks/channels_random.py --models=1000

Each model is pruned with a random ratio, scope and importance. The smaller model has to compute
what the model with zeros computes, have inputs and outputs of the same shapes and names, and leave
the model as it is. Status 1 if one does not. The table with machine and date is in README.md.
"""

import collections
import sys
import time
import traceback
import warnings

import keras
import machine
import numpy as np
from absl import app, flags
from random_models import random_model

import tfpeft
from tfpeft.channels.selection import SCOPES

_REFUSALS = {
    "for which a channel has to be removed": "the ratio of the channels is less than one",
    "no inputs of the model are known": "the model runs with inputs of certain free sides only",
}

FLAGS = flags.FLAGS
flags.DEFINE_integer("models", 1000, "How many models.", lower_bound=1)
flags.DEFINE_integer("first", 0, "The first seed.")


def prune(model, rng):
    """Returns a pruned model."""
    options = {
        "ratio": float(rng.choice([0.3, 0.5, 0.7])),
        "importance": str(rng.choice(["random", "l1", "l2", "fpgm"])),
        "scope": str(rng.choice(SCOPES)),
        "round_to": int(rng.choice([1, 1, 1, 2])),
        "min_channels": 2,  # statistics over one channel are none
        "through_statistics": bool(rng.random() < 0.5),
        "seed": int(rng.integers(1000)),
    }
    try:
        return tfpeft.prune_channels(model, **options)
    except tfpeft.BudgetError:  # less can be removed: the same part of each layer that can
        return tfpeft.prune_channels(model, **{**options, "scope": "layer"})


def outcome(seed):
    """Returns what came of a model, and reasons: "pruned", "pruned in part", "not pruned"."""
    model = random_model(seed)
    before = model.get_weights()
    try:
        small = prune(model, np.random.default_rng(seed))
    except tfpeft.NoMatchError as error:  # no channel can be removed; it says why
        texts = str(error).split("Received: ")[-1].split("; ")
        return "not pruned", _reasons(text for text in texts if "output_" not in text)
    except tfpeft.InputError as error:
        for text, reason in _REFUSALS.items():
            if text in str(error):
                return "not pruned", [reason]
        raise
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for ours, theirs in ((small.inputs, model.inputs), (small.outputs, model.outputs)):
        assert [x.shape for x in ours] == [x.shape for x in theirs]
        assert [x.dtype for x in ours] == [x.dtype for x in theirs]
    assert [each.name for each in small.layers] == [each.name for each in model.layers]
    assert small.output_names == model.output_names
    report = small.channel_report
    assert small.count_params() == report.params[1] < report.params[0] == model.count_params()
    assert report.difference <= 1e-4
    # The layers before the outputs keep their channels in any case.
    reasons = _reasons(why for name, why in report.fixed.items() if "output_" not in name)
    return ("pruned in part" if reasons else "pruned"), reasons


def _reasons(texts):
    """Returns reasons without the names of layers; that outputs keep their shape is none."""
    reasons = {" ".join(text.split(": ")[-1].split()[1:]) for text in texts}
    return sorted(reason for reason in reasons if "output of the model" not in reason and reason)


def main(_):
    warnings.simplefilter("ignore")  # Keras's, of masks and of softmax over one channel
    counts, reasons, failed = collections.Counter(), collections.Counter(), []
    started = time.process_time()
    for seed in range(FLAGS.first, FLAGS.first + FLAGS.models):
        try:
            kind, why = outcome(seed)
        except Exception as error:  # whatever is wrong
            traceback.print_exc(file=sys.stdout)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            kind, why = "wrong", []
            failed.append(seed)
        counts[kind] += 1
        reasons.update(why)
        keras.backend.clear_session()
    print(f"{machine.describe()}; {time.process_time() - started:.0f} s of CPU\n")
    print("| models | |\n|---|---:|")
    for kind, count in counts.most_common():
        print(f"| {kind} | {count} |")
    print("\n| why channels stay | models |\n|---|---:|")
    for reason, count in reasons.most_common():
        print(f"| {reason} | {count} |")
    if failed:
        print(f"seeds that are wrong: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    app.run(main)
