"""Quality of two tasks on all-MiniLM-L6-v2: per task a model, a head, or a head and an adapter.

    python benchmarks/sharing.py --data_dir=data    # movie_reviews.csv, newsgroups.npz, minilm/

Needs keras-hub, tensorflow-text and safetensors. Sentiment: the short reviews of Rotten Tomatoes,
80% to train on, 10% to choose settings on, 10% to test on. Topic: 20 newsgroups, the first 128
tokens of 3,000 random training texts, 500 others to choose settings on, and 3,000 test texts. Every
row has a masked mean of the tokens and a Dense head on it, Adam with warm-up and decay, and the
accuracy of its last epoch. README.md explains how the settings below were chosen.

Results are lines of results.jsonl in --output_dir; a row with a result is not run again.
"""

import csv
import json
import pathlib
import time
import typing

import keras
import keras_hub
import numpy as np
from absl import app, flags

import tfpeft

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", "data", "Folder of movie_reviews.csv, newsgroups.npz and minilm/.")
flags.DEFINE_string("output_dir", "saved_models/sharing", "Folder of tokens and results.jsonl.")
flags.DEFINE_list("rows", ["separate", "heads", "lora"], "Rows to run.")
flags.DEFINE_list("seeds", ["0"], "One run per seed.")


class Task(typing.NamedTuple):
    classes: int
    tokens: int  # 95% of the reviews fit, and 38% of the newsgroups' texts


class Settings(typing.NamedTuple):
    learning_rate: float
    epochs: int
    batch_size: int = 32  # of both tasks together, where one model trains both


TASKS = {"sentiment": Task(classes=2, tokens=48), "topic": Task(classes=20, tokens=128)}
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

# Chosen on validation data. A row with one model for both tasks has one optimizer for both.
SEPARATE = {"sentiment": Settings(1e-4, 3), "topic": Settings(1e-4, 3)}
HEADS = Settings(1e-2, 10, batch_size=128)
LORA = Settings(2e-3, 5)
ADAPTER = {"rank": 4, "alpha": 8, "target": "transformer_layer_*"}  # all Dense layers in there


def sentiment_texts():
    """Returns {part: (texts, labels)} of the short reviews."""
    with (pathlib.Path(FLAGS.data_dir) / "movie_reviews.csv").open(
        newline="", encoding="utf-8"
    ) as f:
        rows = [row for row in csv.DictReader(f) if row["source"] == "rotten_tomatoes"]
    labels = {row["text"]: int(row["label"]) for row in rows}  # without repeated texts
    texts, labels = np.array(list(labels)), np.array(list(labels.values()))
    order = np.random.default_rng(0).permutation(len(texts))
    parts = np.split(order, [int(0.8 * len(order)), int(0.9 * len(order))])
    names = ("train", "validation", "test")
    return {name: (texts[rows], labels[rows]) for name, rows in zip(names, parts, strict=True)}


def topic_texts():
    """Returns {part: (texts, labels)} of the newsgroups; test texts are of a later date."""
    arrays = np.load(pathlib.Path(FLAGS.data_dir) / "newsgroups.npz")
    texts = {}
    for part in ("train", "test"):
        # The model reads no more of a text; texts that are then equal are used once.
        starts = [" ".join(str(text).split()[:200]) for text in arrays[f"text_{part}"]]
        starts, rows = np.unique(starts, return_index=True)
        texts[part] = (starts, arrays[f"y_{part}"][rows])
    order = np.random.default_rng(0).permutation(len(texts["train"][0]))
    test_order = np.random.default_rng(0).permutation(len(texts["test"][0]))
    texts["test"] = tuple(array[test_order[:3000]] for array in texts["test"])
    for part, rows in (("validation", order[4500:5000]), ("train", order[:3000])):
        texts[part] = tuple(array[rows] for array in texts["train"])
    return texts


def load():
    """Returns {task: {part: (x, y)}}; tokens are stored in --output_dir."""
    path = pathlib.Path(FLAGS.output_dir) / "tokens.npz"
    if not path.exists():
        tokenizer = keras_hub.models.BertTokenizer.from_preset(f"{FLAGS.data_dir}/minilm")
        arrays = {}
        for task, texts in (("sentiment", sentiment_texts()), ("topic", topic_texts())):
            pack = keras_hub.models.BertTextClassifierPreprocessor(
                tokenizer, sequence_length=TASKS[task].tokens
            )
            for part, (x, y) in texts.items():
                arrays[f"{task} {part} x"] = keras.ops.convert_to_numpy(pack(list(x))["token_ids"])
                arrays[f"{task} {part} y"] = y
        np.savez_compressed(path, **arrays)
    arrays = np.load(path)
    return {
        task: {
            part: (inputs(arrays[f"{task} {part} x"]), arrays[f"{task} {part} y"])
            for part in ("train", "validation", "test")
        }
        for task in TASKS
    }


def inputs(token_ids):
    return {
        "token_ids": token_ids,
        "segment_ids": np.zeros_like(token_ids),
        "padding_mask": (token_ids != 0).astype("int32"),
    }


def backbone():
    return keras_hub.models.BertBackbone.from_preset(f"{FLAGS.data_dir}/minilm")


def encoder():
    """Returns a model from tokens to the mean of their vectors, padding left out."""
    bert = backbone()
    vectors, mask = bert.output["sequence_output"], bert.input["padding_mask"]
    return keras.Model(bert.input, keras.layers.GlobalAveragePooling1D()(vectors, mask=mask))


