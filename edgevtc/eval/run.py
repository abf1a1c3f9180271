"""Measure clips in several processes; results are kept as they come."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

from edgevtc.adaptive import margin_threshold, rungs
from edgevtc.bundle import AutoEntry, Bundle, Manifest
from edgevtc.errors import BackendError, ConfigError, choices
from edgevtc.eval.clips import EVAL_SPLITS, Clips
from edgevtc.eval.examiner import ClipRecord, Examiner, select_cells
from edgevtc.eval.journal import Cell, Journal, RunArguments
from edgevtc.runner import Runner
from edgevtc.workers import end_with_parent, pool_of

__all__ = ["Evaluation", "evaluate"]

VIDEOS = "videos"


@dataclass(frozen=True)
class Evaluation:
    """What to measure.

    Attributes:
        bundle: Folder of a bundle; None for the one inside the package.
        methods: Compression methods; all the bundle's where None.
        retention_ratios: Shares of the visual tokens to keep; all the bundle's where None.
        videos: Number of clips.
        questions: Most questions a clip.
        split: One of :data:`edgevtc.eval.clips.EVAL_SPLITS`.
        seed: Seed of the world.
        device: Where graphs run.
        clips_folder: Where clips are kept, for several runs; in the run's own folder where None.
    """

    bundle: str | os.PathLike[str] | None = None
    methods: Sequence[str] | None = None
    retention_ratios: Sequence[float] | None = None
    videos: int = 100
    questions: int = 10
    split: str = "dev"
    seed: int = 0
    device: str = "cpu"
    clips_folder: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.split not in EVAL_SPLITS:
            raise ConfigError(f"there is no split {self.split!r} to examine on: {choices(EVAL_SPLITS)}")
        if self.videos < 2:
            raise ConfigError(f"an interval needs 2 videos or more, and {self.videos} was given")

    def clips(self, folder: Path) -> Clips:
        """The clips of a run in a folder."""
        return Clips(self.split, self.seed, self.questions, Path(self.clips_folder or folder / VIDEOS))

    def arguments(self, folder: Path, jobs: int = 1) -> RunArguments:
        """What decides the answers, and how they are come by.

        Raises:
            BundleError: The bundle is missing, altered or incomplete.
            ConfigError: It lacks a method or retention ratio.
        """
        bundle = Bundle(self.bundle)
        cells = select_cells(bundle.manifest, self.methods, self.retention_ratios)
        return RunArguments(
            bundle.sha256,
            bundle.manifest.model.name,
            bundle.manifest.tokens_total,
            self.device,
            self.split,
            self.seed,
            self.questions,
            self.clips(folder).digest(),
            tuple(Cell(cell.name, cell.budget, cell.retention_ratio, cell.positions) for cell in cells),
            {cell.name: auto_entry(bundle.manifest, cell.name) for cell in cells},
            None if self.bundle is None else os.fspath(self.bundle),
            jobs,
        )

    def examiner(self, folder: Path) -> Examiner:
        """The bundle with every cell loaded, one thread an operator."""
        runner = Runner(self.bundle, device=self.device, threads=1)
        cells = select_cells(runner.bundle.manifest, self.methods, self.retention_ratios)
        return Examiner(runner, self.clips(folder), cells)


def auto_entry(manifest: Manifest, method: str) -> AutoEntry:
    """How `--budget auto` goes about a method."""
    budgets = tuple(entry.budget for entry in rungs(manifest, method))
    return AutoEntry(budgets, margin_threshold(manifest, method))


def evaluate(
    evaluation: Evaluation,
    folder: str | os.PathLike[str],
    jobs: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Journal:
    """Measure what a folder's run still lacks.

    Args:
        evaluation: What to measure.
        folder: Where records and clips are kept.
        jobs: Processes, each with one thread.
        progress: Called with the number of clips measured, and of all.

    Returns:
        The journal, closed, with all its records.

    Raises:
        BundleError: The bundle is missing, altered or incomplete.
        ConfigError: An argument is not valid, the folder belongs to another run, or clips cannot be written.
        BackendError: The device cannot serve the bundle, or a process was killed.
    """
    if jobs < 1:
        raise ConfigError(f"{jobs} jobs is not valid: give 1 or more")
    folder = Path(folder)
    with Journal(folder, evaluation.arguments(folder, jobs)) as journal:
        missing = [video for video in range(evaluation.videos) if video not in journal.records]
        evaluation.clips(folder).check(missing)
        done = evaluation.videos - len(missing)
        progress(done, evaluation.videos)
        measured = in_processes if min(jobs, len(missing)) > 1 else in_this_process
        for record in measured(evaluation, folder, missing, jobs):
            journal.append(record)
            done += 1
            progress(done, evaluation.videos)
    return journal


def in_this_process(evaluation: Evaluation, folder: Path, videos: Sequence[int], jobs: int) -> Iterator[ClipRecord]:
    """Records one after another."""
    if videos:
        examiner = evaluation.examiner(folder)
        yield from map(examiner.examine, videos)


def in_processes(evaluation: Evaluation, folder: Path, videos: Sequence[int], jobs: int) -> Iterator[ClipRecord]:
    """Records as processes finish them."""
    try:
        with pool_of(min(jobs, len(videos)), start_worker, evaluation, folder) as pool:
            for future in as_completed([pool.submit(work, video) for video in videos]):
                yield future.result()
    except BrokenProcessPool:
        raise BackendError(
            "a process was killed, perhaps for want of memory: run the command again, with fewer --jobs; it goes on"
        ) from None


_worker: tuple[Evaluation, Path] | None = None
_examiner: Examiner | None = None


def start_worker(evaluation: Evaluation, folder: Path) -> None:
    """Remember what to measure, and end with the parent."""
    end_with_parent()
    global _worker
    _worker = evaluation, folder


def work(video: int) -> ClipRecord:
    """Measure one clip in a process of a pool."""
    global _examiner
    if _examiner is None:  # here and not before, so that an error comes out of the clip's future as it is
        evaluation, folder = _worker  # type: ignore[misc]  # start_worker ran
        _examiner = evaluation.examiner(folder)
    return _examiner.examine(video)
