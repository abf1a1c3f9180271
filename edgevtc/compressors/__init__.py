"""Compression methods as fixed-shape torch programs; :func:`create` makes one by its registered name."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from edgevtc.compressors.base import Compressor, Features, Plan
from edgevtc.errors import ConfigError, choices
from edgevtc.methods import method_names, plugin_methods

__all__ = ["Compressor", "Features", "Plan", "create"]

#: Built-in method → module and class of its program.
_PROGRAMS = {
    "none": ("baselines", "KeepAll"),
    "uniform": ("baselines", "Uniform"),
    "frames": ("baselines", "Frames"),
    "random": ("baselines", "Random"),
    "divprune": ("divprune", "DivPrune"),
    "dycoke": ("dycoke", "DyCoke"),
    "evs": ("evs", "EVS"),
    "holitom": ("holitom", "HoliTom"),
    "infomerge": ("infomerge", "InfoMerge"),
    "scissor": ("scissor", "Scissor"),
    "framefusion": ("framefusion", "FrameFusion"),
    "flashvid": ("flashvid", "FlashVID"),
    "prunevid": ("prunevid", "PruneVid"),
    "tome": ("tome", "ToMe"),
    "ustc": ("ustc", "USTCompressor"),
    "fastvid": ("fastvid", "FastVID"),
    "vidcom2": ("vidcom2", "VidCom2"),
    "visionzip": ("visionzip", "VisionZip"),
}


def create(name: str, num_frames: int, tokens_per_frame: int, budget: int, **config: Any) -> Compressor:
    """Build the program of a registered method.

    Args:
        name: A built-in method or one of an installed plugin.
        num_frames: T.
        tokens_per_frame: N.
        budget: B, from 1 to T·N.
        config: `retention_ratio`, `grid_width` and hyper-parameters, see :class:`Compressor`.

    Raises:
        ConfigError: No method has this name, or the arguments do not fit it.
    """
    if name in _PROGRAMS:
        module, attribute = _PROGRAMS[name]
        program = getattr(import_module(f"edgevtc.compressors.{module}"), attribute)
    elif name in (plugins := plugin_methods()):
        program = plugins[name].load()
        if not (isinstance(program, type) and issubclass(program, Compressor)):
            raise ConfigError(f"plugin {plugins[name].value} is not a subclass of edgevtc.compressors.Compressor")
    else:
        raise ConfigError(f"unknown method {name!r}: {choices(method_names())}")
    return program(num_frames, tokens_per_frame, budget, **config)
