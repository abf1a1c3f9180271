"""The page and the sheet say what the graph decided, and nothing that a file's name makes them say."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image, ImageColor

from edgevtc.errors import ConfigError
from edgevtc.view import Panel, Scene, write_view
from edgevtc.view.html import render_html, row_lengths
from edgevtc.view.png import SHEET_WIDTH, TAPE, draw_frame, font, render_png, wrapped
from edgevtc.view.scene import PALETTE, colour_groups

GRID = (2, 3)
HOSTILE = "<script>alert(1)</script>\"'&</title>.mp4"
VOID = {"meta"}


def decided(method="merging"):
    """Frame 0: slot 0 with two folded in, slot 1 alone, the rest dropped. Frame 1: slot 2, into which all is folded."""
    assignment = np.array([[0, 0, 1, -1, -1, -1], [2, 2, 2, 2, 2, 0]], np.int32)
    return Panel(method, "original", np.array([0, 2, 6], np.int32), np.array([3, 1, 5], np.int32), assignment)


def scene_of(*panels, video="clip.mp4", **fields):
    frames = [np.full((40, 60, 3), 200, np.uint8), np.full((40, 60, 3), 120, np.uint8)]
    return Scene(video, "a model", "ab" * 32, GRID, frames, [0.0, 1.5], list(panels) or [decided()], **fields)


class Page(HTMLParser):
    """Elements in order, text, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.texts, self.balanced = [], [], {}, True
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def classes(self, name):
        return [attributes for _, attributes in self.elements if name in attributes.get("class", "").split()]

    @property
    def data(self):
        return json.loads(next(text for text in self.texts["script"] if text.startswith("{")))


def page_of(scene):
    return Page(render_html(scene).decode())


def drawn(page, name):
    """Tokens under the marks of a class."""
    return sum(attributes.get("d", "").count("M") for attributes in page.classes(name))


def test_the_page_is_well_formed_and_needs_nothing_else():
    text = render_html(scene_of(decided("one"), decided("other"), question="what")).decode()
    page = Page(text)
    assert page.balanced and page.open == []
    assert "://" not in text and "@import" not in text
    assert all(not {"src", "href", "srcset"} & set(attributes) for _, attributes in page.elements)
    assert all(target.startswith("data:image/jpeg;base64,") for target in re.findall(r"url\(([^)]*)\)", text))
    assert text.count("url(") == 2


def test_the_pages_data_are_the_graphs_own():
    panel = decided()
    (found,) = page_of(scene_of(panel)).data["panels"]
    assert found["assignment"] == panel.assignment.tolist()
    assert (found["counts"], found["positions"]) == ([3, 1, 5], [0, 2, 6])


def test_every_token_is_drawn_once():
    page = page_of(scene_of())
    legend = {"dropped": 1, "folded": 1, "kept": 2}
    assert {name: drawn(page, name) - count for name, count in legend.items()} == {"dropped": 3, "folded": 6, "kept": 3}


def test_counts_stand_in_the_text():
    text = " ".join(page_of(scene_of()).texts["p"])
    assert "3 of 12 tokens (25.0\N{NO-BREAK SPACE}%), 2 of them merged; 3 dropped; positions original" in text


def test_frames_are_in_the_page_as_they_were_sampled():
    text = render_html(scene_of()).decode()
    pictures = [Image.open(io.BytesIO(base64.b64decode(part))) for part in re.findall(r"base64,([^)]*)\)", text)]
    assert [picture.size for picture in pictures] == [(60, 40)] * 2
    assert [round(np.asarray(picture).mean(), -1) for picture in pictures] == [200, 120]


def test_hostile_names_stay_text():
    panel = decided("</script><b>")
    scene = scene_of(panel, video=HOSTILE, question=HOSTILE, warnings=(HOSTILE,))
    page, plain = page_of(scene), page_of(scene_of(decided(), video="x", question="x", warnings=("x",)))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert "".join(page.texts["h1"]) == HOSTILE
    assert page.data["panels"][0]["method"] == "</script><b>"
    assert render_png(scene)


def test_segments_and_their_budgets_are_drawn():
    panel = replace(decided("cut"), segment_of=np.array([0, 1], np.int32))
    assert panel.segments == [(0, 0, 2), (1, 1, 1)]
    assert decided().segments == []
    scene = scene_of(panel, decided("whole"))
    page = page_of(scene)
    assert page.data["panels"][0]["segments"] == [[0, 0, 2], [1, 1, 1]] and page.data["panels"][1]["segments"] == []
    pieces = [attributes["class"] for attributes in page.classes("piece")]
    assert pieces == ["piece tone0", "piece tone1", "piece", "piece"]
    assert {"segment 1: 2 kept", "segment 2: 1 kept"} <= set(page.texts["div"])
    assert [text for text in page.texts["span"] if text in ("2", "1")] == ["2", "1"]
    assert not page_of(scene_of()).classes("piece")
    sheet = np.asarray(Image.open(io.BytesIO(render_png(scene))))
    plain = np.asarray(Image.open(io.BytesIO(render_png(scene_of(decided("cut"), decided("whole"))))))
    tapes = [np.array(ImageColor.getrgb(colour)) for colour in TAPE]
    assert all((sheet == colour).all(-1).sum() > 500 for colour in tapes)
    assert not any((plain == colour).all(-1).any() for colour in tapes)


