"""The page of a run: what it holds, that it is well-formed, and the model card beside it."""

import base64
import html.parser
import io
import re

import numpy as np
import pytest

from tests.reports.runs import compress_run, recommend_run, row, search_run
from tfpeft.reports.charts import Point, heat, scatter
from tfpeft.reports.html import report_html
from tfpeft.reports.model_card import model_card
from tfpeft.reports.samples import sample_html, small_mask, small_sample
from tfpeft.reports.scales import linear_ticks, log_ticks, place_labels, scale_of

_VOID = {"meta", "link", "br", "img", "circle", "line", "rect", "polyline"}


class Checker(html.parser.HTMLParser):
    """Raises for tags that are not closed in their order, and gathers what pages must have."""

    def __init__(self):
        super().__init__()
        self.open, self.ids, self.targets, self.headings, self.texts = [], [], [], [], []
        self.addresses, self.without_text = [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        found = [attributes[name] for name in ("href", "src") if name in attributes]
        self.addresses += [each for each in found if not each.startswith(("#", "data:"))]
        self.targets += [each[1:] for each in found if each.startswith("#")]
        if tag == "img" and not attributes.get("alt"):
            self.without_text.append(tag)
        if tag == "svg" and not attributes.get("aria-label"):
            self.without_text.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)


def checked(page):
    """Returns the `Checker` of a page, whose structure is right and which loads nothing."""
    checker = Checker()
    checker.feed(page)
    assert checker.open == []
    assert len(set(checker.ids)) == len(checker.ids)
    assert set(checker.targets) <= set(checker.ids)
    assert checker.addresses == []
    assert checker.without_text == []
    assert checker.headings[0] == 1
    assert checker.headings.count(1) == 1
    # No level is left out on the way down.
    assert all(b - a <= 1 for a, b in zip(checker.headings, checker.headings[1:], strict=False))
    assert "http" not in page
    assert "<script" not in page
    return checker


@pytest.fixture(scope="module")
def page():
    return report_html(*compress_run())


def test_a_page_shows_all_that_a_run_keeps(page):
    text = " ".join(" ".join(checked(page).texts).split())
    for words in (
        "photos-compress",
        "100.0 kB",  # the tile of the size, and what it was
        "4.0 times smaller: 400.0 kB before",
        "50 µs",
        "5.0 times faster: 0.25 ms before",
        "-2.00 points against the teacher's 90.00 %",
        "86.0 to 89.0",  # the interval of the file
        "a note of <the> file",
        "teacher 3 min 20 s epochs = 3",
        "32 → 16 50.0 % 144 288 before Conv2D 3 x 3 x 1 x 16",
        "32 before, removed",
        "predict different classes for 1 of 30",
        "a <b>text</b>",
        "0.5, 2",
        "18.5 dB",
        "of a device",
        "python -m pipelines.compress --epochs=3",
        "a machine, 2 cores",
        "3.15.1",
    ):
        assert words in text, words
    assert "Infinity" not in text
    assert "inf dB" not in text


def test_what_users_named_is_text(page):
    assert "&lt;dog&gt;" in page
    assert "<dog>" not in page
    assert "<b>" not in page


def test_the_confusion_matrix_has_labels_in_rows(page):
    second = page[page.index('title="&lt;dog&gt;">&lt;dog&gt;</th><td') :]
    cells = re.findall(r'<td class="(\w+)" style="--part: (\d+)%">(\d+)</td>', second)[:3]
    # Of 10 samples: 12 + 58 * share per cent of the colour.
    assert cells == [("none", "0", "0"), ("right", "58", "8"), ("wrong", "24", "2")]


def test_a_report_of_rows_alone_is_a_page():
    old = {name: value for name, value in row(0.9, 400_000, 0.2).items() if name != "metrics"}
    for name in ("intervals", "per_class", "confusion_matrix", "columns", "task"):
        old.pop(name)
    page = report_html({"name": "old", "job": "prune", "rows": {"teacher": old, "file": old}})
    assert checked(page).headings.count(2) == 1
    assert "svg" in page


def test_one_and_zero_are_numbers_among_settings():
    run, _ = compress_run()
    run["stages"][0]["settings"] = {"epochs": 1, "alpha": 0.0, "augment": False, "loss": {"a": 1}}
    run["flags"] = {"seed": 0, "batch_size": 1, "cache": True, "name": None}
    text = " ".join(" ".join(checked(report_html(run)).texts).split())
    for words in ("epochs = 1", "alpha = 0.0", "augment = no", "loss = {'a': 1}", "seed 0"):
        assert words in text, words
    assert "batch_size 1 cache yes name by default seed 0" in text


