"""FrameFusion (ICCV 2025) as a single step before the LLM: merging by similarity over time, pruning by importance."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.base import LARGEST_TOKEN_VALUE, Compressor, Features, Plan
from edgevtc.compressors.blocks.frames import change_since
from edgevtc.compressors.blocks.ranking import top_mask
from edgevtc.compressors.blocks.slots import folded, raster_slots
from edgevtc.methods.framefusion import FRAMEFUSION

__all__ = ["FrameFusion"]

#: Above every 1 − cosine.
NOT_SIMILAR = 4.0


class FrameFusion(Compressor):
    """FrameFusion (arXiv:2501.01986) in a single step, to exactly B tokens.

    A token merges with the one of its position in the frame before if their cosine reaches S; of more than
    T·N − B such pairs only the most similar ones merge. Tokens that merge one after the other are a run, whose
    mean stands at its first token. Where more than B runs are left, those of the largest mean saliency stay.

    The published code merges anew before every layer of the LLM, with the hidden states there, and prunes by the
    LLM's own attention once few tokens merge. How many stay follows from a cost over all layers there; here it
    is B.
    """

    spec = FRAMEFUSION

    def plan(self, features: Features) -> Plan:
        assert features.saliency is not None
        frames, size = self.num_frames, self.tokens_per_frame
        x = features.frame_tokens.float()
        every = torch.ones_like(x[..., 0], dtype=torch.bool)
        if self.budget == frames * size:
            return Plan(*raster_slots(every, None, self.budget))
        saliency = features.saliency.clamp(-LARGEST_TOKEN_VALUE, LARGEST_TOKEN_VALUE)
        frame = torch.arange(frames, dtype=torch.float32, device=x.device)[:, None]
        start = ~self._merges(x)
        # A run's first frame is the latest start so far.
        lower = torch.ones(frames, frames, dtype=torch.bool, device=x.device).tril()
        first = torch.where(lower[:, :, None] & start[None, :, :], frame[None, :, :], 0.0).amax(1)
        in_run = (first[None, :, :] == frame[:, :, None]).to(torch.float32)
        length = in_run.sum(1)
        importance = (in_run * saliency[None, :, :]).sum(1) / length.clamp_min(1)
        importance = torch.where(start, importance, -2 * LARGEST_TOKEN_VALUE)
        kept = top_mask(importance.reshape(-1), self.budget).reshape(start.shape)

        position = torch.arange(size, dtype=torch.int32, device=x.device)
        row = first.to(torch.int32) * size + position
        is_kept = kept.reshape(-1).index_select(0, row.reshape(-1)).reshape(row.shape)
        positions, assignment = raster_slots(kept, torch.where(is_kept, row, -1), self.budget)
        weight = 1 / length.clamp_min(1).reshape(-1).index_select(0, row.reshape(-1)).reshape(row.shape)
        return Plan(positions, assignment, {"weight": weight})

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        if "weight" not in plan.extra:
            return x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
        return folded(x, plan.assignment, plan.extra["weight"], self.budget)

    def _merges(self, x: Tensor) -> Tensor:
        """[T, N] bool tokens that merge with the one before; none in the first frame."""
        frames, size = x.shape[:2]
        if frames == 1:
            return torch.zeros_like(x[..., 0], dtype=torch.bool)
        change = change_since(x, [0, *range(frames - 1)])[1:]
        change = torch.where(change <= 1 - self.config["threshold"], change, NOT_SIMILAR)
        most = min(frames * size - self.budget, change.numel())
        merges = (change < NOT_SIMILAR) & top_mask(-change.reshape(-1), most).reshape(change.shape)
        return torch.cat([torch.zeros_like(merges[:1]), merges])
