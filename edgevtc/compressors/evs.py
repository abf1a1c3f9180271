"""EVS: efficient video sampling, tokens that differ most from the one before them at their place."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.base import Features
from edgevtc.compressors.blocks.frames import change_since, even_steps
from edgevtc.compressors.blocks.ranking import top_mask
from edgevtc.compressors.selection import Selection
from edgevtc.methods.evs import EVS as SPEC

__all__ = ["EVS"]

#: Changes lie between 0 and 2.
ALWAYS, NEVER = 3.0, -1.0


class EVS(Selection):
    """The whole first frame, then the tokens of largest 1 − cosine with the frame before; equal ones by lower index.

    The published method never keeps fewer than N tokens, of which at B = N all are in the first frame. Below N,
    so that something is left to see of the later frames, the first one keeps its fair share ⌈B/T⌉, at even steps
    over the raster, and the changes have the rest.
    """

    spec = SPEC

    def choose(self, features: Features) -> Tensor:
        frames, size = self.num_frames, self.tokens_per_frame
        change = change_since(features.frame_tokens.float(), [0, *range(frames - 1)])
        in_first = size if self.budget >= size else -(-self.budget // frames)
        first = torch.full((size,), NEVER, device=change.device)
        first[even_steps(size, in_first)] = ALWAYS
        frame = torch.arange(frames, device=change.device)[:, None]
        return top_mask(torch.where(frame == 0, first, change).reshape(-1), self.budget).reshape(frames, size)
