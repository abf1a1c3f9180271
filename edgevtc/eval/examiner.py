"""Every method at every budget on one clip, through the runner that users run; the clip is encoded once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from edgevtc.bundle import Manifest, MethodEntry
from edgevtc.errors import ConfigError, choices
from edgevtc.eval.clips import Clips
from edgevtc.eval.world_questions import Question
from edgevtc.methods import budget_for, method_key
from edgevtc.runner import Runner, VideoSession

__all__ = ["FULL", "Asked", "CellRecord", "ClipRecord", "Examiner", "select_cells"]

#: The method that keeps every token: what all others are compared with.
FULL = "none"


@dataclass(frozen=True)
class Asked:
    """A question and its right answer."""

    type: str
    text: str
    answer: str


@dataclass(frozen=True)
class CellRecord:
    """One method at one budget on one clip.

    Attributes:
        answers: One a question, in order.
        margins: How clear each was, see :attr:`edgevtc.answer.Answer.answer_margin`.
        compress_s: The compressor.
        prefill_s: The decoder over the whole prompt of the first question.
        ttft_s: From opening the file to the first token of the first answer.
    """

    answers: tuple[str, ...]
    margins: tuple[float, ...]
    compress_s: float
    prefill_s: float
    ttft_s: float


@dataclass(frozen=True)
class ClipRecord:
    """All that was measured on one clip.

    Attributes:
        video: Its number.
        slices: What results are grouped by.
        questions: What was asked about it.
        foreign: What was asked about the next clip, of this one's tokens: the control `shuffled_video`.
        foreign_answers: The answers to these.
        render_s: Rendering and coding the file, where it was not there already.
        open_s: Reading, decoding and encoding it.
        seconds: All that was done for this record.
        cells: :func:`edgevtc.methods.method_key` → what came of it.
        warnings: What the reader had to say about the file, and of which graphs the device leaves a part to the CPU.
    """

    video: int
    slices: dict[str, str]
    questions: tuple[Asked, ...]
    foreign: tuple[Asked, ...]
    foreign_answers: tuple[str, ...]
    render_s: float
    open_s: float
    seconds: float
    cells: dict[str, CellRecord]
    warnings: tuple[str, ...] = field(default=())


def select_cells(
    manifest: Manifest, methods: Sequence[str] | None, retention_ratios: Sequence[float] | None
) -> list[MethodEntry]:
    """The bundle's entries for methods × retention ratios, in the bundle's order; the full tokens are always first.

    Args:
        manifest: Of the bundle.
        methods: Names; all the bundle's where None.
        retention_ratios: Shares of the visual tokens; all the bundle's where None.

    Raises:
        ConfigError: The bundle lacks a method, one of the ratios by a method, or the full tokens; or a list is empty.
    """
    held = list(dict.fromkeys(entry.name for entry in manifest.methods))
    if FULL not in held:
        raise ConfigError(f"this bundle lacks {FULL}, with which all methods are compared: export it with that method")
    if methods is not None and not methods:
        raise ConfigError(f"--method names no method: {choices(held)}")
    wanted = dict.fromkeys(held if methods is None else methods)
    for name in wanted:
        if name not in held:
            raise ConfigError(f"this bundle has no method {name!r}: {choices(held)}")
    if retention_ratios is not None and not retention_ratios:
        shares = sorted({entry.retention_ratio for entry in manifest.methods if entry.name in wanted}, reverse=True)
        raise ConfigError(f"--retention-ratio names no share: {choices(f'{share:g}' for share in shares)}")
    vision = manifest.vision
    budgets = [budget_for(ratio, vision.num_frames, vision.tokens_per_frame) for ratio in retention_ratios or ()]
    cells = [next(entry for entry in manifest.methods if entry.name == FULL)]
    for name in wanted:
        entries = {entry.budget: entry for entry in manifest.methods if entry.name == name}
        for ratio, budget in zip(retention_ratios or (), budgets, strict=True):
            # The full tokens come along with methods that hold a share; by themselves they must hold it.
            if budget not in entries and (name != FULL or len(wanted) == 1):
                have = choices(f"{entry.retention_ratio:g}" for entry in entries.values())
                raise ConfigError(f"this bundle holds {name} at no retention ratio {ratio:g}: {have}")
        cells += [entry for entry in entries.values() if name != FULL and (not budgets or entry.budget in budgets)]
    return cells


class Examiner:
    """Measures clips, one after another, in this process.

    Args:
        runner: The bundle, on the threads and device to measure with.
        clips: What to measure on.
        cells: Methods at budgets; the first keeps every token.
    """

    def __init__(self, runner: Runner, clips: Clips, cells: Sequence[MethodEntry]) -> None:
        self._runner, self._clips, self._cells = runner, clips, cells
        for cell in cells:
            runner.vision.session(cell.compressor)  # loading is no clip's time

    def examine(self, video: int) -> ClipRecord:
        """Ask a clip's questions of every cell, and the next clip's of its full tokens."""
        begun = time.perf_counter()
        path = self._clips.file(video)
        rendered = opened = time.perf_counter()
        self._runner.method = self._cells[0]
        session = self._runner.open(path)
        open_s = time.perf_counter() - opened - session.visual.compress_s
        asked, foreign = asked_of(self._clips.questions(video)), asked_of(self._clips.questions(video + 1))
        about_another = [session.ask(question.text) for question in foreign]
        cells = {}
        for cell in self._cells:
            self._runner.method = cell
            started = time.perf_counter()
            session = VideoSession(self._runner, session.encoded, started, [])
            answers = [session.ask(question.text) for question in asked]
            first = answers[0]
            cells[method_key(cell.name, cell.budget)] = CellRecord(
                tuple(answer.answer for answer in answers),
                tuple(round(answer.answer_margin, 6) for answer in answers),
                first.compress_s,
                first.prefill_s,
                open_s + first.ttft_s,
            )
        return ClipRecord(
            video,
            self._clips.slices(video),
            asked,
            foreign,
            tuple(answer.answer for answer in about_another),
            rendered - begun,
            open_s,
            time.perf_counter() - begun,
            cells,
            tuple(about_another[0].warnings),
        )


def asked_of(questions: Iterable[Question]) -> tuple[Asked, ...]:
    """What a record keeps of questions."""
    return tuple(Asked(question.type, question.text, question.answer) for question in questions)
