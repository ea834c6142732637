"""Pages in a headless Chromium: what its console says, and how wide they are."""

import functools
import json
import os
import re
import shutil
import subprocess
import tempfile

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--enable-logging=stderr", "--v=0", "--dump-dom"),
    "--host-resolver-rules=MAP * ~NOTFOUND",  # no page reaches a network
)
_MEASURE = """<script>
window.addEventListener("load", () => {
  const frames = [...document.querySelectorAll("iframe")];
  const measured = frames.map((frame) => {
    const page = frame.contentDocument, root = page.documentElement, width = frame.clientWidth;
    const outside = [...page.body.querySelectorAll("*")].filter((each) => {
      const box = each.getBoundingClientRect();
      return box.right > width + 1 && !each.closest(".scroll");
    });
    return {
      width, content: root.scrollWidth, height: root.scrollHeight,
      outside: outside.slice(0, 5).map((each) => each.outerHTML.slice(0, 80)),
      shown: [...page.querySelectorAll("svg.wide, svg.narrow")]
        .filter((each) => each.getBoundingClientRect().width > 0)
        .map((each) => each.getAttribute("class")),
      paper: frame.contentWindow.getComputedStyle(page.body).backgroundColor,
    };
  });
  document.title = JSON.stringify(measured);
});
</script>"""


@functools.cache
def executable():
    """Returns the path of Chromium; None where it is not installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def measure(folder, page, widths, *options):
    """Opens a page in frames of some widths; returns their measures, and lines of the console.

    Args:
        folder: A folder for files of the test.
        page: The HTML, which is opened as it is.
        widths: Widths of the frames, in pixels.
        *options: Further options of Chromium.
    """
    (folder / "page.html").write_text(page, encoding="utf-8")
    frames = "".join(
        f'<iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe>'
        for width in widths
    )
    outer = folder / "frames.html"
    outer.write_text(f"<!doctype html><title></title>{_MEASURE}{frames}", encoding="utf-8")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run(
            [
                executable(),
                *_OPTIONS,
                "--allow-file-access-from-files",
                f"--user-data-dir={profile}",
                *options,
                f"file://{outer}",
            ],
            capture_output=True,
            text=True,
            timeout=120,
            env={**os.environ, "HOME": profile},
        )
    title = re.search("<title>(.*?)</title>", done.stdout, re.S)
    assert title is not None, done.stderr[-2000:]
    return json.loads(title[1].replace("&quot;", '"')), [
        line for line in done.stderr.splitlines() if "CONSOLE" in line
    ]
