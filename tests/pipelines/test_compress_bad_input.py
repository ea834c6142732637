"""Bad input of pipelines.compress: one line that names the flag, and nothing on disk is harmed."""

import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from pipelines import compress
from tests.pipelines.scripts import call
from tfpeft.core.arguments import InputError

MINE = ["--dataset=mine.npz", "--model=mine.keras"]


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Calls compress with flags, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    x, y = load_digits(return_X_y=True)

    def call_compress(*arguments, **arrays):
        splits = {
            "x_train": x[:150],
            "y_train": y[:150],
            "x_test": x[150:180],
            "y_test": y[150:180],
        }
        np.savez("mine.npz", **{**splits, **arrays})
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        net.save("mine.keras")
        return call(compress, *arguments)

    return call_compress


@pytest.mark.parametrize(
    ("arguments", "arrays", "message"),
    [
        (["--dataset=none.npz"], {}, "--dataset.*none.npz, which is not there"),
        (["--dataset=mine.keras"], {}, "--dataset, expected digits.*mine.keras"),
        (["--dataset=no_module:data"], {}, "--dataset=no_module:data"),
        (["--dataset=mnist", "--data_dir=."], {}, "--dataset.*mnist.npz, which is not there"),
        (["--dataset=mine.npz"], {"x_test": np.zeros((0, 64))}, "test data with 0 samples and 30"),
        (
            ["--dataset=mine.npz"],
            {"x_train": np.full((150, 64), np.nan)},
            "NaN.*150 of 150 samples",
        ),
        (["--dataset=mine.npz"], {"y_test": np.full(30, 10)}, "0 to 9.*test data with 10 to 10"),
        (["--dataset=mine.npz"], {"y_test": np.full(30, -1)}, "0 to 9.*test data with -1 to -1"),
        (
            ["--dataset=mine.npz", "--task=classification"],
            {"y_train": np.linspace(0, 9, 150)},
            "one class per sample.*numbers such as",
        ),
        (
            ["--dataset=mine.npz"],
            {"y_train": np.full(150, "cat")},
            "of one kind.*names and numbers",
        ),
        (["--model=none.keras"], {}, "--model=none.keras, which is not there"),
        (["--model=mine.npz"], {}, "--model, expected a .keras or .h5.*=mine.npz"),
        (["--model=mine.keras", "--student=mine.npz"], {}, "--student, expected.*mine.npz"),
        (["--model=mine.keras", "--student=0.5"], {}, "--student=0.5.*`units`"),
        (["--model=mine.keras", "--student=none.h5"], {}, "--student=none.h5, which is not there"),
        (["--model=mine.keras", "--custom_objects=none.py"], {}, "--custom_objects=none.py"),
        (["--stages=quantize,prune"], {}, "--stages.*quantize last.*quantize,prune"),
        (["--stages=prune,prune"], {}, "--stages.*each once"),
        (["--stages=prune", "--student=0.5"], {}, "--student belongs to the stage distill"),
        (["--stages=distill", "--exclude=a"], {}, "--exclude belongs to.*sparse_train or prune"),
        (["--stages=prune", "--iterative", "--power=2"], {}, "--power, which.*--iterative"),
        (["--stages=prune", "--tolerance=0.1"], {}, "--tolerance, which gradual pruning"),
        (["--stages=prune", "--iterative", "--criterion=random"], {}, "--criterion.*random"),
        (
            ["--stages=prune", "--iterative", "--sensitivity", "--scope=erk"],
            {},
            "--scope, which --sensitivity does not read",
        ),
        (["--stages=sparse_train", "--l1=1"], {}, "--l1, which --technique=rigl"),
        (
            ["--stages=sparse_train", "--technique=proximal_l1", "--sparsity=0.5"],
            {},
            "--sparsity, which --technique=proximal_l1",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--n_m=2,x"],
            {},
            "--n_m, expected integers of at least 1.*--n_m=2,x",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--n_m=2"],
            {},
            "--n_m, expected two integers.*--n_m=2",
        ),
        (["--stages=prune", "--n_m=4,2"], {}, "--n_m, expected two .*larger. Received: --n_m=4,2"),
        (["--stages=prune", "--n_m=2,2"], {}, "--n_m, expected two .*larger. Received: --n_m=2,2"),
        (["--stages=prune", "--n_m=1,2", "--scope=erk"], {}, "--n_m, expected a pattern alone"),
        (["--stages=prune", "--n_m=1,2", "--block_size=2,2"], {}, "--n_m, expected a pattern"),
        (
            ["--stages=prune", "--n_m=1,4", "--final_sparsity=0.5"],
            {},
            "--final_sparsity, expected 1 - n / m = 0.75, or none, with --n_m=1,4. Received: ",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--prune_end=0"],
            {},
            "--prune_end, expected.*--prune_begin=0.0",
        ),
        (
            ["--dataset=mine.npz", "--stages=quantize", "--learning_rate=1e30"],
            {},
            "NaN or infinity in .*, expected a lower rate. Received: --learning_rate=1e.30",
        ),
        (
            [*MINE, "--allow_chance", "--stages=prune", "--learning_rate=1e38"],
            {},
            "gradient that is NaN.*--learning_rate=1e.38",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras"],
            {"y_train": np.arange(150) % 4, "y_test": np.arange(30) % 4},
            "--model has outputs of 10 classes.*--dataset with 4",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras"],
            {"x_train": np.zeros((150, 7)), "x_test": np.zeros((30, 7))},
            r"--model expects inputs of shape \(64,\).*--dataset=mine.npz with \(7,\)",
        ),
    ],
)
def test_bad_input_names_the_flag(main, tmp_path, arguments, arrays, message):
    with pytest.raises(InputError, match=message):
        main(*arguments, "--epochs=1", **arrays)
    assert not list(tmp_path.glob("**/*.tflite"))


def test_a_run_that_failed_early_does_not_claim_its_folder(main, tmp_path):
    with pytest.raises(InputError, match="none.keras"):
        main("--model=none.keras")
    with pytest.raises(InputError, match="other.keras"):
        main("--model=other.keras")
    written = json.loads((tmp_path / "saved_models/digits-compress/run.json").read_text())
    assert written["flags"]["model"] == "other.keras"


def test_a_folder_with_other_files_is_an_error(main, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("a cat")
    with pytest.raises(InputError, match="photos, which holds other files"):
        main("--output_dir=.", "--name=photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]
