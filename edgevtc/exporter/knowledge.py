"""What a checkpoint knows of itself beside its weights, carried into the bundle."""

from __future__ import annotations

from pathlib import Path

from edgevtc.bundle import FolderWriter
from edgevtc.domain import Domain
from edgevtc.errors import BundleError, ExportError

__all__ = ["DOMAIN", "write_domain"]

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