def test_a_segment_of_several_frames_is_one_piece_of_tape():
    assignment = np.arange(24, dtype=np.int32).reshape(4, 6)
    panel = Panel("m", "original", np.arange(24, dtype=np.int32), np.ones(24, np.int32), assignment)
    panel = replace(panel, segment_of=np.array([0, 0, 0, 1], np.int32))
    frames = [np.full((40, 60, 3), 200, np.uint8)] * 4
    page = page_of(Scene("clip.mp4", "a model", "ab" * 32, GRID, frames, [0.0, 1.0, 2.0, 3.0], [panel]))
    assert [segment.kept for segment in panel.segments] == [18, 6]
    assert [a["class"] for a in page.classes("piece")] == ["piece tone0 runs-on"] * 2 + ["piece tone0", "piece tone1"]


@pytest.mark.parametrize("count", [1, 2])
def test_the_sheet_has_its_width(count):
    picture = Image.open(io.BytesIO(render_png(scene_of(*[decided()] * count))))
    assert picture.format == "PNG" and picture.width == SHEET_WIDTH and picture.height > 200


def sheet_of(scene):
    return np.asarray(Image.open(io.BytesIO(render_png(scene)))).astype(int)


def test_the_sheet_says_why_the_model_was_not_asked():
    asked = replace(decided(), answer="cannot tell")
    plain = sheet_of(scene_of(asked, question="what"))
    one, two = (sheet_of(scene_of(asked, question="what", warnings=("unlike all",) * count)) for count in (1, 2))
    line = one.shape[0] - plain.shape[0]
    assert 15 <= line == two.shape[0] - one.shape[0]
    new = one[24 + 58 : 24 + 58 + line]  # below the question
    assert (new.min(-1) < 100).sum() > 50 and (new[:, SHEET_WIDTH // 2 :] == 255).all()
    assert (one[24 + 58 + line :] == plain[24 + 58 :]).all()


def test_a_long_warning_is_never_cut():
    words = [f"word{number}" for number in range(60)]
    lines = wrapped(" ".join(words), 15, 400)
    assert " ".join(lines).split() == words and len(lines) > 5
    assert max(font(15).getlength(line) for line in lines) <= 400
    longer = sheet_of(scene_of(warnings=(" ".join(words * 3),)))
    assert longer.shape[0] > sheet_of(scene_of(warnings=("short",))).shape[0]


def test_a_white_outline_is_seen_on_the_white_sheet():
    swatch = sheet_of(scene_of())[24 + 37 : 24 + 37 + 16, 25:41]  # the legend's first: kept alone
    assert (swatch[:2] == 255).all()
    around = sheet_of(scene_of())[24 + 36, 24:42]
    assert (around < 128).all()


def test_a_row_of_frames_is_full():
    layouts = {columns: (least, below) for columns, least, below in row_lengths(16)}
    assert list(layouts) == [1, 2, 3, 4, 6, 8, 16]
    assert layouts[8][0] * 16 < 1219.5 < layouts[16][0] * 16  # pixels inside one method's panel on a page of 1400
    assert layouts[1] == (0.0, layouts[2][0]) and layouts[16][1] is None
    assert [columns for columns, *_ in row_lengths(1)] == [1]


def test_a_tape_ends_where_a_row_ends():
    text = render_html(scene_of()).decode()
    for columns, least, _ in row_lengths(2):
        (rules,) = re.findall(rf"@container \(width >= {least}rem\).*\n(.*\n.*)\n}}", text)
        assert f"repeat({columns}," in rules and f":nth-child({columns}n) .runs-on {{ margin-right: 0; }}" in rules


def test_kept_tokens_are_bright_and_dropped_ones_dim():
    panel, scene = decided(), scene_of()
    colours = colour_groups(panel, GRID)
    pixels = np.asarray(draw_frame(scene.frames[0], panel, 0, colours, GRID, (120, 80))).astype(int)
    centres = pixels[20::40, 20::40].reshape(-1, 3)
    assert (centres[[0, 2]] == 200).all()  # the slots' own positions
    assert (centres[3:] == 40).all()  # dropped
    assert np.ptp(centres[1]) > 20 and centres[1].max() < 200  # folded in, under a colour
    rgb = [int(PALETTE[colours[0]][place : place + 2], 16) for place in (1, 3, 5)]
    assert pixels[0, 20].tolist() == rgb and pixels[0, 100].tolist() == [255, 255, 255]


def test_touching_groups_differ_in_colour():
    tokens = np.arange(36).reshape(6, 6) // 2  # pairs side by side
    panel = Panel("pairs", "original", np.arange(0, 36, 2), np.full(18, 2), tokens.reshape(1, 36))
    colours = colour_groups(panel, (6, 6))[tokens]
    across, down = tokens[:, 1:] != tokens[:, :-1], tokens[1:] != tokens[:-1]
    assert (colours[:, 1:] != colours[:, :-1])[across].all() and (colours[1:] != colours[:-1])[down].all()
    assert (colour_groups(decided(), GRID) >= 0).tolist() == [True, False, True]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "out.html"
    path.write_text("before")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", full)
        with pytest.raises(ConfigError, match="no space left"):
            write_view(scene_of(), path, overwrite=True)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(ConfigError, match="--overwrite"):
        write_view(scene_of(), path)
    assert write_view(scene_of(), path, overwrite=True).read_bytes() == render_html(scene_of())
