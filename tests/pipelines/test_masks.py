"""`--dataset` that names images with masks, and folders of images that are streamed."""

import types

import keras
import numpy as np
import PIL.Image
import pytest

from pipelines.common import (
    arrays,
    datasets,
    image_folders,
    images,
    samples,
    splits,
    training,
)
from pipelines.common.request import Request
from pipelines.common.samples import Stream
from tests.pipelines.test_image_folders import save_photos
from tfpeft.core.arguments import InputError
from tfpeft.core.data import read

SPLITS = ("train", "validation", "test")


def save_masks(folder, largest=2, mode="L", count=10):
    """Writes images of 8 x 8 pixels whose left half is bright, of class `largest` in the mask."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for i in range(count):
        pixels = np.zeros((8, 8, 3), "uint8")
        pixels[:, :4] = 200 + i
        keras.utils.save_img(folder / "images" / f"{i}.jpg", pixels, scale=False, quality=100)
        mask = np.zeros((8, 8), "uint8")
        mask[:, :4] = largest
        image = PIL.Image.fromarray(mask)
        if mode == "P":
            image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0])
        image.save(folder / "masks" / f"{i}.png")
    return str(folder)


@pytest.mark.parametrize(
    ("largest", "mode", "classes"), [(2, "L", 3), (2, "P", 3), (255, "L", 2), (1, "L", 2)]
)
def test_masks_are_class_numbers(tmp_path, largest, mode, classes):
    data = datasets.load(save_masks(tmp_path, largest, mode), image_size=16)
    assert (data.task, data.classes) == ("segmentation", classes)
    assert [samples.count(getattr(data, split)) for split in SPLITS] == [7, 1, 2]
    x, y = data.train
    assert (x.shape, y.shape, y.max()) == ((7, 16, 16, 3), (7, 16, 16), classes - 1)
    np.testing.assert_array_equal(y > 0, x.mean(axis=-1) > 100)


def test_pixels_of_no_class_weigh_nothing(tmp_path):
    folder = save_masks(tmp_path)
    for i in range(10):
        path = tmp_path / "masks" / f"{i}.png"
        mask = np.array(PIL.Image.open(path))
        mask[0] = 255
        PIL.Image.fromarray(mask).save(path)
    x, y, weight = datasets.load(folder, image_size=8, classes=["sky", "sea", "land"]).train
    assert y.max() == 2
    np.testing.assert_array_equal(weight[:, 0], 0)
    np.testing.assert_array_equal(weight[:, 1:], 1)


def mean_iou(y, outputs, weight, classes=3):
    """The mean over classes of the weights of intersection and union."""
    predictions, ious = outputs.argmax(-1), []
    for number in range(classes):
        is_label, is_predicted = y == number, predictions == number
        union = weight[is_label | is_predicted].sum()
        if union:
            ious.append(weight[is_label & is_predicted].sum() / union)
    return np.mean(ious)


def fitted(data):
    """Returns a model after an epoch on segmentation data, and the history of the epoch."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Dense(3)])
    data, objective = data.for_model(model)
    settings = types.SimpleNamespace(epochs=1, batch_size=8, learning_rate=0.01, seed=0)
    training.fit(settings, model, data, objective)
    assert objective.monitor == "val_mean_iou"
    return model, model.history.history


