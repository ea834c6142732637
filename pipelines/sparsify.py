"""The stages that end in zeros, and their flags: pruning and sparse training."""

import math

import keras
import numpy as np
from absl import flags

import tfpeft
from pipelines import common, stages, teaching
from tfpeft.sparsity.kernels import select_kernels

FLAGS = common.FLAGS

flags.DEFINE_list("exclude", [], "Names or patterns of layers that stay dense.")

flags.DEFINE_float("final_sparsity", 0.5, "Fraction of zeros that pruning ends with, in [0, 1).")
flags.DEFINE_enum(
    "criterion",
    "magnitude",
    ["magnitude", "gradient", "movement", "random"],
    "What is pruned first: weights that are small, that matter little to the loss, that move "
    "towards zero, or any.",
)
flags.DEFINE_enum(
    "scope",
    "layer",
    ["layer", "global", "erk"],
    "Whether sparsity is that of each layer, of all together, or by Erdos-Renyi-Kernel.",
)
flags.DEFINE_float("initial_sparsity", 0.0, "Fraction of zeros at --prune_begin, in [0, 1).")
flags.DEFINE_float("prune_begin", 0.0, "When pruning begins, as a fraction of the stage.")
flags.DEFINE_float(
    "prune_end", 0.6, "When it ends, as a fraction of the stage; in the rest what is left is tuned."
)
flags.DEFINE_integer("prune_updates", 20, "How often masks change in between.", lower_bound=1)
flags.DEFINE_float("power", 3.0, "Of the schedule: 3 prunes fast first, 1 evenly; above 0.")
flags.DEFINE_list("block_size", None, "height,width: whole blocks are pruned.")
flags.DEFINE_list(
    "n_m", None, "n,m: n of each m weights are kept; --final_sparsity is 1 - n / m then."
)
flags.DEFINE_bool("straight_through", False, "Whether pruned weights are trained on behind zeros.")
GRADUAL_FLAGS = ["initial_sparsity", "prune_begin", "prune_end", "prune_updates", "power"]
GRADUAL_FLAGS += ["block_size", "n_m", "straight_through"]

flags.DEFINE_bool(
    "iterative",
    False,
    "Prune in rounds, with --epochs_per_step epochs after each, until --final_sparsity is reached "
    "or validation accuracy falls by more than --tolerance. Learns from labels only.",
)
flags.DEFINE_float("step", 0.1, "Fraction of all weights that a round prunes.")
flags.DEFINE_float("tolerance", 0.01, "Validation accuracy that may be lost, in [0, 1].")
flags.DEFINE_integer("epochs_per_step", 1, "Epochs after each round.", lower_bound=1)
flags.DEFINE_bool(
    "sensitivity",
    False,
    "Prune each layer alone first (sensitivity.md, sensitivity.png), and those least that lose "
    "most.",
)
ITERATIVE_FLAGS = ["step", "tolerance", "epochs_per_step", "sensitivity"]
PRUNE_FLAGS = ["exclude", "final_sparsity", "criterion", "scope", *GRADUAL_FLAGS]
PRUNE_FLAGS += ["iterative", *ITERATIVE_FLAGS]

TECHNIQUES = {  # and the flags that each of them reads
    "rigl": ["sparsity", "distribution", "mask_updates", "drop_fraction"],
    "set": ["sparsity", "distribution", "mask_updates", "drop_fraction"],
    "static": ["sparsity", "distribution"],
    "targeted_dropout": ["sparsity", "mask_updates", "drop_rate"],
    "proximal_l1": ["l1"],
    "proximal_group_l1": ["l1"],
}
flags.DEFINE_enum(
    "technique", "rigl", list(TECHNIQUES), "How the model is trained sparse: see the README."
)
flags.DEFINE_float("sparsity", 0.8, "Fraction of zeros of sparse training, in [0, 1).")
flags.DEFINE_enum(
    "distribution", "erk", ["erk", "uniform"], "Of the zeros over layers: small ones fewer, or not."
)
flags.DEFINE_integer(
    "mask_updates", 50, "How often masks change in the first 75% of the stage.", lower_bound=1
)
flags.DEFINE_float("drop_fraction", 0.3, "Of the kept weights, exchanged at first, in (0, 1].")
flags.DEFINE_float("drop_rate", 0.5, "Probability that a small weight is dropped, in (0, 1].")
flags.DEFINE_float(
    "l1", 0.1, "Part of each of Adam's steps that is taken back; more gives more zeros."
)
SPARSE_TRAIN_FLAGS = [
    *("exclude", "technique", "sparsity", "distribution", "mask_updates"),
    *("drop_fraction", "drop_rate", "l1"),
]


