"""The search under 30 kB on Fashion-MNIST, against students chosen by hand, and KerasTuner alone.

    python benchmarks/search.py --data_dir=data        # fashion_mnist.npz is in data/

All rows train from the same teacher, a network of three convolutions, on the same training and
validation images, for the same minutes, and are measured as int8 files on the 10,000 test images:

- "search": `tfpeft.search` on `SmallCNN` and `MobileBlocks` with Hyperband.
- "by hand": students that a person would choose for the budget (hand_chosen.py), each one by
  `pipelines.compress --stages=distill,quantize` with as many epochs as take all of the minutes:
  three convolutions; the teacher at a width, with its Dense layer; a MobileNet of three stages.
- "KerasTuner": its Hyperband on the same space, trained on labels, with what KerasTuner has: the
  validation accuracy of the Keras model decides, and `max_model_size` in parameters, at 1 byte
  each, is the limit. Its best model that fits as an int8 file is taken.

Written for each row: accuracy with its interval, bytes, multiply-accumulates, trials that were
trained, and those of them that were inside the budget. Rows that are in --output already are not
run again; the files and the Pareto front (pareto.png) are beside them.

Cost: --minutes for the search, for KerasTuner and for each student by hand: three and a half hours
on 2 cores. The table with its machine and date is in README.md.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import hand_chosen
import keras
import keras_tuner
import machine
import numpy as np
from absl import app, flags, logging
from timing import Clock

import tfpeft
from tfpeft.automl.students.architecture import Spaces
from tfpeft.automl.students.interface import interface_of, objective_of
from tfpeft.automl.trials.clock import StopAtDeadline
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.reports.tables import markdown_table

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of fashion_mnist.npz.")
flags.DEFINE_string("output", "search_results", "Folder of the files and results.")
flags.DEFINE_float("minutes", 40.0, "Training of each row.", lower_bound=0.1)
flags.DEFINE_integer("max_size_bytes", 30_000, "The budget.", lower_bound=1000)
flags.DEFINE_integer("teacher_epochs", 8, "Of the teacher.", lower_bound=1)
flags.DEFINE_integer("limit", None, "Training images, the first ones; default: all.")
flags.DEFINE_list("rows", [], "Only these; default: all.")
flags.DEFINE_integer("seed", 0, "Of everything that is random.")

HERE = pathlib.Path(__file__).resolve().parent
BATCH_SIZE, VALIDATION = 128, 10_000
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
COLUMNS = ["", "accuracy, %", "95%", "bytes", "M MACs", "trained", "inside", "minutes"]


def load():
    """Returns training, validation and test images with labels, of values in [0, 1]."""
    with np.load(pathlib.Path(FLAGS.data_dir) / "fashion_mnist.npz") as arrays:
        x = arrays["x_train"].astype("float32")[..., None] / 255
        y = arrays["y_train"].ravel().astype("int64")
        test = arrays["x_test"].astype("float32")[..., None] / 255
        labels = arrays["y_test"].ravel().astype("int64")
    count = len(y) if FLAGS.limit is None else min(len(y), FLAGS.limit)
    held = min(VALIDATION, count // 6)
    return (x[: count - held], y[: count - held]), (x[-held:], y[-held:]), (test, labels)


def teacher_of(train, validation, folder):
    """Returns the teacher, trained once."""
    path = folder / "teacher.keras"
    if not path.exists():
        keras.utils.set_random_seed(FLAGS.seed)
        teacher = hand_chosen.network((32, 64, 128), 256)
        steps = FLAGS.teacher_epochs * (len(train[1]) // BATCH_SIZE)
        rate = keras.optimizers.schedules.CosineDecay(1e-3, steps)
        teacher.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
        teacher.fit(
            *train,
            validation_data=validation,
            batch_size=BATCH_SIZE,
            epochs=FLAGS.teacher_epochs,
            verbose=2,
        )
        teacher.save(path)
    return keras.models.load_model(path)


class Deadline:
    """The minutes of a row, as `StopAtDeadline` reads them."""

    def __init__(self, minutes):
        self._end = time.monotonic() + 60 * minutes

    @property
    def left(self):
        """Seconds that are left."""
        return self._end - time.monotonic()


def by_hand(student, model_of):
    """Returns a row: a student that `pipelines.compress` distils for all of the minutes.

    Args:
        student: The flag --student.
        model_of: A function of the teacher that returns the same model.
    """

    def run(train, validation, test, teacher, folder, name):
        data = folder / "data.npz"
        parts = {"train": train, "val": validation, "test": test}
        arrays = {f"x_{part}": np.uint8(np.rint(255 * x)) for part, (x, _) in parts.items()}
        np.savez(data, **arrays, **{f"y_{part}": y for part, (_, y) in parts.items()})
        run_name = "hand_" + "".join(each if each.isalnum() else "_" for each in student)
        kept = folder / f"{run_name}.epochs"  # of this run before it was stopped
        if not kept.exists():
            kept.write_text(str(epochs_within(FLAGS.minutes, model_of(teacher), train)))
        epochs = int(kept.read_text())
        command = [sys.executable, "-m", "pipelines.compress", "--stages=distill,quantize"]
        command.append("--compact")
        command += [f"--dataset={data}", "--pixel_range=0,1", f"--student={student}"]
        command += [f"--model={folder / 'teacher.keras'}", f"--epochs={epochs}"]
        command += [f"--batch_size={BATCH_SIZE}", "--learning_rate=0.002"]
        command += [f"--output_dir={folder}", f"--name={run_name}", f"--seed={FLAGS.seed}"]
        paths = [str(HERE.parent), str(HERE), os.environ.get("PYTHONPATH", "")]
        print(" ".join(command[1:]), flush=True)
        subprocess.run(
            command, check=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        )
        return {"file": str(folder / run_name / "model.tflite"), "trained": 1}

    return run


def epochs_within(minutes, model, train):
    """Returns the epochs of distillation, with validation, for which there is time."""
    outputs = np.zeros((len(train[1]), 10), "float32")
    few = 40 * BATCH_SIZE
    x = PrecomputedInputs(train[0][:few], {"outputs": (outputs[:few],), "features": {}})
    distiller = tfpeft.Distiller(None, model, teacher_from_logits=True, student_from_logits=True)
    distiller.compile("adam", LOSS)
    clock = Clock()
    distiller.fit(x, train[1][:few], batch_size=BATCH_SIZE, callbacks=[clock], verbose=0)
    steps = 60 * minutes / float(np.median(clock.steps()))
    return max(1, int(0.85 * steps * BATCH_SIZE / len(train[1])))  # the rest validates and exports


def searched(train, validation, test, teacher, folder, name):
    """Returns the row of `tfpeft.search`."""
    result = tfpeft.search(
        [tfpeft.SmallCNN(), tfpeft.MobileBlocks()],
        train,
        tfpeft.Budget(max_size_bytes=FLAGS.max_size_bytes),
        minutes=FLAGS.minutes,
        validation_data=validation,
        teacher=teacher,
        batch_size=BATCH_SIZE,
        folder=folder / "search",
        seed=FLAGS.seed,
    )
    print(result)
    result.plot(folder / "pareto.png")
    trained = [trial for trial in result.trials if trial.evaluation is not None]
    inside = [trial for trial in trained if trial.status == "completed"]
    front = [(trial.figures["size_bytes"], trial.metric) for trial in result.front()]
    return {
        "file": str(result.path),
        "trained": len(trained),
        "inside": len(inside),
        "front": front,
    }


def tuned(train, validation, test, teacher, folder, name):
    """Returns the row of KerasTuner's Hyperband with what it has of budgets."""
    task, outputs = objective_of(None, *train)
    interface = interface_of(*train, task.name, outputs)
    spaces = Spaces([tfpeft.SmallCNN(), tfpeft.MobileBlocks()])
    deadline = Deadline(FLAGS.minutes)

    def build(hp):
        model = spaces.build(hp, interface)
        rate = hp.Choice("learning_rate", [1e-3, 2e-3, 4e-3])
        model.compile(keras.optimizers.Adam(rate), LOSS, metrics=["accuracy"])
        return model

    class InTime(keras_tuner.Hyperband):
        trained = 0

        def on_trial_begin(self, trial):
            if deadline.left < 0:
                raise keras_tuner.errors.FatalRuntimeError("the time is over")

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            self.trained += trial.status == "COMPLETED"

    tuner = InTime(
        build,
        "val_accuracy",
        max_epochs=9,
        hyperband_iterations=100,
        seed=FLAGS.seed + 1,
        max_model_size=FLAGS.max_size_bytes,
        max_consecutive_failed_trials=10**9,
        directory=folder,
        project_name="keras_tuner",
        overwrite=True,
    )
    with contextlib.suppress(keras_tuner.errors.FatalError):
        tuner.search(
            *train,
            validation_data=validation,
            batch_size=BATCH_SIZE,
            callbacks=[StopAtDeadline(deadline)],
            verbose=0,
        )
    best, inside = None, 0
    for trial in tuner.oracle.get_best_trials(10**6):
        if trial.status != "COMPLETED":
            continue
        model = tuner.load_model(trial)
        size = exported(model, train, folder / "tuned.tflite").stat().st_size
        if size <= FLAGS.max_size_bytes:
            inside += 1
            best = model if best is None else best
    if best is None:
        return None
    return {"model": best, "trained": tuner.trained, "inside": inside}


