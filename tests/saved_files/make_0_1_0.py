"""Writes the files in 0.1.0/. It ran under tfpeft 0.1.0, and uses the names of that version.

python make_0_1_0.py FOLDER
"""

import json
import pathlib
import sys

import keras
import numpy as np

import tfpeft

HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def network(name, units=6):
    return keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(units, activation="relu", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ],
        name=name,
    )


def main(folder):
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 8)).astype("float32"), rng.integers(0, 3, 16)
    expected = {}

    def keep(name, model):
        model.save(folder / f"{name}.keras")
        outputs = model.predict(x, verbose=0)
        is_dict = isinstance(outputs, dict)
        expected[name] = (
            {k: v.tolist() for k, v in outputs.items()} if is_dict else outputs.tolist()
        )

    pruned = network("pruned")
    schedule = tfpeft.polynomial_decay(0.5, begin=0.0, end=1.0, total_steps=4, frequency=1)
    optimizer = tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), schedule)
    pruned.compile(tfpeft.ProximalL1(optimizer, l1=0.01), HARD)
    pruned.fit(x, y, batch_size=4, verbose=0)
    keep("pruned", pruned)

    rigl = network("rigl")
    rigl.compile(tfpeft.RigL(keras.optimizers.Adam(1e-2), 0.5, end_step=3, frequency=1), HARD)
    rigl.fit(x, y, batch_size=4, verbose=0)
    keep("rigl", rigl)

    teacher = network("teacher", 9)
    matching = tfpeft.FeatureMatching(teacher_layer="hidden", student_layer="hidden")
    distiller = tfpeft.Distiller(
        teacher,
        network("student"),
        losses=[
            tfpeft.SoftLabels(),
            (matching, 2.0),
            tfpeft.DIST(weight=0.5),
            keras.distillation.LogitsDistillation(
                temperature=2.0, loss=keras.losses.MeanSquaredError()
            ),
            keras.distillation.FeatureDistillation(
                loss="mse", teacher_layer_name="head", student_layer_name="head"
            ),
        ],
    )
    distiller.compile("adam", HARD)
    distiller.fit(x, y, verbose=0)
    keep("distiller", distiller)

    adapted = tfpeft.add_adapters(network("base"), tfpeft.LoRA(rank=2, target=["hidden", "head"]))
    adapted.compile("adam", HARD)
    adapted.fit(x, y, verbose=0)
    keep("adapted", adapted)
    adapted.save_adapter(folder / "adapter.weights.h5")

    adapters = tfpeft.LoRA(rank=2, target="hidden")
    shared = tfpeft.SharedModel(network("backbone"), {"a": 3, "b": 2}, adapters=adapters)
    shared.compile("adam", HARD, metrics=["accuracy"])
    shared.fit(x, {"a": y, "b": y % 2}, verbose=0)
    keep("shared", shared)
    shared.save_task("a", folder / "a.weights.h5")
    keep("task", shared.task("a"))

    tfpeft.precompute(teacher, (x, y), folder / "outputs")
    np.savez(folder / "data.npz", x=x, y=y)
    (folder / "expected.json").write_text(json.dumps(expected))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
