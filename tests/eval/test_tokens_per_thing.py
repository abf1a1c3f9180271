"""What is recovered by kept tokens for each thing, on a made-up run in which only that decides."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgevtc.eval.examiner import Asked, CellRecord, ClipRecord
from edgevtc.eval.journal import Cell, Journal, RunArguments

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import bench_tokens_per_thing

EACH = 4
FULL = Cell("none", 200, 1.0, "original")
CELLS = (FULL, *(Cell(name, b, b / 200, "original") for name in ("holitom", "random") for b in (60, 30)))


def clip(video: int, things: int) -> ClipRecord:
    """All right with all tokens, none at random; holitom is half right from 20 tokens a thing on, fully from 40."""

    def right(cell: Cell) -> int:
        per_thing = cell.budget / things
        return (
            EACH
            if cell == FULL
            else 0
            if cell.method == "random"
            else EACH * ((per_thing >= 20) + (per_thing >= 40)) // 2
        )

    found = {
        cell.name: CellRecord(("red",) * right(cell) + ("blue",) * (EACH - right(cell)), (1.0,) * EACH, 0, 0, 0)
        for cell in CELLS
    }
    asked = (Asked("color", "what color is it", "red"),) * EACH
    return ClipRecord(video, {"things": str(things)}, asked, (), (), 0.0, 0.0, 0.0, found)


def test_clips_and_budgets_meet_where_their_tokens_for_each_thing_do(tmp_path: Path, monkeypatch, capsys):
    with Journal(tmp_path, RunArguments("ab" * 32, "m", 200, "cpu", "dev", 7, EACH, "cd" * 32, CELLS, {})) as journal:
        for video in range(20):
            journal.append(clip(video, 1 + video % 6))
    monkeypatch.setattr(sys, "argv", ["bench", str(tmp_path), "--methods", "holitom"])
    bench_tokens_per_thing.main()
    rows = dict(
        (label.strip(), (int(clips), share.strip()))
        for _, label, clips, share, _ in (line.split("|") for line in capsys.readouterr().out.splitlines()[4:])
    )
    # 60 and 30 tokens for one to six things: 60, 30, 20, 15, 12, 10 and 30, 15, 10, 7.5, 6, 5 each.
    assert rows["40 to 80"] == (4, "100 [100, 100]")
    assert rows["20 to 40"] == (11, "50 [50, 50]")
    assert rows["10 to 20"] == (16, "0 [0, 0]")
    assert rows["5 to 10"] == (9, "0 [0, 0]")
    assert rows["80 to 160"] == (0, "–")


def test_a_run_without_the_floor_is_refused_in_one_line(tmp_path: Path, monkeypatch):
    cells = CELLS[:2]
    with Journal(tmp_path, RunArguments("ab" * 32, "m", 200, "cpu", "dev", 7, EACH, "cd" * 32, cells, {})) as journal:
        journal.append(clip(0, 1))
    monkeypatch.setattr(sys, "argv", ["bench", str(tmp_path), "--methods", "holitom"])
    with pytest.raises(SystemExit, match="random at 60 tokens"):
        bench_tokens_per_thing.main()
