"""The page as a browser lays it out; needs Chromium, and is left out where there is none."""

import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from edgevtc.view import Panel, Scene
from edgevtc.view.html import render_html

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

FRAMES, TOKENS = 16, 36

#: What a script inside the page finds. Of every frame whose lowest token was tapped: by how much the bar at the bottom
#: then covers it. At several widths: frames a row, and how far the tapes go beyond a row.
PROBE = """<script>{
const element = document.querySelector(".frames"), bar = () => readout.getBoundingClientRect().top;
const covered = [...element.querySelectorAll(".picture")].map(picture => {
  scrollBy(0, picture.getBoundingClientRect().bottom - bar());
  const {left, bottom} = picture.getBoundingClientRect();
  picture.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: left + 3, clientY: bottom - 3}));
  return picture.getBoundingClientRect().bottom - bar();
});
const rows = [164, 352, 470, 627, 1308, 1500].map(width => {
  element.parentElement.style.width = `${width}px`;
  const end = element.getBoundingClientRect().right;
  const over = [...element.querySelectorAll(".piece")].map(piece => piece.getBoundingClientRect().right - end);
  return [width, getComputedStyle(element).gridTemplateColumns.split(" ").length, Math.max(...over)];
});
document.title = JSON.stringify({covered, rows});
}</script>"""


def found_in(tmp_path):
    """What the probe finds on a page of one method, whose tokens are folded by pairs of frames in segments of five."""
    assignment = np.arange(FRAMES * TOKENS, dtype=np.int32).reshape(FRAMES // 2, 2, TOKENS)
    assignment[:, 1] = assignment[:, 0]
    slots, index, counts = np.unique(assignment, return_index=True, return_counts=True)
    assignment = np.searchsorted(slots, assignment).astype(np.int32).reshape(FRAMES, TOKENS)
    segment_of = np.arange(FRAMES, dtype=np.int32) // 5
    panel = Panel("folding", "original", index.astype(np.int32), counts, assignment, segment_of=segment_of)
    frames = [np.full((64, 64, 3), 128, np.uint8)] * FRAMES
    scene = Scene("clip.mp4", "a model", "ab" * 32, (6, 6), frames, [float(i) for i in range(FRAMES)], [panel])
    page = tmp_path / "page.html"
    page.write_bytes(render_html(scene).replace(b"</body>", PROBE.encode() + b"</body>"))
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    command += ["--window-size=500,844", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))


def test_rows_are_full_tapes_end_with_them_and_a_tapped_token_is_seen(tmp_path):
    found = found_in(tmp_path)
    assert len(found["covered"]) == FRAMES and max(found["covered"]) <= 0
    assert [row[:2] for row in found["rows"]] == [[164, 1], [352, 2], [470, 3], [627, 4], [1308, 8], [1500, 8]]
    assert max(over for *_, over in found["rows"]) <= 0.5
