"""What channel pruning costs, and what it brings: ResNet50 planned and rebuilt, MobileNetV1 halved.

    python benchmarks/channels_cost.py

ResNet50 at 224 is pruned to half of its MACs, step by step: the seconds of each. MobileNetV1 at 224
loses half of the channels of every layer; both are exported, and the float32 .tflite files run in
turn in one process, on one thread: medians of the times, and of the ratios of neighbouring runs.
The outputs stay, so that of 1,000 classes half of the last kernel stays, too. Weights are random.
Cost: 3 minutes on 2 cores. The tables are in README.md.
"""

import pathlib
import tempfile
import time

import keras
import machine
import numpy as np
from absl import app, flags

import tfpeft
from tfpeft.channels.plan import Plan
from tfpeft.channels.proof import check_same
from tfpeft.channels.selection import Order
from tfpeft.channels.surgery import Kept, remove
from tfpeft.channels.targets import Targets

FLAGS = flags.FLAGS
flags.DEFINE_integer("runs", 200, "Runs of each .tflite file.")


class Steps:
    """Takes the time of steps, one after the other."""

    def __init__(self):
        self.seconds = {}
        self._last = time.perf_counter()

    def __call__(self, name):
        now = time.perf_counter()
        self.seconds[name], self._last = now - self._last, now


def resnet50():
    """Returns {step: seconds} of pruning ResNet50 to half of its MACs."""
    model = keras.applications.ResNet50(weights=None)
    step = Steps()
    plan = Plan(model)
    step("dependency graph, families, costs")
    scores = plan.scores("l2", None, aggregate="mean", normalize=None, batch_size=32, seed=0)
    step('scores, "l2"')
    order = Order(
        plan.families,
        scores,
        scope="global",
        round_to=1,
        min_channels=1,
        max_ratio=0.9,
        tags=plan.graph.tags.count,
    )
    step("order")
    _, removed, _ = Targets(None, 0.5, None, None, None).reach(plan, order)
    step("channels for the budget, and surgery")
    kept = Kept(plan.graph, np.flatnonzero(removed))
    new = remove(plan.graph, kept)
    step("surgery alone, again")
    check_same(plan.graph, kept, new, plan.batch)
    step("proof")
    return step.seconds


def mobilenet(classes):
    """Returns rows of MobileNetV1 and of the one with half of its channels."""
    model = keras.applications.MobileNet(weights=None, classes=classes)
    half = tfpeft.prune_channels(model, ratio=0.5, importance="l2", scope="layer")
    images = np.random.default_rng(0).random((1, 224, 224, 3), "float32")
    with tempfile.TemporaryDirectory() as folder:
        paths = [pathlib.Path(folder) / name for name in ("original.tflite", "half.tflite")]
        for each, path in zip((model, half), paths, strict=True):
            tfpeft.export_tflite(each, path)
        sizes = [path.stat().st_size for path in paths]
        files = [tfpeft.TFLiteFile(path).prepare(images) for path in paths]
        times = []
        for number in range(FLAGS.runs + 5):
            pair = []
            for run in files:
                started = time.perf_counter()
                run()
                pair.append(1000 * (time.perf_counter() - started))
            if number >= 5:  # the first ones fill caches
                times.append(pair)
    times = np.array(times)
    rows = []
    for index, (name, each) in enumerate(
        {"MobileNetV1": model, "half of the channels": half}.items()
    ):
        ratio = np.median(times[:, index] / times[:, 0])
        rows.append(
            f"| {name}, {classes} classes | {each.count_params():,} | {sizes[index]:,} "
            f"({sizes[index] / sizes[0]:.3f}) | {np.median(times[:, index]):.2f} ({ratio:.3f}) |"
        )
    return rows


def main(_):
    print(machine.describe())
    seconds = resnet50()
    print("\n| ResNet50 at 224, to half of its MACs | seconds |\n|---|---:|")
    for name, value in seconds.items():
        print(f"| {name} | {value:.1f} |")
    total = sum(value for name, value in seconds.items() if "again" not in name)
    print(f"| all but the surgery done again | {total:.1f} |", flush=True)
    print(
        "\n| MobileNetV1 at 224 | parameters | bytes (ratio) | ms (ratio) |\n|---|---:|---:|---:|"
    )
    for classes in (1000, 10):
        print("\n".join(mobilenet(classes)), flush=True)


if __name__ == "__main__":
    app.run(main)
