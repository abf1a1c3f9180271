"""Density-peak clustering over k nearest neighbours (DPC-KNN), masked and batched, with fixed shapes."""

from __future__ import annotations

import torch
from torch import Tensor

from edgevtc.compressors.blocks.frames import unit, without_direction
from edgevtc.compressors.blocks.ranking import precedes

__all__ = [
    "FAR",
    "assign_to_centres",
    "cosine_distances",
    "density_peaks",
    "direction_distances",
    "squared_distances",
]

#: Squared distance that stands for "not a neighbour"; exp(−FAR) is 0.
FAR = 1e9

#: Most tiles in which the tokens of a set are multiplied, and fewest tokens of a tile. The product of two tiles is
#: computed once for both orders: four tiles save three eighths of the multiplications, more of them little else.
TILES, TILE = 4, 48


def squared_distances(x: Tensor, valid: Tensor | None = None, damaged: bool = False) -> Tensor:
    """Squared Euclidean distances divided by D, exactly 0 on the diagonal and exactly symmetric.

    Args:
        x: [..., N, D] tokens.
        valid: [..., N] bool; the others are FAR or more from all.
        damaged: Whether those others may hold NaN or Inf, which costs a copy of x.

    Returns:
        [..., N, N] float32. The rows of tokens that are not valid have no meaning.
    """
    size = x.shape[-2]
    products = _products(_centred(_tiles(x, valid if damaged else None)))
    norms = products.flatten(-2)[..., :: size + 1] * -0.5
    other = norms if valid is None else norms + torch.where(valid, 0.0, FAR)
    return (products + (norms[..., :, None] + other[..., None, :])).clamp_min(0)


def cosine_distances(x: Tensor) -> Tensor:
    """1 − cosine of each two tokens x [..., N, D]: [..., N, N] float32 from 0 to 2, exactly symmetric.

    As half the squared distance of the tokens' directions, for a cosine near 1 has no digits left to tell like tokens
    apart. A token shorter than 1e-6 has the cosine 0 with all others.
    """
    directions = unit(x)
    none = without_direction(directions)
    halves = squared_distances(directions) * (x.shape[-1] / 2)
    # Exactly 1, so that they tie.
    return torch.where(none[..., :, None] | none[..., None, :], 1.0, halves)


def direction_distances(x: Tensor, others: Tensor) -> Tensor:
    """As :func:`cosine_distances`, of directions x [..., M, D] and others [..., N, D] that `unit` gave: [..., M, N]."""
    none, other_none = without_direction(x), without_direction(others)
    mean = others.mean(-2, keepdim=True)
    x, others = x - mean, others - mean
    half = torch.full((x.shape[-1], 1), 0.5, device=x.device)
    norms, other_norms = x.square() @ half, others.square() @ half
    halves = norms + other_norms.transpose(-1, -2) - x @ others.transpose(-1, -2)
    return torch.where(none[..., :, None] | other_none[..., None, :], 1.0, halves.clamp_min(0))


def _tiles(x: Tensor, valid: Tensor | None) -> list[Tensor]:
    """The tokens x [..., N, D] in tiles [..., n, D]; one that is not valid is replaced by one of its set that is."""
    size, dim = x.shape[-2:]
    count = min(TILES, max(1, size // TILE))
    # Kernels compute 16 columns at a time. The odd tile comes first, for that is the right-hand side of its own product
    # alone.
    widths = [size // count // 16 * 16] * (count - 1)
    widths.insert(0, size - sum(widths))
    if valid is None:
        return list(x.split(widths, -2))
    sets = valid.reshape(-1, size)
    token = torch.arange(size, dtype=torch.int32, device=x.device)
    row = torch.where(sets, token, torch.where(sets, token, size - 1).amin(1, keepdim=True))
    row = row + size * torch.arange(sets.shape[0], dtype=torch.int32, device=x.device)[:, None]
    flat = x.reshape(-1, dim)
    return [flat.index_select(0, part.reshape(-1)).reshape(*x.shape[:-2], -1, dim) for part in row.split(widths, 1)]


def _centred(tiles: list[Tensor]) -> list[Tensor]:
    """The tokens less what they have in common, which their distances do not depend on and products would drown in.

    Of nearly equal tokens, as a clip without motion is full of, float32 then tells the distances apart, and every
    runtime makes the same of them.
    """
    mean = tiles[0].mean(-2, keepdim=True)
    return [tile - mean for tile in tiles]


def _products(tiles: list[Tensor]) -> Tensor:
    """[..., N, N] float32 −2·x·xᵀ/D of tiles [..., n, D] that make up x, what stands there twice computed once."""
    double = -2.0 / tiles[0].shape[-1]
    rows: list[list[Tensor]] = [[] for _ in tiles]
    for i, mine in enumerate(tiles):
        # Products need not come out symmetric to the last bit, but mutual neighbours have to tie exactly.
        own = ((mine * (double / 2)) @ mine.transpose(-1, -2)).to(torch.float32)
        rows[i].append(own + own.transpose(-1, -2))
        for j in range(i + 1, len(tiles)):
            product = ((mine * double) @ tiles[j].transpose(-1, -2)).to(torch.float32)
            rows[i].append(product)
            rows[j].append(product.transpose(-1, -2))
    return torch.cat([torch.cat(row, -1) for row in rows], -2) if len(tiles) > 1 else rows[0][0]


def density_peaks(
    distance2: Tensor, valid: Tensor, neighbours: int, clusters: Tensor | None = None, farthest: bool = True
) -> tuple[Tensor, Tensor]:
    """Local density of each token and its score as a cluster centre (Rodriguez and Laio 2014; Du et al. 2016).

    density = exp(−mean of the k smallest squared distances, its own 0 included); score = density × distance to
    the nearest denser token, or that of the farthest pair where none is denser. Equal densities: the lower index is
    the denser one.

    Args:
        distance2: [..., N, N] float32 squared distances from `squared_distances` with the same valid tokens: below
            FAR among them, FAR or more to the others.
        valid: [..., N] bool; other tokens are neither neighbours nor centres.
        neighbours: k.
        clusters: [...] number of clusters wanted, which bounds k from above (as the published codes have it).
        farthest: Whether to look for the farthest pair. If not, FAR stands for its squared distance: the densest
            token's score is the largest in either case, and no other is changed.

    Returns:
        density [..., N], 0 where not valid; score [..., N], −1 where not valid.
    """
    # Only columns are masked; what stands in the rows of invalid tokens is masked at the end.
    k = min(neighbours, distance2.shape[-1])
    near = torch.topk(distance2, k, dim=-1, largest=False).values
    # A product, not a sum: sums of rows depend on where in memory a row lies, and equal tokens have to tie exactly.
    order = torch.arange(k, dtype=torch.float32, device=near.device)[:, None]
    used = torch.full_like(order[0], k) if clusters is None else clusters.to(torch.float32).clamp(1, k)[..., None, None]
    mean = (near @ ((order < used).to(torch.float32) / used)).squeeze(-1)
    density = torch.where(valid, torch.exp(-mean), 0.0)

    # An addition costs half of the selection it stands for.
    to_denser = (distance2 + (~precedes(density)).to(torch.float32) * FAR).amin(-1)
    if farthest:
        # So does a minimum.
        among_valid = torch.minimum(distance2, torch.where(valid[..., None, :], FAR, 0.0))
        to_denser = to_denser.minimum(torch.where(valid, among_valid.amax(-1), 0.0).amax(-1, keepdim=True))
    return density, torch.where(valid, density * to_denser.sqrt(), -1.0)


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