def segmented(weight):
    """Samples whose classes are those of the largest input, and weights of them or their pixels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4, 4, 2)).astype("float32")
    return x, np.where(x.max(-1) > 0.5, x.argmax(-1), 2), weight(x, rng)


@pytest.mark.parametrize("kind", ["void pixels", "one per sample", "one per sample, streamed"])
def test_the_metric_of_training_counts_weights(kind):
    if kind == "void pixels":
        x, y, weight = segmented(lambda x, rng: (x[..., 0] > 0).astype("float32"))
        by_position = weight
    else:
        x, y, weight = segmented(lambda x, rng: rng.random(len(x)).astype("float32"))
        by_position = np.broadcast_to(weight[:, None, None], y.shape)
    parts = {"train": (x, y, weight), "validation": (x, y, weight), "test": (x, y, weight)}
    if "streamed" in kind:
        parts = {split: samples.stream_of(part) for split, part in parts.items()}
    data = splits.checked(parts, "mine", request=Request(task="segmentation"))
    assert (data.task, data.classes) == ("segmentation", 3)
    model, history = fitted(data)
    outputs = model.predict(x, verbose=0)
    weighted = mean_iou(y, outputs, by_position)
    assert history["val_mean_iou"] == [pytest.approx(weighted, rel=1e-5)]
    assert mean_iou(y, outputs, np.ones(y.shape)) != pytest.approx(weighted, rel=1e-2)


def test_weights_of_several_outputs_are_those_of_each():
    y = {"mask": np.zeros((5, 2, 3), int), "size": np.zeros(5)}
    task = {"mask": "segmentation", "size": "regression"}
    found = arrays.weights_by_position(y, np.arange(5.0), task, arrays.one_hot_of(y))
    assert found["mask"].shape == (5, 2, 3)
    np.testing.assert_array_equal(found["mask"][:, 1, 2], np.arange(5))
    np.testing.assert_array_equal(found["size"], np.arange(5))


def test_one_hot_masks_of_a_stream_say_how_many_classes_there_are():
    x, y, _ = segmented(lambda x, rng: None)
    stream = samples.stream_of((x, np.eye(4, dtype="float32")[y]))
    data = splits.checked({"train": stream}, "mine")
    assert (data.task, data.classes) == ("segmentation", 4)


def test_weights_of_samples_without_labels_stay_weights():
    x, _, weight = segmented(lambda x, rng: rng.random(len(x)))
    stream = samples.stream_of((x, None, weight))
    assert not stream.has_labels
    data = splits.checked({"train": stream}, "mine")
    assert data.task == "reconstruction"
    batch = read(data.test.batches()).arrays()
    np.testing.assert_array_equal(batch.y, batch.x)
    np.testing.assert_allclose(batch.sample_weight, weight[::5])


def test_masks_have_the_size_of_the_outputs(tmp_path):
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3, 2, padding="same")])
    data = datasets.load(save_masks(tmp_path, 1), model=model, cache="none")
    batch = read(data.test.batches()).arrays()
    assert (batch.x.shape, batch.y.shape) == ((2, 8, 8, 1), (2, 4, 4))
    with pytest.raises(InputError, match="labels of the height and width of images.*flip"):
        datasets.load(str(tmp_path), model=model, augment=["flip"])


def test_masks_are_moved_with_their_images(tmp_path):
    folder = save_masks(tmp_path, 2)
    data = datasets.load(folder, image_size=8, augment=["flip", "crop", "color"], cache="none")
    (x, y), (again, _) = (
        next(iter(samples.fit_arguments(data.train, 7, seed=0)["x"])) for _ in range(2)
    )
    np.testing.assert_array_equal(x, again)
    np.testing.assert_array_equal(np.unique(y), [0, 2])
    columns = np.asarray(y)[:, 4]
    assert len(np.unique(columns, axis=0)) > 1  # some are flipped, some are not
    is_bright = np.asarray(x).mean(axis=-1) > 100
    assert np.mean(is_bright == (np.asarray(y) > 0)) > 0.9


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "masks" / "3.png").unlink(), "images/3.jpg without the other"),
        (lambda f: (f / "images" / "3.jpg").unlink(), "masks/3.png without the other"),
        (lambda f: (f / "masks" / "3.png").write_bytes(b"no"), "images/3.jpg with .*masks/3.png: "),
        (lambda f: (f / "more").mkdir(), "folders images and masks.*with images, masks, more"),
        (
            lambda f: PIL.Image.new("RGB", (8, 8)).save(f / "masks" / "3.png"),
            "masks of one number per pixel.*masks/3.png of the mode RGB",
        ),
        (
            lambda f: PIL.Image.new("L", (8, 8), 3).save(f / "masks" / "3.png"),
            "class numbers of a, b, c, 0 to 2.*masks/3.png with the value 3",
        ),
    ],
)
def test_masks_that_do_not_fit(tmp_path, change, message):
    save_masks(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=message) as raised:
        datasets.load(str(tmp_path), image_size=8, classes=["a", "b", "c"])
    assert "\n" not in str(raised.value)


def test_masks_of_another_task(tmp_path):
    request = Request(task="classification")
    with pytest.raises(InputError, match="--task, expected segmentation of images with masks"):
        datasets.load(save_masks(tmp_path), request=request)


def test_a_folder_that_is_streamed_has_the_images_of_one_that_is_held(tmp_path):
    save_photos(tmp_path)
    held, streamed = (
        datasets.load(str(tmp_path), image_size=8, classes=["light", "dark"], cache=cache)
        for cache in ("auto", "none")
    )
    assert (streamed.names, streamed.classes, streamed.kind) == (("light", "dark"), 2, "names")
    for split in SPLITS:
        x, y = getattr(held, split)
        stream = getattr(streamed, split)
        assert isinstance(stream, Stream)
        batch = read(stream.batches()).arrays()
        assert sorted(batch.y) == sorted(y)
        by_sum = [pixels[np.argsort(pixels.sum(axis=(1, 2, 3)))] for pixels in (batch.x, x)]
        np.testing.assert_array_equal(*by_sum)
        np.testing.assert_array_equal(batch.x.mean(axis=(1, 2, 3)) < 128, batch.y == 1)
    order = read(streamed.train.batches()).arrays().y
    assert 0 < order[:8].mean() < 1


def test_images_of_more_bytes_than_the_limit_are_streamed(tmp_path, monkeypatch):
    save_photos(tmp_path, 8)
    size = 16 * 4 * 8 * 8 * 3
    monkeypatch.setattr(image_folders, "HELD_BYTES", size)
    assert isinstance(datasets.load(str(tmp_path), image_size=8).train, tuple)
    monkeypatch.setattr(image_folders, "HELD_BYTES", size - 1)
    assert isinstance(datasets.load(str(tmp_path), image_size=8).train, Stream)
    assert isinstance(datasets.load(str(tmp_path), image_size=8, cache="memory").train, tuple)


@pytest.mark.parametrize("cache", ["memory", "none"])
def test_broken_images_are_left_out_on_request(tmp_path, capsys, cache):
    save_photos(tmp_path / "a", 10)
    arguments = {"image_size": 8, "cache": cache}
    for name in ("3", "7"):
        path = tmp_path / "a" / "light" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        InputError, match="light/3.png: .*; 2 are broken, and --skip_broken_images leaves them out"
    ):
        datasets.load(str(tmp_path / "a"), **arguments)
    data = datasets.load(str(tmp_path / "a"), skip_broken_images=True, **arguments)
    assert sum(samples.count(getattr(data, split)) for split in SPLITS) == 18
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert line.startswith("Left out 2 images that are broken: ")
    assert line.endswith("light/7.png")
    for path in images.images_below(tmp_path):
        with open(path, "wb"):
            pass
    with pytest.raises(InputError, match="images that can be read.*and others, all broken"):
        datasets.load(str(tmp_path / "a"), skip_broken_images=True, **arguments)
    with pytest.raises(InputError, match="--skip_broken_images, which --dataset=digits does not"):
        datasets.load("digits", skip_broken_images=True)
