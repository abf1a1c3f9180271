"""Density-peak clustering over k nearest neighbours (DPC-KNN), masked and batched, with fixed shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.ranking import one_hot, precedes

__all__ = ["FAR", "assign_to_centres", "density_peaks", "squared_distances"]

#: Squared distance that stands for "not a neighbour"; exp(−FAR) is 0.
FAR = 1e9


def squared_distances(x: Tensor) -> Tensor:
    """[..., N, N] float32 squared Euclidean distances of x [..., N, D], divided by D; exactly 0 on the diagonal."""
    products = (x @ x.transpose(-1, -2)).to(torch.float32)
    identity = torch.eye(x.shape[-2], dtype=torch.bool, device=x.device)
    norms = torch.where(identity, products, torch.zeros_like(products)).sum(-1)
    distance2 = (norms[..., :, None] + norms[..., None, :] - 2 * products).clamp_min(0) / x.shape[-1]
    return torch.where(identity, torch.zeros_like(distance2), distance2)


def density_peaks(
    distance2: Tensor, valid: Tensor, neighbours: int, clusters: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Local density of each token and its score as a cluster centre (Rodriguez and Laio 2014; Du et al. 2016).

    density = exp(−mean of the k smallest squared distances, its own 0 included); score = density × distance to
    the nearest denser token, or to the farthest pair where none is denser. Equal densities: the lower index is
    the denser one.

    Args:
        distance2: [..., N, N] float32 squared distances.
        valid: [..., N] bool; other tokens are neither neighbours nor centres.
        neighbours: k.
        clusters: [...] number of clusters wanted, which bounds k from above (as the published codes have it).

    Returns:
        density [..., N], 0 where not valid; score [..., N], −1 where not valid.
    """
    size = distance2.shape[-1]
    pairs = valid[..., :, None] & valid[..., None, :]
    distance2 = torch.where(pairs, distance2, torch.full_like(distance2, FAR))
    k = min(neighbours, size)
    near = torch.topk(distance2, k, dim=-1, largest=False).values
    if clusters is None:
        mean = near.sum(-1) / k
    else:
        used = clusters.to(torch.float32).clamp(1, k)[..., None, None]
        order = torch.arange(k, dtype=torch.float32, device=near.device)
        mean = torch.where(order < used, near, torch.zeros_like(near)).sum(-1) / used[..., 0]
    zero = torch.zeros_like(mean)
    density = torch.where(valid, torch.exp(-mean), zero)

    denser = precedes(density) & pairs
    to_denser = torch.where(denser, distance2, torch.full_like(distance2, FAR)).amin(-1)
    farthest = torch.where(pairs, distance2, torch.zeros_like(distance2)).amax((-2, -1))[..., None]
    score = density * torch.minimum(to_denser, farthest).sqrt()
    return density, torch.where(valid, score, zero - 1)


def assign_to_centres(distance2: Tensor, centres: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
    """Send each member to its nearest centre; equal distances to the lower index.

    Args:
        distance2: [..., N, N] float32 squared distances.
        centres: [..., N] bool.
        members: [..., N] bool; centres among them go to themselves.

    Returns:
        index [..., N] int32 of the centre, −1 for a token that is no member or where there is no centre;
        one-hot [..., N, N] float32 of it, rows are members, columns centres.
    """
    size = distance2.shape[-1]
    arange = torch.arange(size, dtype=torch.float32, device=distance2.device)
    own = torch.eye(size, dtype=torch.bool, device=distance2.device)
    reach = torch.where(centres[..., None, :], distance2, torch.full_like(distance2, FAR))
    reach = torch.where(own & centres[..., None, :], torch.full_like(distance2, -1.0), reach)
    nearest = reach <= reach.amin(-1, keepdim=True)
    # Reversed numbers make a plain maximum prefer the lower index, where ArgMin leaves ties open.
    index = size - torch.where(nearest, size - arange, torch.zeros_like(reach)).amax(-1)
    some = members & centres.any(-1, keepdim=True)
    index = torch.where(some, index, torch.full_like(index, -1.0)).to(torch.int32)
    return index, one_hot(index, size)