@pytest.mark.parametrize("end", [float("inf"), float("nan")])
def test_an_interval_that_is_not_finite_is_not_drawn(end):
    rows = {
        "teacher": row(0.9, 400, 0.2, intervals={"accuracy": [0.8, end]}),
        "file": row(0.8, 100, 0.1),
    }
    page = report_html({"name": "a", "job": "prune", "rows": rows})
    checked(page)
    assert page.count("<circle ") == 8  # 2 points, 2 charts, twice


def test_a_row_without_bytes_has_no_point():
    rows = {"teacher": row(0.9, None, None, gzip_bytes=None), "file": row(0.8, 100, 0.1)}
    page = report_html({"name": "a", "job": "prune", "rows": rows})
    checked(page)
    assert "<svg" not in page


def test_a_search_has_its_fronts_and_its_trials():
    run = search_run()
    checker = checked(report_html(run))
    text = " ".join(" ".join(checker.texts).split())
    for words in (
        *("Pareto fronts", "over the budget", "failed: no layer left", "30.0 kB allowed"),
        *("Accuracy 87.00 %", "on validation data, higher is better"),
    ):
        assert words in text
    page = report_html(run)
    assert page.count('class="point best"') == 2 * 3  # wide and narrow, of three figures
    assert page.count('<line class="limit"') == 2  # of bytes alone
    assert page.count('class="point last"') == page.count('class="point first"') == 2 * 2
    run["trials"][0]["status"] = "stopped"  # which has no file, and so no place in a chart
    assert report_html(run).count('class="point') == page.count('class="point') - 2 * 3
    run["best"] = None
    assert "No trial is inside the budget" in report_html(run)


def test_an_error_has_an_upper_limit():
    run = search_run()
    assert "Accuracy of at least 80.00 %" in report_html(run)
    run |= {"metric": "rmse", "higher_is_better": False}
    assert "RMSE of at most 0.8" in report_html(run)


def test_recommendations_say_what_they_bring():
    run = recommend_run()
    text = " ".join(" ".join(checked(report_html(run)).texts).split()).replace("The", "the")
    for words in (
        "2.1 times less latency (95%: 1.8 to 2.4)",
        "-0.40 points (95%: -1.00 to +0.20)",
        "Limits: fewer bytes in a download than int8 <and> zeros",
        "more validation samples would make it clear",
        "4 times less size in gzip Gain: 4 times less size in gzip. From",
        "Not tried distill: the time was over",
        "the model overfits",
        "91.00 %",
        "dense 10 0.0 % 1.2 %",
        "pipelines.prune_channels --max_macs=0.5",
    ):
        assert words in text, words
    run |= {"nothing_to_gain": True, "recommendations": []}
    assert "Nothing to gain" in report_html(run)


def test_the_card_has_metadata_that_is_yaml():
    yaml = pytest.importorskip("yaml")  # of MkDocs
    run, samples = compress_run()
    _, front, body = model_card(run, samples).split("---\n", 2)
    found = yaml.safe_load(front)
    (result,) = found["model-index"][0]["results"]
    assert found["model-index"][0]["name"] == "photos-compress"
    assert result["dataset"] == {"name": "photos", "type": "photos", "split": "test"}
    assert result["metrics"] == [{"type": "accuracy", "name": "accuracy %", "value": 88.0}]
    assert found["pipeline_tag"] == "image-classification"
    assert "int8" in found["tags"]
    assert "- **size**: 100.0 kB" in body
    assert "python -m pipelines.compress --epochs=3" in body
    run["metrics"], run["rows"]["model.tflite"]["metrics"] = {"mse": {}}, {"mse": 1e-5}
    (small,) = yaml.safe_load(model_card(run).split("---\n")[1])["model-index"][0]["results"]
    assert small["metrics"] == [{"type": "mse", "name": "MSE", "value": 1e-5}]
    (searched,) = yaml.safe_load(model_card(search_run()).split("---\n")[1])["model-index"]
    # Of test data, and not the metric on validation data by which the trial was chosen.
    assert searched["results"][0]["metrics"][0]["value"] == 87.0
    yaml.safe_load(model_card(recommend_run()).split("---\n")[1])


