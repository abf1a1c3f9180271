"""VidCom² (EMNLP 2025): frame budgets by uniqueness, tokens by their distance from the video's and the frame's mean."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.base import Features
from edgevtc.compressors.blocks.frames import unit
from edgevtc.compressors.blocks.ranking import compact_by_priority, stable_rank, top_mask
from edgevtc.compressors.selection import Selection
from edgevtc.methods.vidcom2 import VIDCOM2

__all__ = ["VidCom2"]

#: α of the Gaussians exp(−d²/2α) whose sum is a similarity.
WIDTHS = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0)

#: Smaller differences between the weights of frames are float32 noise, enlarged by the temperature, and count as none.
NOISE = 1e-4

#: Puts a frame's first token before the second one of any other; weights lie within a factor of 4 of each other.
FIRST = 1e6


class VidCom2(Selection):
    """Frames that are unlike the video on average have more tokens; a frame keeps those most unlike it and the video.

    The published count of a frame is max(1, round(scale·N)), which sums to something near r·T·N. Here all scales are
    multiplied by the one number at which the counts sum to B (Webster's method): where B is the published sum for
    this retention ratio, that number is 1 and the counts are the published ones. With B < T the frames of largest
    scale have a token each.
    """

    spec = VIDCOM2

    def choose(self, features: Features) -> Tensor:
        video, frame = self.similarities(features.frame_tokens.float())
        counts = self.share(self.scales(video))
        return stable_rank(video + frame, descending=False) < counts[:, None]

    def similarities(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[T, N] similarity of each token of x [T, N, D] to the mean of the video's unit tokens, and of its frame's."""
        tokens = unit(x.index_select(2, self.channels(x)))
        squares = (tokens * tokens).sum(-1)
        frame_mean = tokens.mean(1)
        video_mean = frame_mean.mean(0, keepdim=True).expand_as(frame_mean)
        return _similarity(tokens, squares, video_mean), _similarity(tokens, squares, frame_mean)

    def channels(self, x: Tensor) -> Tensor:
        """Ascending indices int32 of the channels of x [T, N, D] with the lowest variance; at least one."""
        flat = x.reshape(-1, x.shape[-1])
        variance = (flat - flat.mean(0)).square().mean(0)
        return compact_by_priority(-variance, max(1, int(x.shape[-1] * self.config["channel_share"])))

    def scales(self, video: Tensor) -> Tensor:
        """[T] share of its tokens that each frame is to keep, from the similarities to the video [T, N]."""
        # Engines take no softmax of a vector.
        likeness = video.mean(1).reshape(1, -1)
        probability = torch.softmax(-likeness / self.config["temperature"], 1).reshape(-1)
        relative = torch.round((1 + probability - 1 / self.num_frames) / NOISE) * NOISE
        return (self.retention_ratio * relative).clamp_max(1.0)

    def share(self, scales: Tensor) -> Tensor:
        """[T] float32 tokens of each frame, B in all: at the largest factor that allows it, round(factor·scale·N)."""
        size = self.tokens_per_frame
        # Token k of a frame, from 0, comes at the factor where scale·N·factor passes k + ½.
        step = torch.arange(size, dtype=torch.float32, device=scales.device)
        priority = torch.where(step == 0, FIRST, 1 / (step + 0.5)) * scales[:, None]
        return top_mask(priority.reshape(-1), self.budget).reshape(-1, size).sum(1, dtype=torch.float32)


def _similarity(tokens: Tensor, squares: Tensor, mean: Tensor) -> Tensor:
    """Sum of Gaussians [T, N] of the distance of tokens [T, N, D], of squares [T, N], from mean [T, D]."""
    products = (tokens @ mean[..., None]).reshape(squares.shape)
    distance2 = (squares - 2 * products + (mean * mean).sum(-1, keepdim=True)).clamp_min(0)
    return torch.stack([torch.exp(distance2 * (-0.5 / width)) for width in WIDTHS]).sum(0)