def check_flags(names):
    """Refuses flags that the chosen kind of a stage among `names` does not read."""
    unread = {}
    if "prune" in names:
        kind = "pruning in rounds, --iterative," if FLAGS.iterative else "gradual pruning"
        others = GRADUAL_FLAGS if FLAGS.iterative else ITERATIVE_FLAGS
        unread |= dict.fromkeys(others, kind)
        if FLAGS.iterative and FLAGS.criterion not in ("magnitude", "gradient"):
            raise ValueError(
                "Received an invalid value for --criterion, expected magnitude or gradient with "
                f"--iterative. Received: --criterion={FLAGS.criterion}"
            )
        if FLAGS.sensitivity and FLAGS["scope"].present:
            unread["scope"] = "--sensitivity"
    if "sparse_train" in names:
        read = TECHNIQUES[FLAGS.technique]
        others = {flag for each in TECHNIQUES.values() for flag in each} - set(read)
        unread |= dict.fromkeys(others, f"--technique={FLAGS.technique}")
    for flag, kind in unread.items():
        if FLAGS[flag].present:
            raise ValueError(f"Received --{flag}, which {kind} does not read")


def prune(model, teacher_model, data, folder):
    """Prunes gradually while the model is tuned, or in rounds."""
    if FLAGS.iterative:
        return tfpeft.strip_pruning(_prune_iteratively(model, data, folder))
    total = stages.total_steps(data)
    n_m = _integers("n_m")
    final_sparsity = FLAGS.final_sparsity
    if n_m and not FLAGS["final_sparsity"].present:
        final_sparsity = 1 - n_m[0] / n_m[1]
    begin_step = round(FLAGS.prune_begin * total)
    frequency = max(1, int((FLAGS.prune_end - FLAGS.prune_begin) * total) // FLAGS.prune_updates)
    if FLAGS.prune_end <= FLAGS.prune_begin:
        raise ValueError(
            "Received an invalid value for --prune_end, expected one above --prune_begin="
            f"{FLAGS.prune_begin}. Received: --prune_end={FLAGS.prune_end}"
        )
    last_step = max(begin_step + 1, round(FLAGS.prune_end * total))
    end_step = min(begin_step + FLAGS.prune_updates * frequency, last_step)
    schedule = tfpeft.polynomial_decay(
        final_sparsity,
        begin=begin_step / total,
        end=end_step / total,
        total_steps=total,
        initial_sparsity=FLAGS.initial_sparsity,
        frequency=frequency,
        power=FLAGS.power,
    )
    criterion = {
        "magnitude": tfpeft.MagnitudePruning,
        "gradient": tfpeft.GradientPruning,
        "movement": tfpeft.MovementPruning,
        "random": tfpeft.RandomPruning,
    }[FLAGS.criterion]

    def sparsify(optimizer):
        return criterion(
            optimizer,
            schedule,
            scope=FLAGS.scope,
            block_size=_integers("block_size"),
            n_m=n_m,
            exclude=FLAGS.exclude,
            straight_through=FLAGS.straight_through,
        )

    return _fit(model, teacher_model, data, folder, sparsify, first_step=schedule.end_step)


def sparse_train(model, teacher_model, data, folder):
    """Trains sparse from the first step; masks change in the first 75% of the stage."""
    end_step = max(1, int(0.75 * stages.total_steps(data)))
    common_options = {"exclude": FLAGS.exclude}
    masked = {**common_options, "distribution": FLAGS.distribution, "seed": FLAGS.seed}
    changing = {"end_step": end_step, "frequency": max(1, end_step // FLAGS.mask_updates)}

    def sparsify(optimizer):
        if FLAGS.technique in ("rigl", "set"):
            technique = tfpeft.RigL if FLAGS.technique == "rigl" else tfpeft.SET
            return technique(
                optimizer,
                FLAGS.sparsity,
                drop_fraction=FLAGS.drop_fraction,
                **changing,
                **masked,
            )
        if FLAGS.technique == "static":
            return tfpeft.StaticSparse(optimizer, FLAGS.sparsity, **masked)
        if FLAGS.technique == "targeted_dropout":
            return tfpeft.TargetedDropout(
                optimizer,
                FLAGS.drop_rate,
                FLAGS.sparsity,
                seed=FLAGS.seed,
                **changing,
                **common_options,
            )
        groups = FLAGS.technique == "proximal_group_l1"
        technique = tfpeft.ProximalGroupL1 if groups else tfpeft.ProximalL1
        return technique(optimizer, FLAGS.l1, **common_options)

    return _fit(model, teacher_model, data, folder, sparsify, first_step=end_step)


def _fit(model, teacher_model, data, folder, sparsify, first_step):
    kernels = select_kernels(model.trainable_variables)
    has_zeros = any(np.any(kernel.numpy() == 0) for kernel in kernels)

    def wrap(optimizer):
        # Zeros of an earlier stage stay.
        return sparsify(tfpeft.FixedMask(optimizer) if has_zeros else optimizer)

    trained, train = model, data.train
    if teacher_model:
        trained, train = teaching.taught(teacher_model, model, data, folder)
    stages.fit(
        trained,
        data,
        train=train,
        from_logits=stages.answers_logits(model, data),
        sparsify=wrap,
        first_step=first_step,
    )
    return tfpeft.strip_pruning(model)


def _prune_iteratively(model, data, folder):
    model.compile(
        keras.optimizers.Adam(FLAGS.learning_rate),
        keras.losses.SparseCategoricalCrossentropy(stages.answers_logits(model, data)),
        metrics=["accuracy"],
    )
    densities = None
    if FLAGS.sensitivity:
        sensitivity = tfpeft.layer_sensitivity(
            model, data.validation, (0.5, 0.7, 0.8, 0.9, 0.95), exclude=FLAGS.exclude
        )
        print(sensitivity)
        folder.write("sensitivity.md", sensitivity.to_markdown())
        folder.write("sensitivity.png", sensitivity.plot)
        densities = sensitivity.densities(FLAGS.tolerance)
    pruned = tfpeft.prune_iteratively(
        model,
        data.train,
        data.validation,
        target_sparsity=FLAGS.final_sparsity,
        step=FLAGS.step,
        tolerance=FLAGS.tolerance,
        epochs_per_step=FLAGS.epochs_per_step,
        criterion=FLAGS.criterion,
        scope=FLAGS.scope,
        densities=densities,
        exclude=FLAGS.exclude,
        batch_size=FLAGS.batch_size,
        directory=folder / "rounds",
    )
    print(pruned)
    folder.write("rounds.md", pruned.to_markdown())
    if not any(step["held"] for step in pruned.history):
        raise ValueError(
            f"No round held validation accuracy within --tolerance={FLAGS.tolerance}, expected at "
            f"least one. Received: {pruned.history}"
        )
    return pruned.model


def _integers(flag):
    if FLAGS[flag].value is None:
        return None
    values = FLAGS[flag].value
    if len(values) != 2 or not all(value.isdecimal() and int(value) for value in values):
        raise ValueError(
            f"Received an invalid value for --{flag}, expected two integers such as 2,4, of at "
            f"least 1. Received: --{flag}={','.join(values)}"
        )
    return tuple(map(int, values))


def _fraction(value):
    return 0.0 <= value < 1.0


for _flag in ("final_sparsity", "initial_sparsity", "sparsity"):
    flags.register_validator(_flag, _fraction, "expected a fraction in [0, 1)")
for _flag in ("prune_begin", "prune_end", "tolerance"):
    flags.register_validator(_flag, lambda v: 0.0 <= v <= 1.0, "expected a fraction in [0, 1]")
for _flag in ("drop_rate", "drop_fraction", "step"):
    flags.register_validator(_flag, lambda v: 0.0 < v <= 1.0, "expected a fraction in (0, 1]")
for _flag in ("l1", "power"):
    flags.register_validator(_flag, lambda v: 0.0 < v < math.inf, "expected a positive number")
