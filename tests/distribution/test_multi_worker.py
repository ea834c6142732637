"""Two workers on this machine: equal weights and masks, a worker that is killed, and the rest."""

import json
import multiprocessing
import signal
import socket

import numpy as np
import pytest

from tests.distribution import workers

_FORKSERVER = multiprocessing.get_context("forkserver")
_LIMIT = 600  # seconds, for a machine that is busy


def free_addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def run(job, folder):
    """Returns the exit status and the results of each of two workers."""
    addresses = free_addresses(2)
    # What the tests of scripts import before they fork; the server may be theirs.
    _FORKSERVER.set_forkserver_preload(["tfpeft", workers.__name__])
    processes = [
        _FORKSERVER.Process(target=workers.run, args=(job, index, addresses, str(folder)))
        for index in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(_LIMIT)
    ended = [not process.is_alive() for process in processes]
    for process in processes:
        process.kill()
        process.join()
    logs = "\n".join(path.read_text()[-3000:] for path in sorted(folder.glob(f"{job}-*.log")))
    assert all(ended), f"{job} hangs: {logs}"
    results = [{}, {}]
    for index, found in enumerate(results):
        for path in sorted(folder.glob(f"{job}-{index}-*.json")):
            found.update(json.loads(path.read_text()))
    assert all(results), logs
    return [process.exitcode for process in processes], results


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("workers")


@pytest.fixture(scope="module")
def killed(folder):
    """The first launch: worker 1 wrote what it had before it was killed."""
    return run("train_and_be_killed", folder)


@pytest.fixture(scope="module")
def resumed(folder, killed):
    """The second launch, which goes on where the first one ended."""
    statuses, results = run("resume", folder)
    assert statuses == [0, 0]
    return results


def test_workers_have_the_random_seed_of_the_chief(killed):
    _, (chief, other) = killed
    assert chief["seed"] == other["seed"]


@pytest.mark.parametrize("model", ["sequential", "two_inputs", "overflow"])
def test_weights_masks_and_states_are_equal_to_the_last_bit(killed, model):
    _, (chief, other) = killed
    assert chief[model]["variables"] == other[model]["variables"]


def test_masks_move_and_clusters_are_kept(killed):
    _, (chief, _) = killed
    # Erdos-Renyi-Kernel densities of (6, 8) and (8, 3): 36 of 72 weights are zero.
    assert sum(chief["sequential"]["zeros"]) == 36
    assert max(chief["two_inputs"]["values"]) <= 4


def test_history_and_predictions_are_those_of_one_machine(killed):
    """A batch of one sample for two workers has no empty part, whose statistics were NaN."""
    _, results = killed
    for trained in (result["sequential"] for result in results):
        np.testing.assert_allclose(trained["predicted"], trained["logits"], atol=1e-6)
        history = trained["history"]
        np.testing.assert_allclose(history["val_loss"][-1], trained["loss"], rtol=1e-5)
        np.testing.assert_allclose(history["val_accuracy"][-1], trained["accuracy"], rtol=1e-5)
        assert np.isfinite(history["loss"]).all()
    assert results[0]["sequential"]["history"] == results[1]["sequential"]["history"]


def test_a_step_that_overflows_on_one_worker_is_skipped_on_all(killed):
    _, results = killed
    assert [result["overflow"]["is_skipped"] for result in results] == [True, True]


def test_workers_read_what_the_chief_has_and_only_the_chief_writes(killed, folder):
    _, results = killed
    assert [result["copies"] for result in results] == [{"read": "chief", "nothing": False}] * 2
    written = sorted(path.name for path in (folder / "of_chief").iterdir())
    assert written == ["by_chief", "text"]


def test_a_killed_worker_is_an_error_of_the_other(killed):
    statuses, (chief, other) = killed
    assert statuses == [0, -signal.SIGKILL]
    assert "Collective ops is aborted" in chief["error"]
    assert "error" not in other


def test_workers_of_a_script_have_a_copy_of_the_folder_of_the_chief(resumed):
    """Without its lock; and still within the scope of the strategy after `clear_session`."""
    assert [result["is_chief"] for result in resumed] == [True, False]
    assert resumed[0]["run"] == "run" != resumed[1]["run"]
    assert resumed[1]["files"] == ["run.json"]


def test_workers_that_resume_end_as_workers_that_were_not_killed(resumed):
    for result in resumed:
        assert result["epochs"] == list(range(workers.KILLED_IN, workers.EPOCHS))
        assert result["all_epochs"] == list(range(workers.EPOCHS))
        assert result["resumed"] == result["whole"]
    assert resumed[0]["resumed"] == resumed[1]["resumed"]
