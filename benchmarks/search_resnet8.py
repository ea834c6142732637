"""A search of two hours for MLPerf Tiny's ResNet8 in 50,000 bytes, against the best file by hand.

    python benchmarks/search_resnet8.py --data_dir=data --mlperf_dir=mlperf_tiny

`tfpeft.search` with its defaults, from the trained float32 model without its softmax, which is also
the teacher: channels, weights of 8 and 4 bits, alpha, temperature and the learning rate, with
Hyperband. A search holds its data in memory, so that the images are augmented before: --copies of
each training image, flipped or not and shifted by up to 4 pixels, beside the image itself. The last
5,000 training images are for validation; all rows are of the 10,000 test images of CIFAR-10, which
nothing was chosen by.

Beside it: MLPerf Tiny's own int8 file, and the file of `quantization_resnet8.py`, whose settings
were chosen by hand, if --by_hand names it.

--data_dir has cifar10.npz, --mlperf_dir pretrainedResnet.h5 and pretrainedResnet_quant.tflite.
Cost: --minutes; stopped and started again, the search goes on. The table is in README.md.
"""

import pathlib

import channels_quality
import keras
import machine
import numpy as np
import quantization_resnet8
from absl import app, flags, logging

import tfpeft
from tfpeft.reports.tables import markdown_table

FLAGS = flags.FLAGS
flags.DEFINE_string("folder", "search_resnet8", "Of the search and its picture.")
flags.DEFINE_float("minutes", 120.0, "Of the search.", lower_bound=0.1)
flags.DEFINE_integer("copies", 2, "Augmented copies of each image.", lower_bound=0)
flags.DEFINE_integer("max_size_bytes", 50_000, "The budget.", lower_bound=1000)
flags.DEFINE_string("by_hand", None, "The .tflite file of quantization_resnet8.py.")
VALIDATION = 5000


def with_copies(images, labels):
    """Returns images with their augmented copies, and labels."""
    parts = [images.astype("float32")]
    for seed in range(FLAGS.copies):
        chunks = np.array_split(parts[0], max(1, len(images) // 5000))
        found = [channels_quality.augmented(x, 1000 * seed + i) for i, x in enumerate(chunks)]
        parts.append(np.concatenate([each.numpy() for each in found]))
    return np.concatenate(parts), np.tile(labels, len(parts))


def main(_):
    logging.set_verbosity(logging.ERROR)
    folder = pathlib.Path(FLAGS.folder)
    folder.mkdir(parents=True, exist_ok=True)
    (images, labels), (x, y) = channels_quality.load()
    images, labels = images[: FLAGS.images], labels[: FLAGS.images]
    held = min(VALIDATION, len(labels) // 5)
    validation = images[-held:].astype("float32"), labels[-held:]
    test = x.astype("float32"), y
    keras.utils.set_random_seed(0)
    teacher = quantization_resnet8.original()
    result = tfpeft.search(
        teacher,
        with_copies(images[:-held], labels[:-held]),
        tfpeft.Budget(max_size_bytes=FLAGS.max_size_bytes),
        minutes=FLAGS.minutes,
        validation_data=validation,
        test_data=test,
        batch_size=128,
        folder=folder / "search",
    )
    print(result)
    result.plot(folder / "pareto.png")
    trained = [trial for trial in result.trials if trial.evaluation is not None]
    files = {
        "ResNet8 in float32": teacher,
        "MLPerf Tiny's int8 file": pathlib.Path(FLAGS.mlperf_dir) / "pretrainedResnet_quant.tflite",
        f"search, {len(trained)} trials": result.path,
    }
    if FLAGS.by_hand is not None:
        files["by hand"] = FLAGS.by_hand
    rows = []
    for name, file in files.items():
        found = tfpeft.evaluate(str(file) if isinstance(file, pathlib.Path) else file, test)
        low, high = found.intervals["accuracy"]
        accuracy = f"{100 * found.accuracy:.2f} ({100 * low:.2f} to {100 * high:.2f})"
        rows.append([name, accuracy, f"{found.size_bytes:,}", f"{found.latency_ms:.3f}"])
    print(f"\n{machine.describe()}; {FLAGS.minutes:g} minutes; {result.best.settings}\n")
    print(markdown_table(["", "accuracy, % (95%)", "bytes", "ms"], rows))


if __name__ == "__main__":
    app.run(main)
