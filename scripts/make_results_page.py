"""Put a finished run of `edgevtc eval` into docs/: its tables between the marks of results.md, its figures and CSV.

    edgevtc eval --split test --videos 200 --out runs/eval-test
    python scripts/make_results_page.py runs/eval-test

What stands outside the marks, the reading of the numbers, is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevtc.eval.plots import FIGURES
from edgevtc.files import write_whole

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def page_with(page: str, measured: str) -> str:
    """The page with new text between its marks; figures lie in images/."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"the page lacks the marks {BEGIN} and {END}: put them back where the tables belong")
    for name in FIGURES:
        measured = measured.replace(f"]({name})", f"](images/{name})")
    return f"{head}{BEGIN}\n\n{measured.strip()}\n\n{END}{tail}"


def main() -> None:
    """Read a run's folder and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="--out of the run")
    folder = parser.parse_args().folder
    page = DOCS / "results.md"
    text = page_with(page.read_text(encoding="utf-8"), (folder / "results.md").read_text(encoding="utf-8"))
    for name in FIGURES:
        write_whole(DOCS / "images" / name, (folder / name).read_text(encoding="utf-8"))
    write_whole(DOCS / "results.csv", (folder / "results.csv").read_text(encoding="utf-8"))
    write_whole(page, text)
    print(page)


if __name__ == "__main__":
    main()
