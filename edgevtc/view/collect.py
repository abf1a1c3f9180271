"""Run a bundle's vision part on a clip, keeping the frames for the eye beside those for the model."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgevtc.backends import create_backend
from edgevtc.bundle import Bundle
from edgevtc.runner import Runner, VideoSession, select_method
from edgevtc.video import Frame, FrameSampler
from edgevtc.video.pictures import resize
from edgevtc.view.scene import Panel, Scene
from edgevtc.vision import VisionPipeline

__all__ = ["view_video"]

#: Longest side of a frame that is shown, in pixels: a phone's width, and 64 of them still make a small page.
FRAME_PIXELS = 320


def view_video(
    source: str | os.PathLike[str],
    *,
    bundle: str | os.PathLike[str] | None = None,
    methods: Sequence[str] = (),
    budget: int | None = None,
    retention_ratio: float | None = None,
    question: str | None = None,
    device: str = "cpu",
    threads: int | None = None,
    fps: float | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Scene:
    """Encode a clip once and compress it by each method.

    Args:
        source: A video file, an image, or a folder of images.
        bundle: Folder of a bundle; None for the one inside the package.
        methods: Compression methods; where there are none, the bundle's first that drops tokens.
        budget: Tokens to keep; at most one of this and ``retention_ratio``.
        retention_ratio: Share of the T·N tokens to keep, in (0, 1].
        question: Asked of each method's tokens; without one the language model is not loaded.
        device: One of :data:`edgevtc.backends.DEVICES`.
        threads: Threads inside an operator on a CPU; all this process may use where None.
        fps: Frames a second to sample; even steps where None.
        start_s: Where to start, seconds into the video.
        end_s: Where to end, seconds into the video.

    Raises:
        VideoError: The source is missing or holds no picture.
        BundleError: The bundle is missing, altered or incomplete.
        ConfigError: The bundle holds no such method or budget, or the question is empty.
        BackendError: The device cannot serve it.
    """
    runner = None
    if question is None:
        vision = VisionPipeline(create_backend(device, threads), Bundle(bundle))
    else:
        runner = Runner(bundle, device=device, threads=threads)
        vision = runner.vision
    manifest = vision.bundle.manifest
    drops = (entry.name for entry in manifest.methods if entry.budget < manifest.tokens_total)
    names = methods or [next(drops, manifest.methods[0].name)]
    entries = [select_method(vision.bundle, name, budget, retention_ratio) for name in names]
    shown: list[NDArray[np.uint8]] = []
    with FrameSampler(source, manifest.vision.num_frames, fps=fps, start_s=start_s, end_s=end_s) as sampler:
        size = (manifest.vision.image_height, manifest.vision.image_width)
        encoded = vision.encode(both_sizes(sampler, size, manifest.vision.resample, shown))
    panels, declined = [], ""
    for entry in entries:
        answer = finish_reason = ""
        if runner is None or question is None:
            tokens = vision.compress(encoded, entry)
        else:
            runner.method = entry
            session = VideoSession(runner, encoded, time.perf_counter(), [])
            asked = session.ask(question)
            tokens, answer, finish_reason = session.visual, asked.answer, asked.finish_reason
            declined = asked.declined
        panels.append(
            Panel(
                entry.name,
                entry.positions,
                tokens.positions,
                tokens.counts,
                tokens.assignment,
                answer,
                tokens.segments,
                finish_reason,
            )
        )
    return Scene(
        video=Path(source).resolve().name,
        model=manifest.model.name,
        bundle_sha256=vision.bundle.sha256,
        grid=(manifest.vision.grid_height, manifest.vision.grid_width),
        frames=shown,
        times_s=encoded.times_s.tolist(),
        panels=panels,
        question=question or "",
        warnings=(*sampler.warnings, *([declined] if declined else [])),
    )


def both_sizes(
    sampler: FrameSampler, size: tuple[int, int], resample: str, shown: list[NDArray[np.uint8]]
) -> Iterator[Frame]:
    """The frames as the model wants them; those for the eye are added to ``shown``, all of the clip's shape."""
    info = sampler.info
    scale = min(1.0, FRAME_PIXELS / max(info.width, info.height))
    seen = (max(1, round(info.height * scale)), max(1, round(info.width * scale)))
    for frame in sampler:
        shown.append(resize(frame.image, seen, "lanczos"))
        yield Frame(frame.index, frame.time_s, resize(frame.image, size, resample))
