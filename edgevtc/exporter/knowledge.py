"""What a checkpoint knows of itself beside its weights, carried into the bundle."""

from __future__ import annotations

import json
from collections.abc import Collection
from math import inf
from pathlib import Path

from edgevtc.bundle import AutoEntry, FolderWriter
from edgevtc.domain import Domain
from edgevtc.errors import BundleError, ExportError
from edgevtc.records import read_record

__all__ = ["AUTO", "DOMAIN", "read_auto", "write_domain"]

#: How `--budget auto` goes about methods, in a checkpoint's folder; the bundle has it in its manifest.
AUTO = "auto.json"

#: What tells footage that is foreign to the model, in a checkpoint's folder and in the bundle.
DOMAIN = "domain.npz"


def write_domain(writer: FolderWriter, checkpoint: Path, width: int) -> str:
    """Carry the checkpoint's training domain over; returns its name in the bundle, "" where there is none.

    Raises:
        ExportError: It is damaged, or of tokens of another width than the encoder's.
    """
    path = checkpoint / DOMAIN
    if not path.is_file():
        return ""
    try:
        domain = Domain.read(path)
    except BundleError:
        raise ExportError(f"{path} is damaged: delete it, or learn it again with scripts/train/domain.py") from None
    if domain.mean.shape != (width,):
        raise ExportError(
            f"{path} is of tokens of width {domain.mean.size}, this model's have {width}: delete it, or learn it again"
        )
    return writer.file(DOMAIN, domain.to_bytes())


def read_auto(checkpoint: Path, held: Collection[tuple[str, int]]) -> dict[str, AutoEntry]:
    """How `--budget auto` goes about the methods whose calibrated budgets are all in the bundle.

    Args:
        checkpoint: Its folder.
        held: Methods and budgets of the bundle.

    Raises:
        ExportError: The file is damaged.
    """
    path = checkpoint / AUTO
    if not path.is_file():
        return {}
    mend = "delete it, or calibrate again with scripts/calibrate_auto.py"
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ExportError(f"{path} is not JSON of methods with their budgets and margin: {mend}")
    entries = {name: read_record(AutoEntry, value, f"{path}: {name}", ExportError) for name, value in found.items()}
    for name, entry in entries.items():
        if not entry.budgets or list(entry.budgets) != sorted(set(entry.budgets)) or not 0 <= entry.margin < inf:
            raise ExportError(f"{path}: {name} needs rising budgets and a margin of 0 or more: {mend}")
    return {name: entry for name, entry in entries.items() if all((name, budget) in held for budget in entry.budgets)}
