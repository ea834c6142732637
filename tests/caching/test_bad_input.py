"""What `precompute` and `join` do not take: data, folders and arguments."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.caching.samples import HARD, Batches, X, Y, dataset, student
from tfpeft.core.arguments import InputError

NOISE = tf.random.Generator.from_seed(0)


class TestBadInput:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data.unbatch().shuffle(50).batch(8), "shuffle after the join"),
            (lambda data: data.shuffle(7, seed=1), "shuffle after the join"),
            (
                lambda data: data.map(lambda x, y: (x + NOISE.normal((5,)), y)),
                "random augmentation.*the teacher itself",
            ),
            (
                lambda data: Batches(lambda x, y: (x + NOISE.normal((5,)).numpy(), y)),
                "random augmentation.*the teacher itself",
            ),
            (lambda data: data.repeat(), "finite dataset"),
            (lambda data: Batches(count=None), "`data`.*`num_batches`"),
            (lambda data: data.take(0), "data with samples"),
            (lambda data: Batches(count=0), "data with samples"),
            (lambda data: (X[:0], Y[:0]), "data with samples"),
            (lambda data: data.unbatch(), "`data`.*batches"),
            (lambda data: (batch for batch in [(X, Y)]), "`data`.*returns the generator"),
            (lambda data: lambda: iter([(X, Y)]), "`data`.*data whose end is known"),
            (
                lambda data: Batches(lambda x, y: (x[:, : 5 if len(x) == 8 else 4], y)),
                "`data`.*samples of one shape",
            ),
        ],
        ids=[
            *("shuffle", "shuffled batches", "augmentation", "augmented PyDataset"),
            *("endless", "endless PyDataset", "empty", "empty PyDataset", "empty arrays"),
            *("unbatched", "a generator", "a generator function", "shapes"),
        ],
    )
    def test_data_that_cannot_be_used(self, change, message, teacher):
        with pytest.raises(InputError, match=message):
            tfpeft.precompute(teacher, change(dataset()))

    def test_a_shuffle_that_stays_is_fine(self, teacher):
        data = dataset().unbatch().shuffle(50, seed=2, reshuffle_each_iteration=False).batch(8)
        found = tfpeft.precompute(teacher, data)
        for (inputs, teacher_outputs), _ in found.join(data):
            expected = teacher(inputs, training=False)
            np.testing.assert_allclose(
                teacher_outputs["outputs"][0], expected, rtol=1e-5, atol=1e-6
            )

    def test_other_samples_at_the_join(self, teacher):
        found = tfpeft.precompute(teacher, (X, Y))
        with pytest.raises(ValueError, match="samples 0 to 49"):
            found.join((X[::-1], Y))
        with pytest.raises(ValueError, match=r"`data`.*50 samples.*data=40"):
            found.join((X[:40], Y[:40]))
        with pytest.raises(ValueError, match="samples 0 to 7"):
            found.join(dataset(x=X + 1.0))
        late = X.copy()
        late[30] += 1.0
        with pytest.raises(tf.errors.InvalidArgumentError, match="samples 24 to 31, of 50"):
            list(found.join(dataset(x=late)))
        longer = dataset().concatenate(dataset())
        with pytest.raises(tf.errors.InvalidArgumentError, match="samples 50 to 57, of 50"):
            list(found.join(longer))

    def test_a_folder_of_something_else(self, teacher, tmp_path, small_shards):
        path = tmp_path / "outputs"
        tfpeft.precompute(teacher, (X, Y), path)
        before = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
        other = keras.models.clone_model(teacher)
        for model, options, message in [
            (other, {}, "models was"),
            (teacher, {"float16": True}, "float16 was"),
            (teacher, {"features": ["deep"]}, "features was"),
        ]:
            with pytest.raises(ValueError, match=f"`path`.*{message}"):
                tfpeft.precompute(model, (X, Y), path, **options)
        same_weights = keras.Sequential([teacher, keras.layers.Activation("sigmoid")])
        same_weights.build((None, 5))
        with pytest.raises(ValueError, match="`path`.*(models was|still returns)"):
            tfpeft.precompute(same_weights, (X, Y), path)
        with pytest.raises(ValueError, match="samples 0 to 49"):
            tfpeft.precompute(teacher, (X + 1.0, Y), path)
        with pytest.raises(ValueError, match=r"`data`.*50 samples.*data=32"):
            tfpeft.precompute(teacher, (X[:32], Y[:32]), path)
        assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file()} == before
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("mine")
        with pytest.raises(ValueError, match="`path`.*empty folder"):
            tfpeft.precompute(teacher, (X, Y), tmp_path / "mine")
        assert [each.name for each in (tmp_path / "mine").iterdir()] == ["thesis.txt"]

    def test_another_function_of_the_same_name(self, tmp_path):
        tfpeft.precompute(lambda x: x, X, tmp_path)
        with pytest.raises(ValueError, match="`path`.*the model still returns"):
            tfpeft.precompute(lambda x: 2.0 * x, X, tmp_path)

    def test_damaged_files(self, teacher, tmp_path):
        tfpeft.precompute(teacher, (X, Y), tmp_path)
        (tmp_path / "00000" / "1.npy").write_bytes(b"\x93NUMPY")
        with pytest.raises(ValueError, match="`path`.*1.npy is damaged"):
            tfpeft.precompute(teacher, (X, Y), tmp_path)
        about = json.loads((tmp_path / "about.json").read_text())
        del about["structure"]
        for text in (json.dumps(about), "[]"):
            (tmp_path / "about.json").write_text(text)
            with pytest.raises(ValueError, match="`path`.*about.json is damaged"):
                tfpeft.precompute(teacher, (X, Y), tmp_path)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"path": 3}, "`path`.*3"),
            ({"path": __file__}, "`path`.*folder.*test_bad_input"),
            (
                {"data": tf.data.Dataset.from_tensors(tf.ragged.constant([[1.0], [1.0, 2.0]]))},
                "`data`.*dense",
            ),
            ({"model": "teacher.keras"}, "`model`.*'teacher.keras'"),
            ({"data": [X, Y[:3]]}, "`data`"),
            ({"data": 3}, "`data`.*int"),
            ({"data": np.where(X > 1, np.nan, X)}, "`data`, expected finite inputs.*NaN"),
            ({"data": tf.data.Dataset.from_tensors(X + np.inf)}, "`data`, expected finite inputs"),
            ({"data": X.astype(str)}, "`data`, expected numbers for .*texts"),
            ({"model": []}, "`model`, expected a model.*model=\\[\\]"),
            ({"features": "deep"}, "`features`.*'deep'"),
            ({"features": ["deap"]}, "`features`.*such as.*deep.*'deap'"),
            ({"batch_size": 0}, "`batch_size`.*0"),
            ({"model": lambda x: 1e6 * x, "float16": True}, "`float16`.*65504"),
        ],
    )
    def test_bad_input(self, options, message, teacher, tmp_path):
        arguments = {"model": teacher, "data": (X, Y), "path": tmp_path / "outputs", **options}
        with pytest.raises(ValueError, match=message):
            tfpeft.precompute(**arguments)
        assert not (tmp_path / "outputs" / "00000").exists()


@pytest.mark.parametrize("given", [{}, X, {"outputs": ()}, {"features": {}}])
def test_precomputed_inputs_that_join_did_not_make(given):
    distiller = tfpeft.Distiller(None, student(), teacher_from_logits=True)
    distiller.compile("sgd", HARD)
    with pytest.raises(InputError, match="`teacher` of outputs, as `join` returns them"):
        distiller.fit(tfpeft.PrecomputedInputs(X, given), Y, verbose=0)
    with pytest.raises(InputError, match="`store`, expected one that `precompute` has filled"):
        tfpeft.Precomputed(given)


def shuffled_tail(**options):
    """Returns a dataset whose first batches stay, and whose others are shuffled."""
    parts = slice(0, 10), slice(10, None)
    head, tail = (tf.data.Dataset.from_tensor_slices((X[part], Y[part])) for part in parts)
    return head.concatenate(tail.shuffle(100, **options)).batch(2)


def test_data_that_is_shuffled_behind_its_first_batches(teacher):
    with pytest.raises(InputError, match="a dataset that shuffles its samples again"):
        tfpeft.precompute(teacher, shuffled_tail())
    fixed = shuffled_tail(reshuffle_each_iteration=False)
    found = tfpeft.precompute(teacher, fixed).outputs
    x = np.concatenate([batch[0] for batch in fixed])
    np.testing.assert_allclose(found, teacher(x), rtol=1e-4, atol=1e-5)


def test_other_samples_behind_the_first_batch_end_the_training(teacher):
    joined = tfpeft.precompute(teacher, dataset(8)).join(
        shuffled_tail(reshuffle_each_iteration=False)
    )
    distiller = tfpeft.Distiller(None, student(), teacher_from_logits=True, alpha=0.0)
    distiller.compile("sgd", run_eagerly=True)
    with pytest.raises(InputError, match="the samples that `precompute` received.*samples") as e:
        distiller.fit(joined, verbose=0)
    assert "\n" not in str(e.value)


def test_joined_data_without_samples(teacher):
    precomputed = tfpeft.precompute(teacher, (X, Y))
    with pytest.raises(InputError, match="samples, one or more"):
        precomputed.join(dataset().filter(lambda x, y: False))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features": None}, "`features`, expected a list or tuple of names"),
        ({"features": [3]}, "`features`, expected a list or tuple of names"),
        ({"float16": "no"}, "`float16`, expected True or False"),
        ({"model": lambda x: None}, "tensors of .* from the function .*NoneType$"),
        ({"model": lambda x: x[:1]}, "tensors of .* another number of samples than its inputs$"),
        ({"model": lambda x: 1 / 0}, "tensors of .* Received: ZeroDivisionError: division by"),
        ({"model": keras.Model}, "`model`, expected a keras.Model, a layer"),
    ],
)
def test_other_arguments(teacher, options, message):
    with pytest.raises(InputError, match=message):
        tfpeft.precompute(**{"model": teacher, "data": (X, Y), **options})
