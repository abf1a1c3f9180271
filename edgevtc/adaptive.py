"""`--budget auto`: how many tokens a question is worth, by the margin of its answer."""

from __future__ import annotations

from collections import Counter
from typing import Final

from edgevtc.bundle import Manifest, MethodEntry
from edgevtc.errors import BundleError, ConfigError

__all__ = ["AUTO", "DEFAULT_MARGIN", "by_budget", "choosable", "margin_threshold", "rungs"]

#: What stands for a budget that each question chooses.
AUTO: Final = "auto"

#: Threshold of methods the bundle has no calibrated one for; see docs/ask.md for where it comes from.
DEFAULT_MARGIN = 0.4


def by_budget(manifest: Manifest, name: str | None) -> tuple[MethodEntry, ...]:
    """A method's entries by rising budget; of the bundle's first method where ``name`` is None.

    Raises:
        ConfigError: The bundle has no such method.
    """
    name = manifest.method(name).name
    return tuple(sorted((entry for entry in manifest.methods if entry.name == name), key=lambda entry: entry.budget))


def choosable(manifest: Manifest, name: str | None) -> tuple[MethodEntry, ...]:
    """As :func:`by_budget`, for a choice among a method's budgets.

    Raises:
        ConfigError: The bundle has no such method, or one budget of it where others have several.
    """
    entries = by_budget(manifest, name)
    count = Counter(entry.name for entry in manifest.methods)
    several = [other for other in count if count[other] > 1]
    if len(entries) == 1 and several:
        raise ConfigError(
            f"there is nothing to choose: of {entries[0].name} this bundle holds {entries[0].budget} tokens alone; "
            f"give --method one of several budgets: {', '.join(several)}"
        )
    return entries


def rungs(manifest: Manifest, name: str | None) -> tuple[MethodEntry, ...]:
    """The entries that auto tries, by rising budget: the calibrated ones, else those of a token a frame or more.

    With fewer tokens than frames the embedded model's margins say little: it is sure of what it cannot see.

    Raises:
        ConfigError: The bundle has no such method.
        BundleError: The bundle was calibrated for budgets it does not hold.
    """
    entries = by_budget(manifest, name)
    calibrated = manifest.auto.get(entries[0].name)
    if calibrated is None:
        return tuple(entry for entry in entries if entry.budget >= manifest.vision.num_frames) or entries[-1:]
    chosen = tuple(entry for entry in entries if entry.budget in calibrated.budgets)
    if not chosen or len(chosen) != len(calibrated.budgets):
        raise BundleError(
            f"manifest: auto names budgets of {entries[0].name} that the bundle does not hold: calibrate it again"
        )
    return chosen


def margin_threshold(manifest: Manifest, name: str, margin: float | None = None) -> float:
    """The answer margin below which the next budget is tried: as given, else as calibrated, else the default.

    Raises:
        ConfigError: The given one is negative or no number.
    """
    if margin is None:
        return manifest.auto[name].margin if name in manifest.auto else DEFAULT_MARGIN
    if not margin >= 0:
        raise ConfigError(f"margin {margin} is not valid: give 0 (never try a larger budget) or more")
    return margin
