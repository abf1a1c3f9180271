"""HoliTom (NeurIPS 2025), the stage before the LLM: temporal merging in optimal windows, then spatial reduction."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgevtc.compressors.base import LARGEST_TOKEN_VALUE, Compressor, Features, Plan, is_sound
from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.density import assign_to_centres, density_peaks, squared_distances
from edgevtc.compressors.blocks.frames import frame_products, squared_lengths
from edgevtc.compressors.blocks.merging import cluster_sums, merge_weights
from edgevtc.compressors.blocks.ranking import compact, largest_of_row, prefix_count, stable_rank, top_mask
from edgevtc.compressors.blocks.segments import Segments, segments_from_start
from edgevtc.compressors.blocks.windows import best_windows, static_positions, still_positions, window_gains
from edgevtc.methods.holitom import HOLITOM

__all__ = ["HoliTom"]

#: Saliency of a token that may not be chosen, below every sanitized one.
NEVER = -2 * LARGEST_TOKEN_VALUE


@dataclass
class _Groups:
    """Sets of tokens to be clustered, each laid out as one frame.

    Attributes:
        weights: [W, T] the frame of a group is this mixture of the clip's frames; the groups from W on, T or none, are
            the clip's frames as they are. None where W is 0.
        origin: [G, T] one-hot frame in which the group's centres are kept; zero for a group not in use.
        valid: [G, N] bool tokens of the group.
        clusters: [G] whole numbers.
        of_token: [T, N] int32 group that each token would be in; some group for those in none.
        member: [T, N] bool, whether it is in one.
        target_frame: [T, N] int32 frame in which that group's centres are kept.
    """

    weights: Tensor | None
    origin: Tensor
    valid: Tensor
    clusters: Tensor
    of_token: Tensor
    member: Tensor
    target_frame: Tensor


class HoliTom(Compressor):
    """Static positions become one token a window and are clustered; of the others each frame keeps the salient ones.

    The published code keeps a number of tokens that depends on the video. Here the budget is shared among its
    groups (the static positions of a window, the dynamic ones of a frame) in proportion to their sizes, as there,
    but by largest remainder. Where the video has fewer distinct tokens than the budget, the most salient of those
    that were merged over time are kept on their own as well, so that there are always exactly B tokens.

    A damaged token (NaN, Inf, or longer than 6e4) counts as zeros, and its position is merged in no window of the
    clip: so the clip's values need not be replaced, which would cost as much as finding the windows.
    """

    spec = HOLITOM

    #: Whether a group of few clusters looks at as few neighbours.
    neighbours_within_clusters = True

    @property
    def passes_over_damage(self) -> bool:
        """Where windows are all that is merged; a frame's own clusters need its values."""
        merges = self.num_frames > 1 and self.budget < self.num_frames * self.tokens_per_frame
        return merges and not self.config["context_share"]

    def plan(self, features: Features) -> Plan:
        x = features.frame_tokens.float()
        if self.budget == self.num_frames * self.tokens_per_frame:
            every = torch.arange(self.budget, dtype=torch.int32, device=x.device)
            return Plan(every, every.reshape(self.num_frames, self.tokens_per_frame))
        assert features.saliency is not None
        segments, static = self.segment(x)
        return self.select(x, features.saliency, segments, static, *self.share(segments, static))

    def apply(self, plan: Plan, x: Tensor) -> Tensor:  # type: ignore[override]
        tokens = x.reshape(-1, x.shape[-1]).index_select(0, plan.positions)
        if "label" not in plan.extra:
            return tokens
        # Rows are chosen by number: a selection between two tables takes more passes over them.
        table = torch.cat([tokens, self._merged(plan, x), torch.zeros_like(tokens[:1])])
        slot, is_merged = torch.arange(self.budget, dtype=torch.int32, device=x.device), plan.extra["is_merged"]
        row = torch.where(is_merged, self.budget + slot, slot)
        if self.passes_over_damage:
            row = torch.where(is_merged | is_sound(tokens), row, 2 * self.budget)
        return table.index_select(0, row)

    def _merged(self, plan: Plan, x: Tensor) -> Tensor:
        """[B, D] merged token of each slot that is a cluster's; others have no meaning."""
        group, position = plan.extra["group"], plan.positions % self.tokens_per_frame
        label, weight = plan.extra["label"], plan.extra["token_weight"]
        parts = self._laid_out(plan.extra.get("group_weights"), x)
        if len(parts) == 1:
            return cluster_sums(parts[0], label, weight, group, position)
        mixed, clip = parts
        count = len(mixed)
        of_mixed = cluster_sums(mixed, label[:count], weight[:count], group.clamp_max(count - 1), position)
        of_clip = cluster_sums(clip, label[count:], weight[count:], (group - count).clamp_min(0), position)
        return torch.where((group >= count)[:, None], of_clip, of_mixed)

    def segment(self, x: Tensor) -> tuple[Segments, Tensor]:
        """The windows of x [T, N, D] and the static positions [T, N] bool, the same on all frames of a window."""
        products = frame_products(x)
        # A NaN fails the comparison.
        sound = squared_lengths(products, self.num_frames).T <= LARGEST_TOKEN_VALUE**2
        still = still_positions(products, self.num_frames, self.config["threshold"]) & sound.all(0)
        segments = segments_from_start(best_windows(window_gains(still), self.config["max_window"])[0])
        return segments, static_positions(still, segments)

    def share(self, segments: Segments, static: Tensor) -> tuple[Tensor, Tensor]:
        """Static tokens to keep of each window, at its first frame, and dynamic ones of each frame: twice [T]."""
        static_size = static.sum(1, dtype=torch.float32)
        of_window = static_size * segments.start
        sizes = torch.cat([of_window, self.tokens_per_frame - static_size])
        if not self.config["min_static"]:
            shares = apportion(sizes, sizes, self.budget)
        else:
            first = ((of_window > 0) & (stable_rank(of_window) < self.budget)).to(torch.float32)
            first = torch.cat([first, torch.zeros_like(first)])
            shares = first + apportion(sizes, sizes - first, self.budget - first.sum())
        return shares[: self.num_frames], shares[self.num_frames :]

    def select(
        self,
        x: Tensor,
        saliency: Tensor,
        segments: Segments,
        static: Tensor,
        static_count: Tensor,
        dynamic_count: Tensor,
    ) -> Plan:
        """The plan for given counts, as from :meth:`share`."""
        saliency = saliency.clamp(-LARGEST_TOKEN_VALUE, LARGEST_TOKEN_VALUE)
        salient_count = torch.round(dynamic_count * (1 - self.config["context_share"]))
        salient = ~static & largest_of_row(torch.where(static, NEVER, saliency), salient_count)
        rest, context_count = ~static & ~salient, dynamic_count - salient_count
        groups = self._groups(segments, static, static_count, rest, context_count)
        # Merged over time but worth keeping where the clip has fewer distinct tokens than the budget.
        repeated = static & (segments.start == 0)[:, None]
        if groups is None:
            kept = self._keep(salient, repeated, saliency)
            positions, slot = self._slots(kept, torch.zeros_like(kept))
            return Plan(positions, slot, segments=segments.number)

        # No copy of the clip is made only to have it beside the mixtures. What a damaged token has spoilt is never
        # valid; here ends what it does to others.
        parts = self._laid_out(groups.weights, x)
        valid = groups.valid.split([len(part) for part in parts])
        damaged = self.passes_over_damage
        distances = [squared_distances(part, among, damaged) for part, among in zip(parts, valid, strict=True)]
        distance2 = torch.cat(distances) if len(distances) > 1 else distances[0]
        bound = groups.clusters if self.neighbours_within_clusters else None
        _, score = density_peaks(distance2, groups.valid, self.config["neighbours"], bound, farthest=False)
        chosen = groups.valid & largest_of_row(score, groups.clusters)
        label = assign_to_centres(distance2, chosen, groups.valid)
        centre = groups.origin.T @ chosen.to(torch.float32) > 0
        kept = self._keep(salient | centre, repeated, saliency)
        positions, slot = self._slots(kept, centre & static)

        size = self.tokens_per_frame
        row = (groups.of_token * size + torch.arange(size, dtype=torch.int32, device=x.device)).reshape(-1)
        own_centre = label.reshape(-1).index_select(0, row)
        target = groups.target_frame.reshape(-1) * size + own_centre.clamp_min(0)
        joined = torch.where(
            groups.member.reshape(-1) & (own_centre >= 0), slot.reshape(-1).index_select(0, target), -1
        )
        extra = {
            **({} if groups.weights is None else {"group_weights": groups.weights}),
            "label": label,
            "token_weight": merge_weights(
                label, self.config["merge_weight"] if self.config["merge"] == "beta" else None
            ),
            "group": groups.of_token.reshape(-1).index_select(0, positions),
            "is_merged": centre.reshape(-1).index_select(0, positions),
        }
        return Plan(positions, torch.where(kept, slot, joined.reshape(slot.shape)), extra, segments.number)

    def _groups(
        self, segments: Segments, static: Tensor, static_count: Tensor, rest: Tensor, context_count: Tensor
    ) -> _Groups | None:
        """Static positions by window and, where the method has a contextual share, what is left of each frame."""
        frames = self.num_frames
        frame = torch.arange(frames, dtype=torch.int32, device=static.device)[:, None].expand_as(static)
        # Static positions need two frames, so half as many windows can have some.
        slots = frames // 2
        of_frames = None
        if self.config["context_share"] > 0:
            identity = torch.eye(frames, device=static.device)
            of_frames = _Groups(None, identity, rest, context_count, frame + slots, rest, frame)
        if not slots:
            return of_frames
        begins = segments.start * (segments.length > 1)
        number = torch.ones(frames, frames, device=static.device).tril() @ begins - 1
        slot = torch.arange(slots, dtype=torch.float32, device=static.device)
        pick = (slot[:, None] == number[None, :]).to(torch.float32) * begins
        of_windows = _Groups(
            weights=pick @ segments.mean_weights(),
            origin=pick,
            valid=pick @ static.to(torch.float32) > 0,
            clusters=pick @ static_count,
            of_token=number.clamp_min(0).to(torch.int32)[:, None].expand_as(static),
            member=static,
            target_frame=segments.first.to(torch.int32)[:, None].expand_as(static),
        )
        return of_windows if of_frames is None else _joined(of_windows, of_frames)

    def _laid_out(self, weights: Tensor | None, x: Tensor) -> list[Tensor]:
        """The groups' frames: mixtures [W, N, D] of x [T, N, D] by weights [W, T], and x itself; or one of both."""
        mixed = [] if weights is None else [(weights.to(x.dtype) @ x.flatten(1)).reshape(-1, *x.shape[1:])]
        return [*mixed, x] if self.config["context_share"] > 0 else mixed

    def _keep(self, selected: Tensor, repeated: Tensor, saliency: Tensor) -> Tensor:
        """[T, N] bool with exactly B entries: the selected tokens, then the most salient repeated ones."""
        priority = torch.where(selected, -NEVER, torch.where(repeated, saliency, NEVER))
        return top_mask(priority.reshape(-1), self.budget).reshape(selected.shape)

    def _slots(self, kept: Tensor, static_centre: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [B] int32 of the output slots in order; slot [T, N] int32 of each kept token, −1 elsewhere."""
        size = self.tokens_per_frame
        if self.config["order"] == "raster":
            order = prefix_count(kept.reshape(-1)).reshape(kept.shape)
            positions = compact(kept.reshape(-1), self.budget)
        else:
            # A frame is written twice, for what comes first and what follows.
            halves = torch.stack([kept & static_centre, kept & ~static_centre], 1)
            both = prefix_count(halves.reshape(-1)).reshape(halves.shape)
            order = torch.where(static_centre, both[:, 0], both[:, 1])
            index = compact(halves.reshape(-1), self.budget)
            frame = torch.div(index, 2 * size, rounding_mode="floor")
            positions = frame * size + (index - frame * 2 * size) % size
        return positions, torch.where(kept, order - 1, -1.0).to(torch.int32)


def _joined(first: _Groups, second: _Groups) -> _Groups:
    """Both lists of groups, the second without mixtures; a token is a member in one of them at most."""
    return _Groups(
        weights=first.weights,
        origin=torch.cat([first.origin, second.origin]),
        valid=torch.cat([first.valid, second.valid]),
        clusters=torch.cat([first.clusters, second.clusters]),
        of_token=torch.where(first.member, first.of_token, second.of_token),
        member=first.member | second.member,
        target_frame=torch.where(first.member, first.target_frame, second.target_frame),
    )
