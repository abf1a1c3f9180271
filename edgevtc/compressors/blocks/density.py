"""Density-peak clustering over k nearest neighbours (DPC-KNN), masked and batched, with fixed shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.ranking import precedes

__all__ = ["FAR", "assign_to_centres", "density_peaks", "squared_distances"]

#: Squared distance that stands for "not a neighbour"; exp(−FAR) is 0.
FAR = 1e9


def squared_distances(x: Tensor) -> Tensor:
    """[..., N, N] float32 squared Euclidean distances of x [..., N, D], divided by D; exactly 0 on the diagonal."""
    size, dim = x.shape[-2:]
    # Products need not come out symmetric to the last bit, but mutual neighbours have to tie exactly.
    products = ((x * (-1.0 / dim)) @ x.transpose(-1, -2)).to(torch.float32)
    products = products + products.transpose(-1, -2)
    norms = products.flatten(-2)[..., :: size + 1] * -0.5
    return (products + (norms[..., :, None] + norms[..., None, :])).clamp_min(0)


def density_peaks(
    distance2: Tensor, valid: Tensor, neighbours: int, clusters: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Local density of each token and its score as a cluster centre (Rodriguez and Laio 2014; Du et al. 2016).

    density = exp(−mean of the k smallest squared distances, its own 0 included); score = density × distance to
    the nearest denser token, or to the farthest pair where none is denser. Equal densities: the lower index is
    the denser one.

    Args:
        distance2: [..., N, N] float32 squared distances, below FAR; no NaN between valid tokens and any other.
        valid: [..., N] bool; other tokens are neither neighbours nor centres.
        neighbours: k.
        clusters: [...] number of clusters wanted, which bounds k from above (as the published codes have it).

    Returns:
        density [..., N], 0 where not valid; score [..., N], −1 where not valid.
    """
    # Only columns are masked; what stands in the rows of invalid tokens is masked at the end.
    other = valid[..., None, :]
    near_first = torch.maximum(distance2, torch.where(other, 0.0, FAR))
    k = min(neighbours, distance2.shape[-1])
    near = torch.topk(near_first, k, dim=-1, largest=False).values
    # A product, not a sum: sums of rows depend on where in memory a row lies, and equal tokens have to tie exactly.
    ones = torch.ones(k, dtype=torch.float32, device=near.device)
    if clusters is None:
        mean = near @ ones / k
    else:
        used = clusters.to(torch.float32).clamp(1, k)[..., None, None]
        order = torch.arange(k, dtype=torch.float32, device=near.device)
        mean = torch.where(order < used, near, 0.0) @ ones / used[..., 0]
    density = torch.where(valid, torch.exp(-mean), 0.0)

    to_denser = torch.where(precedes(density), near_first, FAR).amin(-1)
    # A minimum costs a third of the selection it stands for.
    among_valid = torch.minimum(near_first, torch.where(other, FAR, 0.0))
    farthest = torch.where(valid, among_valid.amax(-1), 0.0).amax(-1, keepdim=True)
    score = density * torch.minimum(to_denser, farthest).sqrt()
    return density, torch.where(valid, score, -1.0)


def assign_to_centres(distance2: Tensor, centres: Tensor, members: Tensor) -> Tensor:
    """Send each member to its nearest centre; equal distances to the lower index.

    Args:
        distance2: [..., N, N] float32 squared distances; no NaN in the rows of members.
        centres: [..., N] bool.
        members: [..., N] bool; centres among them go to themselves.

    Returns:
        [..., N] int32 index of the centre, −1 for a token that is no member or where there is no centre.
    """
    size = distance2.shape[-1]
    reach = torch.maximum(distance2, torch.where(centres[..., None, :], 0.0, FAR))
    # Reversed numbers make a plain maximum prefer the lower index, where ArgMin leaves ties open.
    reversed_index = torch.arange(size, 0, -1, dtype=torch.float32, device=distance2.device)
    nearest = (reach <= reach.amin(-1, keepdim=True)).to(torch.float32)
    index = size - (nearest * reversed_index).amax(-1)
    own = torch.arange(size, dtype=torch.float32, device=distance2.device)
    index = torch.where(centres, own, index)
    return torch.where(members & centres.any(-1, keepdim=True), index, -1.0).to(torch.int32)
