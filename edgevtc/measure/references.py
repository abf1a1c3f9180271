"""The reference file of a bundle: a few real inputs and what torch made of them when the bundle was exported.

One compressed npz::

    frames                 [T, H, W, 3] uint8: a clip
    features.NAME          torch's encoder outputs on it (`frame_tokens` [T, N, D], …), which compressors are given
    projection             [D, P] float32: tokens [B, D] are compared by tokens·projection, a hundredth of the bytes
    METHOD-bB.positions    [B] int32
    METHOD-bB.assignment   [T, N] int32
    METHOD-bB.tokens       [B, P] float32, projected
    METHOD-bB.stability    [L, 2] float32: the shares of the positions and of the inputs' places that survive noise on
                           the features, for each of `NOISE_LEVELS`
    METHOD-bB.drift        [L] float32: how far, at most, that noise moves the tokens of slots whose inputs stay,
                           relative to the largest value: not all members of a mean need be in the assignment
    prompt_ids             [S] int32: the chat template with the question, tokenized
    prompt_embeddings      [S, P] float32, projected
    logits                 [vocabulary] float32 of the unquantized decoder after that prompt, see `decoder_rows`
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edgevtc.decoder.prompt import Rows, VisualSpan, assemble
from edgevtc.errors import BundleError

__all__ = [
    "NOISE_LEVELS",
    "PROJECTED_WIDTH",
    "MethodReference",
    "References",
    "decoder_rows",
    "new_projection",
    "noise_level",
]

#: P, numbers a token is compared by.
PROJECTED_WIDTH = 4

#: Largest differences, relative to the largest value, that stability is measured at: from float32 in another order of
#: summation to half precision.
NOISE_LEVELS = (1e-5, 1e-4, 1e-3, 1e-2)

#: Arrays there is one of; the others are named OWNER.NAME.
SINGLE_ARRAYS = ("frames", "projection", "prompt_ids", "prompt_embeddings", "logits")

#: Visual tokens in the decoder's prompt: enough to attend over, few enough to compute anywhere.
PROMPT_TOKENS = 64


@dataclass(frozen=True)
class MethodReference:
    """What torch's compressor made of the features: positions [B], assignment [T, N], projected tokens [B, P].

    And how firm that is under noise: stability [L, 2], drift [L].
    """

    positions: np.ndarray
    assignment: np.ndarray
    tokens: np.ndarray
    stability: np.ndarray
    drift: np.ndarray


@dataclass(frozen=True)
class References:
    """Content of the reference file; see the module for shapes.

    Attributes:
        features: Encoder output → array.
        methods: Key of a method, see `method_key` → its decisions.
    """

    frames: np.ndarray
    features: dict[str, np.ndarray]
    projection: np.ndarray
    methods: dict[str, MethodReference]
    prompt_ids: np.ndarray
    prompt_embeddings: np.ndarray
    logits: np.ndarray

    def to_bytes(self) -> bytes:
        """The file; equal content gives equal bytes."""
        arrays = {name: getattr(self, name) for name in SINGLE_ARRAYS}
        arrays |= {f"features.{name}": value for name, value in self.features.items()}
        for key, method in self.methods.items():
            arrays |= {f"{key}.{name}": value for name, value in vars(method).items()}
        stream = io.BytesIO()
        np.savez_compressed(stream, **arrays)
        return stream.getvalue()

    @classmethod
    def read(cls, path: Path) -> References:
        """Read the file.

        Raises:
            BundleError: It is damaged or lacks an array.
        """
        try:
            with np.load(path, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
            methods: dict[str, dict[str, np.ndarray]] = {}
            features = {}
            for name in [name for name in arrays if "." in name]:
                owner, _, part = name.rpartition(".")
                if owner == "features":
                    features[part] = arrays.pop(name)
                else:
                    methods.setdefault(owner, {})[part] = arrays.pop(name)
            return cls(
                features=features,
                methods={key: MethodReference(**parts) for key, parts in methods.items()},
                **arrays,
            )
        except (OSError, ValueError, TypeError, EOFError, zlib.error, zipfile.BadZipFile):
            # Without numpy's words: of what it does not know it says how to unpickle it, which would run code.
            raise BundleError(f"{path} is no reference file: export or copy the bundle again") from None


def noise_level(noise: float) -> int:
    """Index of the least of `NOISE_LEVELS` that is not below a noise, or of the largest."""
    return min(int(np.searchsorted(NOISE_LEVELS, noise)), len(NOISE_LEVELS) - 1)


def new_projection(width: int) -> np.ndarray:
    """[width, P] float32 directions of random signs; a sum of squares keeps its expected size."""
    signs = np.random.default_rng(0).integers(0, 2, (width, PROJECTED_WIDTH)) * 2 - 1
    return (signs / np.sqrt(PROJECTED_WIDTH)).astype(np.float32)


def decoder_rows(
    references: References,
    video_token_id: int,
    newline: np.ndarray | None,
    embed: Callable[[Sequence[int]], np.ndarray],
) -> Rows:
    """The prompt the decoder is tried with: tokens of the reference features at even steps, at their own positions.

    So a decoder is held to torch on input that no compressor had a part in.
    """
    tokens = references.features["frame_tokens"]
    tokens = tokens.reshape(-1, tokens.shape[-1])
    kept = np.unique(np.linspace(0, len(tokens) - 1, min(PROMPT_TOKENS, len(tokens))).astype(np.int64))
    embeddings, offsets, length = tokens[kept], kept, len(tokens)
    if newline is not None:
        embeddings = np.concatenate([embeddings, newline.reshape(1, -1).astype(embeddings.dtype)])
        offsets, length = np.append(offsets, length), length + 1
    span = VisualSpan("references", embeddings, offsets, length)
    return assemble(references.prompt_ids.tolist(), video_token_id, span, embed)
