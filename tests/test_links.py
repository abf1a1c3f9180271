"""Every relative link of the documents, and every anchor, points to something that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "export/*.md", "engines/*.md", "samples/*.md", "scripts/**/*.md")
PAGES = sorted({page for pattern in PATTERNS for page in ROOT.glob(pattern)})

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
LINKS = (
    re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)"),  # [text](target "title") and ![picture](target)
    re.compile(r"^\s*\[[^\]]+\]:\s+<?([^\s>]+)", re.MULTILINE),  # [name]: target
    re.compile(r"<(?:a|img|source)\b[^>]*?\b(?:href|src|srcset)=\"([^\"]+)\""),
)
ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]*:|//", re.IGNORECASE)


def links(text: str) -> Iterator[str]:
    """Targets of the links outside code."""
    text = FENCE.sub("", text)
    for pattern in LINKS:
        # A link's text may be code, so its target is looked for first and code is emptied, not removed.
        yield from pattern.findall(CODE.sub("``", text))


def anchors(text: str) -> set[str]:
    """Fragments a page can be entered by: its headings as GitHub writes them, and explicit ids."""
    found: dict[str, int] = {}
    names = set(re.findall(r"<a\b[^>]*?\b(?:id|name)=\"([^\"]+)\"", text))
    for heading in re.findall(r"^#{1,6}\s+(.+?)\s*#*$", FENCE.sub("", text), re.MULTILINE):
        shown = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", shown.lower()).replace(" ", "-")
        names.add(f"{slug}-{found[slug]}" if slug in found else slug)
        found[slug] = found.get(slug, 0) + 1
    return names


def broken(page: Path) -> list[str]:
    """The page's links that lead nowhere."""
    lost = []
    for target in links(page.read_text(encoding="utf-8")):
        if ELSEWHERE.match(target):
            continue
        name, _, fragment = unquote(target).partition("#")
        file = (page.parent / name) if name else page
        if not file.exists() or (
            fragment and file.suffix == ".md" and fragment not in anchors(file.read_text(encoding="utf-8"))
        ):
            lost.append(target)
    return lost


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


def test_the_pages_are_found_and_have_links() -> None:
    assert {ROOT / "export" / "README.md", ROOT / "engines" / "README.md"} <= set(PAGES)
    assert "embedded.toml" in list(links((ROOT / "export" / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize(
    ("line", "lost"),
    [
        ("[a](b.md)", []),
        ("[a](c.md)", ["c.md"]),
        ('![a](c.png "title")', ["c.png"]),
        ("[`code`](c.md)", ["c.md"]),
        ("[a]: c.md", ["c.md"]),
        ('<img width="9" src="c.png">', ["c.png"]),
        ("[a](https://example.org/c.md)", []),
        ("`[a](c.md)`", []),
        ("```\n[a](c.md)\n```", []),
        ("[a](#the-2nd-part)", []),
        ("[a](#the-3rd-part)", ["#the-3rd-part"]),
        ("[a](b.md#tokens_per_s-and-ttft)", []),
        ("[a](b.md#tokens_per_s-and-ttft-1)", []),
        ("[a](b.md#tokens_per_s-and-ttft-2)", ["b.md#tokens_per_s-and-ttft-2"]),
    ],
)
def test_what_counts_as_broken(tmp_path: Path, line: str, lost: list[str]) -> None:
    (tmp_path / "b.md").write_text("# `tokens_per_s` and TTFT\n## tokens_per_s and TTFT\n", encoding="utf-8")
    page = tmp_path / "a.md"
    page.write_text(f"# Head\n\n## The 2nd part!\n\n{line}\n", encoding="utf-8")
    assert broken(page) == lost
