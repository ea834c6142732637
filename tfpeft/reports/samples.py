"""Samples in a page: images, masks, series, numbers and texts, as small as a page needs them."""

import base64
import io
import math

import numpy as np
from markupsafe import Markup

from tfpeft.reports.charts import series

_SIDE = 96  # pixels of an image that is kept
_STEPS = 256  # of a series
_NUMBERS = 32  # of a row of numbers
_LETTERS = 600
_PALETTE = np.array(  # of masks: Okabe and Ito's, which the colour-blind can distinguish
    [
        *((0, 0, 0), (230, 159, 0), (86, 180, 233), (0, 158, 115)),
        *((240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167)),
    ],
    "uint8",
)


def small_sample(array):
    """Returns (kind, array) of an input or output of one sample, as small as it is shown.

    Images become uint8 of up to 96 pixels a side; series have up to 256 steps, other numbers up to
    32 values, texts up to 600 letters.

    Args:
        array: An array without the axis of samples; of a text, one value.

    Returns:
        "image" with (height, width) or (height, width, 3), "series" with (steps, columns),
        "numbers" with (values,), or "text" with one text.
    """
    array = np.asarray(array)
    if array.dtype.kind in "OSU":
        texts = [_decoded(each) for each in array.reshape(-1)[:_NUMBERS]]
        return "text", np.array(" · ".join(texts)[:_LETTERS])
    array = np.squeeze(array, axis=tuple(i for i, n in enumerate(array.shape[:-1]) if n == 1))
    if array.ndim == 3 and array.shape[0] in (1, 3) and array.shape[-1] not in (1, 3, 4):
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        return "image", _small_image(array[..., :3].squeeze(axis=2 if array.shape[-1] == 1 else ()))
    if array.ndim == 2 and min(array.shape) >= 8:
        return "image", _small_image(array)
    if array.ndim == 2:
        return "series", _finite(array[:: math.ceil(len(array) / _STEPS)])
    if array.ndim == 1 and len(array) > 4 * _NUMBERS and array.dtype.kind == "f":
        return "series", _finite(array[:: math.ceil(len(array) / _STEPS), None])
    return "numbers", array.reshape(-1)[:_NUMBERS]


def small_mask(array):
    """Returns classes of positions (height, width) as uint8, of up to 96 positions a side."""
    return _strided(np.asarray(array)).astype("uint8")


def _small_image(array):
    """Returns an image from black, its least value, to white, its largest one."""
    array = _strided(_finite(array))
    low, high = np.min(array), np.max(array)
    scaled = (array - low) / ((high - low) or 1)
    return np.round(255 * np.clip(scaled, 0, 1)).astype("uint8")


def _strided(array):
    step = max(1, math.ceil(max(array.shape[:2]) / _SIDE))
    return array[::step, ::step]


def _finite(array):
    return np.nan_to_num(np.asarray(array, "float32"), nan=0.0, posinf=0.0, neginf=0.0)


def sample_html(kind, array, description):
    """Returns what `small_sample` or `small_mask` made as HTML.

    Args:
        kind: "image", "mask", "series", "numbers" or "text".
        array: The array.
        description: The alternative text of a picture.
    """
    if kind in ("image", "mask"):
        if kind == "mask":
            array = _PALETTE[array % len(_PALETTE)]
        tag = '<img class="sample" src="data:image/png;base64,{}" width="{}" height="{}" alt="{}">'
        scale = max(1, round(_SIDE / max(array.shape[:2])))
        height, width = (scale * side for side in array.shape[:2])
        return Markup(tag).format(_png(array), width, height, description)
    if kind == "series":
        return series(array, description)
    if kind == "text":
        return Markup('<p class="text">{}</p>').format(str(array))
    numbers = ", ".join(f"{value:.4g}" for value in np.asarray(array, "float64"))
    return Markup('<p class="numbers">{}</p>').format(numbers)


def _png(array):
    from matplotlib.image import imsave  # late: it is slow to import

    file = io.BytesIO()
    options = {"cmap": "gray", "vmin": 0, "vmax": 255} if array.ndim == 2 else {}
    imsave(file, array, format="png", metadata={"Software": None}, **options)
    return base64.b64encode(file.getvalue()).decode()


def _decoded(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
