"""Whether a clip looks like what a model was trained on: a distance of its features from those of training clips.

A model of a narrow world answers about any footage, and is wrong about what is foreign to it. What its encoder makes of
such footage lies far from all that it was trained with. The encoder's output is at hand before any token is dropped, so
the judgement does not depend on the compressor.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevtc.errors import BundleError

__all__ = ["Domain"]


@dataclass(frozen=True)
class Domain:
    """A Gaussian of the mean token of training clips, by its leading directions, and what lies beside them.

    The Mahalanobis distance of Lee et al. 2018 (arXiv 1807.03888) in the leading principal directions, plus the squared
    residual beside them as in ViM (Wang et al. 2022, arXiv 2203.10807), each relative to its mean over the training
    clips: a training clip has about 2.

    Attributes:
        mean: [D] of the clips' mean tokens.
        directions: [K, D] leading principal directions, each divided by the standard deviation along it.
        residual: Mean squared length of what the directions leave.
        limit: Distance beyond which a clip counts as foreign.
        answer: What is answered about it.
    """

    mean: np.ndarray
    directions: np.ndarray
    residual: float
    limit: float
    answer: str

    @classmethod
    def of(cls, tokens: np.ndarray, number: int, limit: float, answer: str) -> Domain:
        """Estimate it from training clips.

        Args:
            tokens: [clips, D], the mean token of each; more clips than ``number``.
            number: K.
            limit: As the attribute.
            answer: As the attribute.
        """
        tokens = np.asarray(tokens, np.float64)
        mean = tokens.mean(0)
        _, sizes, directions = np.linalg.svd(tokens - mean, full_matrices=False)
        deviations = sizes / np.sqrt(len(tokens))
        leading = directions[:number] / deviations[:number, None]
        residual = float((deviations[number:] ** 2).sum())
        return cls(mean.astype(np.float32), leading.astype(np.float32), residual, limit, answer)

    def distance(self, tokens: np.ndarray) -> float:
        """How far a clip's tokens [T, N, D] are from training clips'; NaN tokens are infinitely far."""
        offset = tokens.reshape(-1, tokens.shape[-1]).mean(0, dtype=np.float64) - self.mean
        along = self.directions @ offset
        # A direction has the length of one over the deviation along it.
        covered = (along**2 / np.square(self.directions, dtype=np.float64).sum(1)).sum()
        distance = float(np.mean(along**2) + max(offset @ offset - covered, 0.0) / self.residual)
        return distance if np.isfinite(distance) else float("inf")

    def to_bytes(self) -> bytes:
        """The file; equal content gives equal bytes."""
        stream = io.BytesIO()
        np.savez(
            stream,
            mean=self.mean,
            directions=self.directions,
            residual=self.residual,
            limit=self.limit,
            answer=self.answer,
        )
        return stream.getvalue()

    @classmethod
    def read(cls, path: Path) -> Domain:
        """Read the file.

        Raises:
            BundleError: It is damaged or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                return cls(
                    stored["mean"],
                    stored["directions"],
                    float(stored["residual"]),
                    float(stored["limit"]),
                    str(stored["answer"]),
                )
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            # Without numpy's words: of what it does not know it says how to unpickle it, which would run code.
            raise BundleError(f"{path} describes no training domain: export or copy the bundle again") from None
