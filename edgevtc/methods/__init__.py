"""The catalogue of compression methods: built-in ones and those other packages register.

A package adds a method with an entry point of the group ``edgevtc.compressors`` whose object is a
:class:`edgevtc.compressors.Compressor` subclass.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from edgevtc.errors import ConfigError, choices
from edgevtc.methods import (
    baselines,
    divprune,
    dycoke,
    evs,
    fastvid,
    flashvid,
    framefusion,
    holitom,
    infomerge,
    prunevid,
    scissor,
    tome,
    ustc,
    vidcom2,
    visionzip,
)
from edgevtc.methods.spec import NEEDS, POSITION_MODES, MethodSpec, Parameter, budget_for, method_key

__all__ = [
    "ENTRY_POINT_GROUP",
    "NEEDS",
    "POSITION_MODES",
    "MethodSpec",
    "Parameter",
    "budget_for",
    "builtin_methods",
    "method_key",
    "method_names",
    "method_spec",
    "plugin_methods",
]

ENTRY_POINT_GROUP = "edgevtc.compressors"


def builtin_methods() -> dict[str, MethodSpec]:
    """Name → spec of the methods this package brings."""
    specs = (
        baselines.NONE,
        baselines.UNIFORM,
        baselines.FRAMES,
        baselines.RANDOM,
        divprune.DIVPRUNE,
        dycoke.DYCOKE,
        evs.EVS,
        fastvid.FASTVID,
        flashvid.FLASHVID,
        framefusion.FRAMEFUSION,
        holitom.HOLITOM,
        infomerge.INFOMERGE,
        prunevid.PRUNEVID,
        scissor.SCISSOR,
        tome.TOME,
        ustc.USTC,
        vidcom2.VIDCOM2,
        visionzip.VISIONZIP,
    )
    return {spec.name: spec for spec in specs}


def plugin_methods() -> dict[str, EntryPoint]:
    """Name → entry point of the methods other installed packages bring; a built-in name cannot be taken over."""
    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in builtin_methods()}


def method_names() -> list[str]:
    """Every registered name, built-in ones first."""
    return [*builtin_methods(), *sorted(plugin_methods())]


def method_spec(name: str) -> MethodSpec:
    """The spec of a method.

    Raises:
        ConfigError: No method has this name.
        MissingExtraError: A plugin's program needs a library that is not installed.
    """
    if name in (specs := builtin_methods()):
        return specs[name]
    if name in (plugins := plugin_methods()):
        spec = plugins[name].load().spec
        if not isinstance(spec, MethodSpec) or spec.name != name:
            raise ConfigError(f"plugin {plugins[name].value} must have a MethodSpec named {name!r} as its `spec`")
        return spec
    raise ConfigError(f"unknown method {name!r}: {choices(method_names())}")
