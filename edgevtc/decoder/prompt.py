"""A prompt as decoder rows: text tokens, and the visual tokens where the placeholder stands."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from edgevtc.errors import BundleError

__all__ = ["Rows", "VisualSpan", "assemble"]


@dataclass(frozen=True)
class VisualSpan:
    """The visual tokens of one video as the decoder sees them.

    Attributes:
        key: Identity of the video; equal keys mean equal rows.
        embeddings: [B, hidden], or [B+1, hidden] where a newline embedding closes the video.
        offsets: int64, one a row: RoPE position relative to the span's start, ascending.
        length: RoPE positions the span takes: T·N (+1) for original positions, the number of rows for contiguous.
    """

    key: Hashable
    embeddings: np.ndarray
    offsets: np.ndarray
    length: int


@dataclass(frozen=True)
class Rows:
    """Rows of a sequence, with what identifies each.

    Attributes:
        keys: One a row; rows with equal keys at equal places are the same in a KV cache.
        embeddings: [S, hidden] float32.
        positions: [S] int64 RoPE positions, ascending.
        next_position: RoPE position after the last row.
    """

    keys: list[Hashable]
    embeddings: np.ndarray
    positions: np.ndarray
    next_position: int


def assemble(
    token_ids: Sequence[int], video_token_id: int, video: VisualSpan, embed: Callable[[Sequence[int]], np.ndarray]
) -> Rows:
    """Put the video where its placeholder stands in a tokenized prompt.

    Args:
        token_ids: The rendered chat template, with the placeholder once.
        video_token_id: The placeholder.
        video: What replaces it.
        embed: Token ids → embeddings [len, hidden].

    Raises:
        BundleError: The placeholder is not there exactly once.
    """
    ids = list(token_ids)
    if (found := ids.count(video_token_id)) != 1:
        raise BundleError(
            f"the prompt places the video {found} times instead of once: "
            "mend chat_template.jinja, or keep the video token out of the question"
        )
    at = ids.index(video_token_id)
    head, tail = ids[:at], ids[at + 1 :]
    after = at + video.length
    return Rows(
        keys=[*head, *((video.key, row) for row in range(len(video.offsets))), *tail],
        embeddings=np.concatenate([embed(head), video.embeddings, embed(tail)]).astype(np.float32, copy=False),
        positions=np.concatenate([np.arange(at), at + video.offsets, np.arange(after, after + len(tail))]).astype(
            np.int64
        ),
        next_position=after + len(tail),
    )
