"""Reading what a checkpoint's own processor does to a frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from edgevtc.errors import ExportError
from edgevtc.models.base import Preprocessing
from edgevtc.models.checkpoint import read_json

__all__ = ["read_preprocessing"]

#: File and key, in the order transformers looks them up.
SOURCES = (
    ("processor_config.json", "video_processor"),
    ("video_preprocessor_config.json", None),
    ("preprocessor_config.json", None),
    ("processor_config.json", "image_processor"),
)


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing:
    """What the processor saved beside a checkpoint does to a video's frames; SigLIP's own where none was saved.

    Args:
        folder: The checkpoint.
        image_size: Pixels the vision tower takes, in both directions.

    Raises:
        ExportError: The processor resizes to another size, crops, or scales in a way the graph does not do.
    """
    path, config = _saved(folder)
    size = config.get("size") or {"height": image_size, "width": image_size}
    if not isinstance(size, dict):
        size = {"height": size, "width": size}
    height = size.get("height", size.get("shortest_edge"))
    width = size.get("width", size.get("shortest_edge"))
    if (height, width) != (image_size, image_size):
        raise ExportError(
            f"{path} resizes to {height}×{width}, the vision tower takes {image_size}×{image_size} pixels"
        )
    if config.get("do_center_crop"):
        raise ExportError(f"{path} crops the frame, which this export does not do: set do_center_crop to false")
    if abs(config.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9 or not config.get("do_rescale", True):
        raise ExportError(f"{path} does not rescale by 1/255, the only scale this export knows")
    normalize = config.get("do_normalize", True)
    try:
        return Preprocessing(
            height=image_size,
            width=image_size,
            resample=Image.Resampling(config.get("resample", Image.Resampling.BICUBIC)).name.lower(),
            mean=_channels(config.get("image_mean", 0.5) if normalize else 0.0),
            std=_channels(config.get("image_std", 0.5) if normalize else 1.0),
        )
    except (TypeError, ValueError) as error:
        raise ExportError(f"{path} is not a valid processor configuration ({error})") from None


def _saved(folder: Path) -> tuple[Path, dict[str, Any]]:
    for name, key in SOURCES:
        if (path := folder / name).is_file():
            config = read_json(path)
            if key is None or key in config:
                return path, config if key is None else config[key]
    return folder / "preprocessor_config.json", {}


def _channels(value: Any) -> tuple[float, float, float]:
    red, green, blue = value if isinstance(value, (list, tuple)) else [value] * 3
    return float(red), float(green), float(blue)
