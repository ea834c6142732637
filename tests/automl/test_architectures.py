"""Spaces of students: every point builds for its data, small ones are exported."""

import keras_tuner
import numpy as np
import pytest

import tfpeft
from tfpeft.automl.students.architecture import Spaces
from tfpeft.automl.students.inputs import inputs_of
from tfpeft.automl.students.interface import Interface, interface_of, objective_of
from tfpeft.automl.trials.candidates import with_values
from tfpeft.automl.trials.job import whole_space

IMAGE = Interface((8, 8, 1), 3, mean=(0.5,), variance=(2.0,))
SIGNAL = Interface((32, 2), 2)
TABLE = Interface((5,), 1, scale=(2.0,), offset=(10.0,))
TOKENS = Interface((12,), 4, dtype="int32", vocabulary_size=50, activation="softmax")
CASES = [
    (tfpeft.SmallCNN(width=(4, 8)), IMAGE),
    (tfpeft.MobileBlocks(width=(4, 8)), IMAGE),
    (tfpeft.Small1D(width=(4, 8)), SIGNAL),
    (tfpeft.Small1D(width=(4, 8)), TABLE),
    (tfpeft.TinyTransformer(width=(8, 16), heads=(1, 2)), TOKENS),
    (tfpeft.TinyTransformer(width=(8, 16), heads=(1, 2)), SIGNAL),
]


def drawn(space, interface, seed):
    """Returns `HyperParameters` with random values."""
    hp = keras_tuner.HyperParameters()
    space.build(hp, interface)
    values = {each.name: each.random_sample(100 * seed + i) for i, each in enumerate(hp.space)}
    return with_values(hp, values)


@pytest.mark.parametrize(("space", "interface"), CASES, ids=lambda each: getattr(each, "name", ""))
def test_points_are_models_of_the_interface(space, interface):
    models = [space.build(drawn(space, interface, seed), interface) for seed in range(2)]
    for model in models:
        assert model.output_shape == (None, interface.units)
    outputs = np.asarray(models[0](np.ones((2, *interface.shape), interface.dtype)))
    assert np.all(np.isfinite(outputs))
    again = space.build(drawn(space, interface, 0), interface)
    assert [w.shape for w in again.weights] == [w.shape for w in models[0].weights]


def test_a_plain_cnn_has_the_layers_that_its_values_say():
    space = tfpeft.SmallCNN(
        stages=(2,),
        depth=(2,),
        width=(8,),
        growth=(1.5,),
        kernel=(3,),
        block=("plain",),
        first_stride=(1,),
    )
    model = space.build(keras_tuner.HyperParameters(), IMAGE)
    kernels = [layer.kernel.shape for layer in model.layers if hasattr(layer, "kernel")]
    # The first convolution and a block of 8, two blocks of 12, the head.
    assert kernels == [(3, 3, 1, 8), (3, 3, 8, 8), (3, 3, 8, 12), (3, 3, 12, 12), (12, 3)]
    assert model.layers[-2].name.startswith("global_average")
    shapes = [layer.output.shape[1] for layer in model.layers if hasattr(layer, "kernel")]
    assert shapes[:4] == [8, 8, 4, 4]


def test_inputs_are_normalised_and_numbers_come_in_their_unit():
    x, y = np.random.default_rng(0).normal(5.0, 3.0, (200, 5)), np.linspace(90, 110, 200)
    task, outputs = objective_of(None, x, y)
    assert (task.name, outputs.kind) == ("regression", "values")
    interface = interface_of(x, y, task.name, outputs)
    np.testing.assert_allclose(interface.mean, x.mean(axis=0))
    model = tfpeft.Small1D(width=(4,)).build(keras_tuner.HyperParameters(), interface)
    model.get_layer("head").kernel.assign(np.zeros((4, 1)))
    np.testing.assert_allclose(model(x[:2]), [[100.0]] * 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("y", "task", "units"),
    [
        (np.array([0, 2, 1, 3]), "classification", 4),
        (np.eye(3)[[0, 1, 2, 0]], "classification", 3),
        (np.array([[1, 1], [0, 1], [0, 0], [1, 0]]), "multi_label", 2),
        (np.array([0.5, 1.5, 2.0, 1.0]), "regression", 1),
    ],
)
def test_labels_show_the_task(y, task, units):
    found, outputs = objective_of(None, np.ones((4, 3)), y)
    assert (found.name, outputs.units) == (task, units)


def test_several_spaces_have_their_choices_by_name():
    spaces = Spaces([tfpeft.SmallCNN(width=(4, 8)), tfpeft.MobileBlocks(width=(4, 8))])

    class Declared:
        @staticmethod
        def declare(hp):
            spaces.build(hp, IMAGE)

    space = whole_space(Declared)
    names = {each.name for each in space.space}
    assert {"space", "small_cnn/width", "mobile_blocks/width", "mobile_blocks/expansion"} <= names
    hp = with_values(space, {"space": "mobile_blocks", "mobile_blocks/width": 4})
    assert spaces.build(hp, IMAGE).name == "mobile_blocks"


def test_a_student_is_exported(tmp_path):
    x = np.random.default_rng(0).random((64, 8, 8, 1)).astype("float32")
    space = tfpeft.MobileBlocks(width=(8,), stages=(2,), depth=(1,))
    model = space.build(keras_tuner.HyperParameters(), IMAGE)
    report = tfpeft.export_tflite(
        model,
        tmp_path / "student.tflite",
        quantization="int8",
        representative_data=x,
        allow_deviation=1e6,
    )
    assert report.int8_share == 1.0


def test_ranges_are_checked():
    with pytest.raises(tfpeft.InputError, match="width"):
        tfpeft.SmallCNN(width=(0, 8))
    with pytest.raises(tfpeft.InputError, match="block"):
        tfpeft.MobileBlocks(block=("dense",))
    with pytest.raises(tfpeft.InputError, match="images"):
        tfpeft.SmallCNN().build(keras_tuner.HyperParameters(), TABLE)
    with pytest.raises(tfpeft.InputError, match="quantization"):
        tfpeft.Techniques(quantization=("int4",))


def test_rare_tokens_are_in_the_vocabulary():
    x = np.zeros((20_001, 2), "int64")
    x[1, 1] = 40
    y = np.arange(len(x)) % 2
    task, outputs = objective_of(None, x, y)
    assert interface_of(x, y, task.name, outputs).vocabulary_size == 41
    of_validation = np.full((1, 2), 60)
    found = interface_of(x, y, task.name, outputs, others=[of_validation])
    assert found.vocabulary_size == 61


def test_a_class_of_validation_samples_alone_is_a_class():
    x, y = np.zeros((10, 4)), np.zeros(10, "int64")
    for rare in range(10):
        labels = y.copy()
        labels[rare] = 2
        options = {"teacher": None, "task": "classification", "loss": None, "seed": 0}
        assert inputs_of(None, (x, labels), None, **options).outputs.units == 3
