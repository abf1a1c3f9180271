"""`--budget auto`: how many tokens a question is worth, by the margin of its answer."""

from __future__ import annotations

from typing import Final

from edgevtc.bundle import Manifest, MethodEntry
from edgevtc.errors import ConfigError

__all__ = ["AUTO", "DEFAULT_MARGIN", "by_budget", "margin_threshold"]

#: What stands for a budget that each question chooses.
AUTO: Final = "auto"

#: Threshold of methods the bundle has no calibrated one for; see docs/ask.md for where it comes from.
DEFAULT_MARGIN = 0.15


def by_budget(manifest: Manifest, name: str | None) -> tuple[MethodEntry, ...]:
    """A method's entries by rising budget; of the bundle's first method where ``name`` is None.

    Raises:
        ConfigError: The bundle has no such method.
    """
    name = manifest.method(name).name
    return tuple(sorted((entry for entry in manifest.methods if entry.name == name), key=lambda entry: entry.budget))


def margin_threshold(manifest: Manifest, name: str, margin: float | None = None) -> float:
    """The answer margin below which the next budget is tried: as given, else as calibrated, else the default.

    Raises:
        ConfigError: The given one is negative or no number.
    """
    if margin is None:
        return manifest.auto_margins.get(name, DEFAULT_MARGIN)
    if not margin >= 0:
        raise ConfigError(f"margin {margin} is not valid: give 0 (never try a larger budget) or more")
    return margin