def exported(model, train, path):
    tfpeft.export_tflite(
        model,
        path,
        quantization="int8",
        representative_data=train[0][:2000],
        allow_deviation=1e9,
        compact=True,
    )
    return path


ROWS = {
    "search": searched,
    "KerasTuner": tuned,
    "by hand: convolutions of 16-32-63": by_hand(
        "hand_chosen:convolutions", lambda teacher: hand_chosen.convolutions()
    ),
    "by hand: the teacher at a width of 0.24": by_hand(
        "0.24", lambda teacher: tfpeft.scale_width(teacher, 0.24)
    ),
    "by hand: MobileNet of width 25": by_hand(
        "hand_chosen:mobilenet", lambda teacher: hand_chosen.mobilenet()
    ),
}


def main(_):
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(FLAGS.output)
    folder.mkdir(parents=True, exist_ok=True)
    train, validation, test = load()
    teacher = teacher_of(train, validation, folder)
    path = folder / "rows.json"
    rows = json.loads(path.read_text()) if path.exists() else {}
    for number, (name, run) in enumerate(ROWS.items()):
        if name in rows or (FLAGS.rows and name not in FLAGS.rows):
            continue
        began = time.monotonic()
        found = run(train, validation, test, teacher, folder, name)
        minutes = (time.monotonic() - began) / 60
        if found is None:
            print(f"{name}: nothing inside the budget", flush=True)
            continue
        model = found.pop("model", None)
        if model is not None:
            found["file"] = str(exported(model, train, folder / f"row_{number}.tflite"))
        measured = tfpeft.evaluate(found["file"], test)
        found.setdefault("inside", int(measured.size_bytes <= FLAGS.max_size_bytes))
        rows[name] = {
            **found,
            "accuracy": measured.accuracy,
            "interval": list(measured.intervals["accuracy"]),
            "bytes": measured.size_bytes,
            "macs": measured.macs,
            "minutes": minutes,
        }
        path.write_text(json.dumps(rows, indent=2))
        print(f"{name}: {rows[name]}", flush=True)
    rows["teacher, float32"] = _of_teacher(teacher, test)
    print(f"\n{machine.describe()}; {FLAGS.minutes:g} minutes a row\n")
    print(markdown_table(COLUMNS, [_cells(name, row) for name, row in rows.items()]))


def _of_teacher(teacher, test):
    measured = tfpeft.evaluate(teacher, test)
    return {
        "accuracy": measured.accuracy,
        "interval": list(measured.intervals["accuracy"]),
        "bytes": measured.size_bytes,
        "macs": measured.macs,
    }


def _cells(name, row):
    low, high = row["interval"]
    return [
        name,
        f"{100 * row['accuracy']:.2f}",
        f"{100 * low:.2f} to {100 * high:.2f}",
        f"{row['bytes']:,}",
        f"{row['macs'] / 1e6:.2f}",
        str(row.get("trained", "")),
        str(row.get("inside", "")),
        f"{row['minutes']:.1f}" if "minutes" in row else "",
    ]


if __name__ == "__main__":
    app.run(main)
