"""Device profiles: where a bundle runs, and with which tool its engines are built."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from edgevtc.catalogue.shelf import Shelf
from edgevtc.errors import ConfigError, choices

__all__ = ["TOOLS", "DeviceProfile", "device_names", "device_profile"]

#: What runs graphs on a device.
TOOLS = ("onnxruntime", "tensorrt", "tensorrt-rtx")


@dataclass(frozen=True)
class DeviceProfile:
    """One file of `engines/`; its README explains every field.

    Attributes:
        name: As in ``edgevtc list devices``.
        description: The product, in words.
        tool: One of :data:`TOOLS`.
        source: Where the numbers stand.
        compute_capability: CUDA compute capability, as in ``"8.9"``; None where the device has no such GPU.
        memory_gb: Memory that models share, 10⁹ bytes as the maker counts them; None where it varies.
        bandwidth_gb_s: Peak memory bandwidth, 10⁹ bytes a second; None where it varies.
        python: Python version that the device's system brings, as in ``"3.10"``; None where it is the user's choice.
        notes: What else decides, in words.

    Raises:
        ConfigError: A value is out of range or unknown.
    """

    name: str
    description: str
    tool: str
    source: str
    compute_capability: str | None = None
    memory_gb: float | None = None
    bandwidth_gb_s: float | None = None
    python: str | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.tool not in TOOLS:
            raise ConfigError(f"tool: {self.tool!r} is not valid: {choices(TOOLS)}")
        for name in ("compute_capability", "python"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"\d+\.\d+", value):
                raise ConfigError(f"{name}: {value!r} is not valid: give major and minor number, as in '8.9'")
        for name in ("memory_gb", "bandwidth_gb_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name}: {value!r} is not valid: give a number above 0")
        if self.tool != "onnxruntime" and self.compute_capability is None:
            raise ConfigError(f"compute_capability: {self.tool} builds for one: give it, as in '8.9'")


SHELF = Shelf(DeviceProfile, "device profile", "edgevtc.catalogue.devices", "engines", "edgevtc list devices")


def device_names() -> list[str]:
    """Names of the catalogue's profiles."""
    return SHELF.names()


def device_profile(name_or_path: str | os.PathLike[str]) -> DeviceProfile:
    """A profile by its name in the catalogue, or from a .toml file of one's own.

    Raises:
        ConfigError: No such name or file, or the file is not valid; the message names file and field.

    Example:
        >>> device_profile("rtx-4060").compute_capability
        '8.9'
    """
    return SHELF.read(name_or_path)