def compile_(model, settings, samples):
    """Adam, warmed up over a tenth of the steps, then brought down to 0 as a cosine."""
    steps = settings.epochs * -(-samples // settings.batch_size)
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, steps - steps // 10, warmup_target=settings.learning_rate, warmup_steps=steps // 10
    )
    model.compile(keras.optimizers.Adam(schedule), LOSS, metrics=["accuracy"], jit_compile=False)


def separate(data, seed):
    """Trains a model per task, with all its weights; yields (task, model, measurements)."""
    for task, parts in data.items():
        if (task, "separate", seed) in done():
            continue
        keras.utils.set_random_seed(seed)
        body = encoder()
        model = keras.Model(body.input, keras.layers.Dense(TASKS[task].classes)(body.output))
        settings = SEPARATE[task]
        compile_(model, settings, len(parts["train"][1]))
        start = time.time()
        model.fit(
            *parts["train"], batch_size=settings.batch_size, epochs=settings.epochs, verbose=2
        )
        seconds = time.time() - start
        path = weights_path("separate", task, seed)
        keras.Model(model.input, model.output).save_weights(path)  # without the optimizer's
        yield task, model, {"seconds": seconds, **sizes(model, path)}


def heads(data, seed):
    """Trains a Dense head per task on the precomputed outputs of the backbone."""
    shared = shared_model(seed, adapters=None)
    start = time.time()
    train = {
        task: tfpeft.precompute(shared.encoder, parts["train"], batch_size=64).join(parts["train"])
        for task, parts in data.items()
    }
    precomputing = time.time() - start
    yield from together("heads", shared, train, HEADS, seed, precomputing=precomputing)


def lora(data, seed):
    """Trains a head and a LoRA per task on one frozen backbone."""
    shared = shared_model(seed, adapters=tfpeft.LoRA(**ADAPTER))
    train = {task: parts["train"] for task, parts in data.items()}
    yield from together("lora", shared, train, LORA, seed)


def shared_model(seed, adapters):
    keras.utils.set_random_seed(seed)
    classes = {task: each.classes for task, each in TASKS.items()}
    return tfpeft.SharedModel(backbone(), classes, adapters=adapters, pooling="mean")


def together(row, shared, train, settings, seed, **more):
    """Trains both tasks in every batch, in proportion to the sizes of their data."""
    mixed = tfpeft.mix_tasks(
        train, sampling="proportional", batch_size=settings.batch_size, seed=seed
    )
    compile_(shared, settings, sum(len(labels) for _, labels in train.values()))
    start = time.time()
    shared.fit(mixed, epochs=settings.epochs, verbose=2)
    seconds = time.time() - start
    for task in TASKS:
        path = weights_path(row, task, seed)
        shared.save_task(task, path)
        model = shared.task(task)
        model.compile(loss=LOSS, metrics=["accuracy"], jit_compile=False)
        yield task, model, {"seconds": seconds, **sizes(shared, path), **more}


def weights_path(row, task, seed):
    return pathlib.Path(FLAGS.output_dir) / f"{row}_{task}_{seed}.weights.h5"


def sizes(model, path):
    """Returns the percentage of trained parameters, and the size of the file of a task."""
    trained, every = (
        sum(int(np.prod(variable.shape)) for variable in variables)
        for variables in (model.trainable_variables, model.variables)
    )
    return {"trained_percent": 100 * trained / every, "megabytes": path.stat().st_size / 1e6}


def accuracy(model, x, y):
    logits = model.predict(x, batch_size=100, verbose=0)
    return float(np.mean(np.argmax(logits, -1) == y))


def results():
    path = pathlib.Path(FLAGS.output_dir) / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def done():
    return {(found["task"], found["row"], found["seed"]) for found in results()}


def table():
    """Returns a table in Markdown: test accuracy in percent, mean over seeds, and costs.

    Separate models train one after another: their seconds are summed.
    """
    names = {
        "separate": "a model per task, all weights trained",
        "heads": "one backbone, a head per task",
        "lora": "one backbone, a LoRA and a head per task",
    }
    lines = [
        f"| | {', % | '.join(TASKS)}, % | trained, % of parameters | MB per task | training, s |",
        "|---|" + "---:|" * (len(TASKS) + 3),
    ]
    for row, name in names.items():
        found = {
            task: [r for r in results() if (r["row"], r["task"]) == (row, task)] for task in TASKS
        }
        if not all(found.values()):
            continue
        mean = {
            task: {
                key: np.mean([r[key] for r in runs])
                for key in runs[0]
                if key not in ("row", "task")
            }
            for task, runs in found.items()
        }
        total = sum if row == "separate" else max
        cells = [
            *(f"{100 * each['test']:.2f}" for each in mean.values()),
            f"{max(each['trained_percent'] for each in mean.values()):.2f}",
            f"{max(each['megabytes'] for each in mean.values()):.2f}",
            f"{total(each['seconds'] for each in mean.values()):.0f}",
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    output = pathlib.Path(FLAGS.output_dir)
    output.mkdir(parents=True, exist_ok=True)
    data = load()
    for seed in map(int, FLAGS.seeds):
        for row in FLAGS.rows:
            if all((task, row, seed) in done() for task in TASKS):
                continue
            for task, model, measured in ROWS[row](data, seed):
                if (task, row, seed) in done():  # of a run that was killed between two tasks
                    continue
                accuracies = {
                    part: accuracy(model, *data[task][part]) for part in ("validation", "test")
                }
                result = {"row": row, "task": task, "seed": seed, **accuracies, **measured}
                with (output / "results.jsonl").open("a") as file:
                    file.write(json.dumps(result) + "\n")
                print(result, flush=True)
    print(table())


ROWS = {"separate": separate, "heads": heads, "lora": lora}

if __name__ == "__main__":
    app.run(main)
