"""Pages as people see them: on a phone and on a desktop, without errors and sideways scrolling."""

import numpy as np
import pytest

from tests.reports import chromium
from tests.reports.runs import compress_run, recommend_run, search_run
from tfpeft.reports.html import report_html

pytestmark = pytest.mark.skipif(
    chromium.executable() is None, reason=f"none of {', '.join(chromium.NAMES)} is installed"
)
PHONE, DESKTOP = 360, 1200


@pytest.mark.parametrize("job", ["compress", "search", "recommend"])
def test_a_page_fits_a_phone_and_a_desktop(job, tmp_path):
    runs = {"compress": compress_run, "search": lambda: (search_run(),)}
    run = runs.get(job, lambda: (recommend_run(),))()
    found, console = chromium.measure(tmp_path, report_html(*run), [PHONE, DESKTOP])
    assert console == []
    for each, width in zip(found, (PHONE, DESKTOP), strict=True):
        assert each["width"] == width
        assert each["content"] <= width, each["outside"]
        assert each["outside"] == []
        assert each["height"] > 500
        assert set(each["shown"]) <= {"narrow" if width == PHONE else "wide"}
    assert job == "recommend" or found[0]["shown"]


def test_long_names_do_not_widen_a_page(tmp_path):
    run, samples = compress_run()
    long = "a_long_name_without_a_space" * 6
    run |= {"name": long, "headline": long, "data": long, "classes": [long, "b", long]}
    run["made"]["commands"] = [f"python --dataset=/{long}"]
    run["stages"][0]["settings"] = {long: long}
    run["differences"] = [long]
    run["layers"][0]["layer"] = long
    run["rows"]["prune"]["notes"] = [long]
    (group,) = run["disagreements"]
    group |= {"output": long, "summary": long}
    group["shown"][0]["facts"] = [[long, long]]
    samples["output.0.1"] = np.array(long)
    page = report_html(run, samples)
    (found,), _ = chromium.measure(tmp_path, page, [PHONE])
    assert found["content"] <= PHONE, found["outside"]
    assert found["outside"] == []


def test_errors_and_overflow_are_seen(tmp_path):
    """The test of the tests: a page that has both."""
    wide = "<!doctype html><body><div style='width: 500px'>a</div><script>no()</script>"
    (found,), console = chromium.measure(tmp_path, wide, [PHONE])
    assert found["content"] > PHONE
    assert len(found["outside"]) == 1
    assert "no is not defined" in console[0]


def test_a_page_is_dark_where_the_system_is(tmp_path):
    dark = "--blink-settings=preferredColorScheme=0"
    page = report_html(recommend_run())
    (found,), _ = chromium.measure(tmp_path, page, [PHONE], dark)
    assert found["paper"] == "rgb(20, 24, 29)"