@pytest.mark.parametrize(
    ("array", "kind", "shape"),
    [
        (np.zeros((8, 8, 1)), "image", (8, 8)),
        (np.zeros((300, 200, 3)), "image", (75, 50, 3)),  # every fourth pixel
        (np.zeros((3, 32, 32)), "image", (32, 32, 3)),
        (np.zeros((49, 10)), "image", (49, 10)),
        (np.zeros((100, 2)), "series", (100, 2)),
        (np.zeros(1000), "series", (250, 1)),
        (np.zeros(30), "numbers", (30,)),
        (np.arange(1000), "numbers", (32,)),  # tokens
        (np.float32(3.0), "numbers", (1,)),
        (np.array(b"caf\xc3\xa9"), "text", ()),
        (np.array(["a", "b"], object), "text", ()),
    ],
)
def test_samples_are_small(array, kind, shape):
    found, small = small_sample(array)
    assert (found, small.shape) == (kind, shape)
    assert sample_html(kind, small, "a sample")


def test_an_image_is_a_png_of_its_own_range():
    from PIL import Image

    _, small = small_sample(np.array([[0.0, 2.0], [4.0, 8.0]])[:, :, None])
    assert small.tolist() == [[0, 64], [128, 255]]
    text = sample_html("image", small, "an image")
    png = base64.b64decode(re.search('base64,([^"]+)', text)[1])
    assert np.asarray(Image.open(io.BytesIO(png)).convert("L")).tolist() == small.tolist()
    assert 'width="96"' in text
    assert 'alt="an image"' in text


def test_a_mask_has_a_colour_per_class():
    mask = small_mask(np.eye(200, dtype=int))
    assert mask.dtype == "uint8"
    assert max(mask.shape) <= 96


def test_ticks_are_round():
    assert linear_ticks(0.13, 0.97, 4) == pytest.approx([0.25, 0.5, 0.75])
    assert linear_ticks(97.1, 99.9, 3) == pytest.approx([98, 99])
    assert log_ticks(40, 3000, 8) == pytest.approx([50, 100, 200, 500, 1000, 2000])
    assert log_ticks(1, 1e6, 4) == pytest.approx([1, 1e2, 1e4, 1e6])


def test_a_scale_is_linear_or_logarithmic():
    linear = scale_of([20, 30], 100, 200, margin=0)
    assert [linear(v) for v in (20, 25, 30)] == pytest.approx([100, 150, 200])
    logarithmic = scale_of([10, 1000], 0, 300, is_log=True, margin=0)
    assert [logarithmic(v) for v in (10, 100, 1000)] == pytest.approx([0, 150, 300])
    constant = scale_of([5, 5], 0, 10)
    assert 0 < constant(5) < 10


def test_labels_do_not_cover_each_other():
    points = [(100, 100), (104, 101), (100, 96), (180, 40)]
    labels = [(x, y, 60, 12) for x, y in points]
    boxes = [(x - 5, y - 5, x + 5, y + 5) for x, y in points]
    places = place_labels(labels, boxes, (0, 0, 200, 200))
    for i, (x, y, anchor) in enumerate(places):
        left = x - {"start": 0, "middle": 30, "end": 60}[anchor]
        box = (left, y - 12, left + 60, y + 3)
        assert box[0] >= 0
        assert box[2] <= 200
        for other in boxes:
            assert min(box[2], other[2]) <= max(box[0], other[0]) or min(box[3], other[3]) <= max(
                box[1], other[1]
            ), i
        boxes.append(box)


def test_a_chart_of_equal_points_is_drawn():
    points = [Point("a", 1.0, 0.5), Point("b", 1.0, 0.5, (0.5, 0.5))]
    drawn = scatter(points, x_label="x", y_label="y", description="d")
    assert drawn.count("<circle") == 4
    assert "nan" not in drawn


def luminance(colour):
    """The relative luminance of WCAG 2.2, of "#rrggbb"."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


def test_texts_have_contrast_in_light_and_dark(page):
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", part)) for part in page.split("@media")[:2]]
    assert schemes[0] != schemes[1]
    for scheme in schemes:
        for ground in ("paper", "panel", "tint"):
            for text in ("ink", "muted", "accent"):
                light, dark = sorted((luminance(scheme[n]) for n in (ground, text)), reverse=True)
                assert (light + 0.05) / (dark + 0.05) >= 4.5, (ground, text, scheme)


def test_cells_of_the_same_share_are_one_path_of_a_heat_map():
    found = str(heat([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]], "three classes"))
    assert found.count("<path") == 3
    assert '<path class="right" d="M0 0h1v1h-1zM2 2h1v1h-1z" fill-opacity="1.00"/>' in found
    assert '<path class="wrong" d="M0 1h1v1h-1z" fill-opacity="0.57"/>' in found
