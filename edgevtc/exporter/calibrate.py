"""How large a vision encoder's activations are on the user's own clips."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgevtc.bundle import embedded_path
from edgevtc.errors import ConfigError, ExportError
from edgevtc.eval.world import World
from edgevtc.models import ModelAdapter, Vision
from edgevtc.models.siglip import Dense
from edgevtc.video import FrameSampler

__all__ = ["CALIBRATION_FRAMES", "calibration_clips", "calibration_frames", "chosen_clips", "largest_activations"]

#: Frames looked at, spread over all clips: the largest values hardly grow any more, and a full-size tower takes
#: seconds a frame.
CALIBRATION_FRAMES = 64

#: Scenes of the synthetic world for the model that was trained on it; others than bundles are verified with.
SCENE_SEEDS = range(5000, 5016)

#: Suffixes of the files that a folder of clips is searched for.
CLIP_SUFFIXES = frozenset((".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm"))


def calibration_clips(checkpoint: Path, paths: Sequence[Path]) -> list[Path]:
    """The clips: files as they are given, of folders all that have a video's suffix.

    None given, none found: the model in the package is calibrated on scenes of the world it was trained on.

    Raises:
        ConfigError: None are given for another model, a path is missing, or a folder has no clip.
    """
    if not paths and checkpoint.resolve() != (embedded_path().parent / "checkpoint").resolve():
        raise ConfigError(
            "encoder format w8a8 takes its scales from clips like those it will see: give some with --calibrate"
        )
    clips: list[Path] = []
    for path in paths:
        if not path.exists():
            raise ConfigError(f"--calibrate: {path} does not exist: give video files, or folders that hold some")
        found = [path]
        if path.is_dir():
            found = sorted(file for file in path.rglob("*") if file.suffix.lower() in CLIP_SUFFIXES)
        if not found:
            raise ConfigError(f"--calibrate: {path} holds no video (*{', *'.join(sorted(CLIP_SUFFIXES))})")
        clips += found
    return clips


def chosen_clips(clips: Sequence[Path]) -> Sequence[Path]:
    """Those of the clips that are looked at, evenly spread: at most one a frame."""
    return clips[:: max(1, -(-len(clips) // CALIBRATION_FRAMES))]


def calibration_frames(model: ModelAdapter, clips: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """Frames [H, W, 3] as the encoder gets them: as many of each clip, evenly spread; of drawn scenes where none are.

    Raises:
        VideoError: A clip cannot be read.
    """
    height, width = model.geometry.image_height, model.geometry.image_width
    if not clips:
        per_scene = CALIBRATION_FRAMES // len(SCENE_SEEDS)
        for seed in SCENE_SEEDS:
            world = World("dev", seed)
            scene = world.scene()
            ticks = np.linspace(0, scene.ticks - 1, per_scene, dtype=np.float32)
            yield from world.renderer.frames(scene, ticks, (width, height))
        return
    chosen = chosen_clips(clips)
    for clip in chosen:
        count = CALIBRATION_FRAMES // len(chosen)
        with FrameSampler(clip, count, (height, width), resample=model.preprocessing.resample) as sampler:
            for frame in sampler:
                yield frame.image


@torch.no_grad()
def largest_activations(vision: Vision, frames: Iterable[NDArray[np.uint8]]) -> dict[str, NDArray[np.float32]]:
    """Largest magnitude of each input channel of every dense layer, over frames.

    Args:
        vision: The vision part, in float32.
        frames: Each [H, W, 3] uint8.

    Returns:
        The layer's weight, by its name in the traced graph → [K].

    Raises:
        ExportError: A value is not finite.
    """
    found: dict[str, Tensor] = {}

    def watch(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        def look(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            largest = inputs[0].abs().flatten(0, -2).amax(0)
            found[name] = torch.maximum(found[name], largest) if name in found else largest

        return module.register_forward_pre_hook(look)

    dense = {path: module for path, module in vision.named_modules() if isinstance(module, (Dense, nn.Linear))}
    handles = [watch(f"vision.{path}.weight", module) for path, module in dense.items()]
    try:
        for frame in frames:
            vision(torch.from_numpy(frame)[None])
    finally:
        for handle in handles:
            handle.remove()
    if damaged := [name for name, value in found.items() if not value.isfinite().all()]:
        raise ExportError(f"the input of {damaged[0]} is not finite on the clips to calibrate on: use others")
    return {name: value.numpy() for name, value in found.items()}
