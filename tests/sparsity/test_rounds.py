"""The folder of `prune_iteratively` when it is damaged."""

import json

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError
from tfpeft.sparsity.rounds import RECORD, Rounds

GOOD = {"monitor": "loss", "baseline": 0.5, "history": []}
ROUND = {"sparsity": 0.5, "metric": 0.4, "held": True}


@pytest.mark.parametrize(
    "content",
    [
        *("", "{", "[]", "3", "null", "garbage"),
        *(
            json.dumps({"settings": {}, **GOOD, **changes})
            for changes in (
                {"history": 5},
                {"history": [{"held": True}]},
                {"history": [{**ROUND, "held": "yes"}]},
                {"history": [{**ROUND, "sparsity": None}]},
                {"monitor": None},
                {"baseline": "0.5"},
            )
        ),
        json.dumps({"settings": {}, "monitor": "loss"}),
    ],
)
def test_a_record_that_is_damaged_says_what_to_do(tmp_path, content):
    (tmp_path / RECORD).write_text(content)
    with pytest.raises(InputError, match="`directory`.*history.json is damaged.*remove the folder"):
        Rounds(tmp_path, {}, {"sparsity": float})
    assert [path.name for path in tmp_path.iterdir()] == [RECORD]


def test_a_record_that_is_whole(tmp_path):
    history = [ROUND, {**ROUND, "metric": float("nan"), "held": False}]
    (tmp_path / RECORD).write_text(json.dumps({"settings": {}, **GOOD, "history": history}))
    rounds = Rounds(tmp_path, {}, {"sparsity": float})
    assert (rounds.held, rounds.monitor, rounds.baseline) == (1, "loss", 0.5)


@pytest.mark.parametrize("damage", ["cut", "empty", "missing", "folder"])
def test_the_model_of_the_last_round_that_is_damaged(tmp_path, damage):
    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def prune():
        return tfpeft.prune_iteratively(
            *(model, (x, y), (x, y)),
            **{"target_sparsity": 0.5, "step": 0.5, "tolerance": 9.0, "directory": tmp_path},
        )

    prune()
    file = tmp_path / "round_1.keras"
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    elif damage != "missing":
        file.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(
        InputError, match="`directory`, expected .*round_1.keras', which is "
    ) as error:
        prune()
    assert "\n" not in str(error.value)
