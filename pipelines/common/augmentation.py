"""Random changes of images that are trained on: the layers of Keras that --augment names."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from pipelines.common import recognition, samples
from pipelines.common.errors import invalid_flag
from pipelines.common.samples import Stream, stream_of
from tfpeft.core.arguments import unexpected

KINDS = ("flip", "crop", "color")
_MOVED = 0.1  # of height and width, at most
_FACTOR = 0.2  # of brightness and contrast


def augmented(data, kinds, value_range, received):
    """Returns `Data` whose training images change from epoch to epoch, and masks with them.

    Args:
        data: The `Data`; x are images (samples, height, width, 1, 3 or 4).
        kinds: Some of `KINDS`.
        value_range: (low, high) of pixels; None if it is not known.
        received: What an error names.
    """
    stream = data.train if isinstance(data.train, Stream) else stream_of(data.train)
    x, *others = stream.spec
    if not isinstance(x, tf.TensorSpec) or x.shape.rank != 3 or x.shape[-1] not in (1, 3, 4):
        found = x.shape if isinstance(x, tf.TensorSpec) else f"{len(x)} inputs"
        expected = f"images (height, width, 1, 3 or 4) for --augment={','.join(kinds)}"
        raise unexpected(expected, f"{received} of {found}")
    if "color" in kinds and value_range is None:
        raise invalid_flag(
            "augment",
            "flip or crop, as color is for pixels of a known range: images of files, or arrays of "
            "type uint8 or uint16",
            kinds,
        )
    has_masks = data.task in ("segmentation", "reconstruction")
    if has_masks and others[0].shape[:2] != x.shape[:2]:
        expected = f"labels of the height and width of images for --augment={','.join(kinds)}"
        raise unexpected(expected, f"{received} with {others[0].shape[:2]}")
    if data.task == "reconstruction":
        x, y, _ = samples.some(data.train, recognition.SAMPLES)
        if not np.array_equal(x, y):
            expected = f"labels that are the images for --augment={','.join(kinds)}"
            raise unexpected(expected, f"{received} with others")
    make = Augmentation(tuple(kinds), value_range, data.task if has_masks else None)
    return dataclasses.replace(data, train=dataclasses.replace(stream, augmentation=make))


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Makes a function that changes batches at random, another one in every epoch.

    Attributes:
        kinds: Some of `KINDS`.
        value_range: (low, high) of pixels, for "color".
        labels: "segmentation" for labels that are moved with their image, "reconstruction" for
            labels that are the image; None for others.
    """

    kinds: tuple
    value_range: tuple | None
    labels: str | None = None

    def __call__(self, seed):
        """Returns a function of a batch (x, y, ...)."""
        layers = self._layers(seed)

        def change(x, *others):
            x = tf.cast(x, tf.float32)
            if self.labels == "reconstruction":
                for layer in layers:
                    x = layer(x, training=True)
                return x, x, *others[1:]
            if self.labels is None:
                for layer in layers:
                    x = layer(x, training=True)
                return x, *others
            return _with_masks(layers, x, *others)

        return change

    def _layers(self, seed):
        layers = []
        if "flip" in self.kinds:
            layers.append(keras.layers.RandomFlip("horizontal", seed=seed))
        if "crop" in self.kinds:
            moved = keras.layers.RandomTranslation(
                _MOVED, _MOVED, fill_mode="reflect", seed=seed + 1
            )
            layers.append(moved)
        if "color" in self.kinds:
            arguments = {"value_range": self.value_range}
            layers += [
                keras.layers.RandomBrightness(_FACTOR, seed=seed + 2, **arguments),
                keras.layers.RandomContrast(_FACTOR, seed=seed + 3, **arguments),
            ]
        return layers


def _with_masks(layers, x, *others):
    """Returns a batch whose masks, and weights per pixel, are moved as its images are."""
    shape = x.shape[1:3]
    are_masks = [other.shape[1:3] == shape and other.shape.rank in (3, 4) for other in others]
    channels = [other[..., None] if other.shape.rank == 3 else other for other in others]
    moving = [mask for mask, is_mask in zip(channels, are_masks, strict=True) if is_mask]
    masks = tf.concat([tf.cast(mask, tf.float32) for mask in moving], axis=-1)
    for layer in layers:
        changed = layer({"images": x, "segmentation_masks": masks}, training=True)
        x, masks = changed["images"], changed["segmentation_masks"]
    parts = iter(tf.split(masks, [mask.shape[-1] for mask in moving], axis=-1))
    found = []
    for other, is_mask in zip(others, are_masks, strict=True):
        if not is_mask:
            found.append(other)
            continue
        part = next(parts)
        found.append(tf.cast(part[..., 0] if other.shape.rank == 3 else part, other.dtype))
    return x, *found
