"""InfoMerge as its paper tells it: loops, lists, singular values, shapes that depend on the data; float64.

Only the rounding of the segment budgets is the documented one (largest remainder with floor and caps), since the
paper's does not add up to the budget. Every choice reports how close it was, relative to the values compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

__all__ = ["Reference", "infomerge"]

TINY = 1e-30


@dataclass
class Reference:
    """What was chosen: segments, salient and anchor positions, the members of each anchor, tokens, and the margin."""

    segments: list[list[int]] = field(default_factory=list)
    salient: set[tuple[int, int]] = field(default_factory=set)
    members: dict[tuple[int, int], list[tuple[int, int]]] = field(default_factory=dict)
    budgets: list[int] = field(default_factory=list)
    tokens: dict[tuple[int, int], np.ndarray] = field(default_factory=dict)
    margin: float = math.inf

    def close(self, a: float, b: float) -> None:
        """Take note that a choice hung on a being larger than b; equal ones are ties of the data, not of rounding."""
        if a == b:
            return
        self.margin = min(self.margin, abs(a - b) / max(abs(a), abs(b), TINY))


def infomerge(x, saliency, frame_features, budget, config) -> Reference:
    x, saliency = x.astype(np.float64), saliency.astype(np.float64)
    frames, size, _ = x.shape
    out = Reference()
    out.segments = dyseg(out, frame_features.astype(np.float64), config)
    salient = (1 - config["context_share"]) * budget
    salient_of = [math.floor(salient / frames + 1e-9)] * frames
    if salient_of[0] == 0:  # below a token a frame they are spread over the clip
        number = math.floor(salient + 1e-9)
        for i in range(number if budget - number <= frames * (size - 1) else 0):
            salient_of[int((i + 0.5) * frames / number)] = 1
    total, salient_per_frame = budget - sum(salient_of), max(salient_of)
    # Every frame's density looks at as many neighbours as the fullest frame has.
    config = {**config, "neighbours": min(config["neighbours"], size - salient_per_frame)}
    interval = config["anchor_interval"]
    while total > math.ceil(frames / interval) * (size - salient_per_frame):
        interval -= 1

    static = [static_positions(out, x[segment], config) for segment in out.segments]
    replaced = x.copy()
    for segment, fixed in zip(out.segments, static, strict=True):
        taken: set[int] = set()
        for t in segment:
            row = saliency[t].copy()
            drop = config["penalty"] * max(np.std(row, ddof=1), 1e-6)
            for p in taken:
                row[p] -= drop
            picked = largest(out, row, salient_of[t])
            out.salient |= {(t, p) for p in picked}
            taken |= set(picked) & fixed
            for p in taken:
                replaced[t, p] = x[segment, p].mean(0)
    for t, p in out.salient:
        out.tokens[t, p] = replaced[t, p]

    out.budgets = segment_budgets(out, x, total, interval, salient_per_frame, config)
    for segment, fixed, share in zip(out.segments, static, out.budgets, strict=True):
        merge_segment(out, replaced, segment, fixed, share, interval, config)
    return out


def cosine(a, b) -> float:
    return float(a @ b / (max(np.linalg.norm(a), 1e-6) * max(np.linalg.norm(b), 1e-6)))


def largest(out: Reference, values, count: int) -> list[int]:
    """Indices of the `count` largest, ties to the lower index."""
    order = sorted(range(len(values)), key=lambda i: (-values[i], i))
    if 0 < count < len(order):
        out.close(values[order[count - 1]], values[order[count]])
    return sorted(order[:count])


def dyseg(out: Reference, features, config) -> list[list[int]]:
    similarity = [cosine(features[t], features[t + 1]) for t in range(len(features) - 1)]
    for value in similarity:
        out.close(value, config["segment_threshold"])
    cuts = set(largest(out, [-value for value in similarity], min(config["min_segments"] - 1, len(similarity))))
    cuts |= {t for t, value in enumerate(similarity) if value < config["segment_threshold"]}
    segments = [[0]]
    for t in range(1, len(features)):
        if t - 1 in cuts:
            segments.append([])
        segments[-1].append(t)
    return segments


def static_positions(out: Reference, tokens, config) -> set[int]:
    length, size, _ = tokens.shape
    count = math.floor(config["static_share"] * size + 1e-9)
    if length == 1 or count == 0:
        return set()
    dynamics = []
    for p in range(size):
        fingerprint = [[cosine(tokens[a, p], tokens[b, p]) for b in range(length)] for a in range(length)]
        changes = [abs(fingerprint[a + 1][b] - fingerprint[a][b]) for a in range(length - 1) for b in range(length)]
        dynamics.append(sum(changes) / ((length - 1) * length))
    return set(largest(out, [-value for value in dynamics], count))


def segment_budgets(out: Reference, x, total, interval, salient_per_frame, config) -> list[int]:
    segments, size = out.segments, x.shape[1]
    means = [x[segment].mean((0, 1)) for segment in segments]
    everything = x.mean((0, 1))
    uniqueness, richness = [], []
    for segment, mean in zip(segments, means, strict=True):
        uniqueness.append(1 - cosine(mean, everything))
        values = np.linalg.svd(x[segment].reshape(-1, x.shape[2]), compute_uv=False)
        energy = values**2 / max((values**2).sum(), TINY)
        energy = energy[energy > 0]
        rank = min(len(segment) * size, x.shape[2])
        richness.append(float(-(energy * np.log(energy)).sum() / math.log(rank)))
    merit = config["uniqueness_weight"] * zscores(uniqueness) + config["richness_weight"] * zscores(richness)
    weights = [
        len(segment) / (1 + math.exp(-config["temperature"] * m)) for segment, m in zip(segments, merit, strict=True)
    ]
    caps = [math.ceil(len(segment) / interval) * (size - salient_per_frame) for segment in segments]
    return shares(out, weights, caps, total)


def zscores(values) -> np.ndarray:
    values = np.array(values)
    deviation = values.std()
    return (values - values.mean()) / deviation if deviation > 1e-6 else np.zeros_like(values)


def shares(out: Reference, weights, caps, total) -> list[int]:
    """Largest remainder: the floor of 1 first (to the heaviest, where it does not reach all), then real quotas."""
    order = sorted(range(len(weights)), key=lambda k: (-weights[k], k))
    floors = [int(order.index(k) < total) for k in range(len(weights))]
    if total < len(weights):
        out.close(weights[order[total - 1]], weights[order[total]])
    low, high = 0.0, 1e6
    for _ in range(200):
        middle = (low + high) / 2
        fill = sum(min(max(middle * w, f), c) for w, f, c in zip(weights, floors, caps, strict=True))
        low, high = (middle, high) if fill <= total else (low, middle)
    quotas = [min(max(low * w, f), c) for w, f, c in zip(weights, floors, caps, strict=True)]
    result = [math.floor(quota + 1e-9) for quota in quotas]
    remainders = [quota - part for quota, part in zip(quotas, result, strict=True)]
    open_groups = [k for k in range(len(weights)) if result[k] < caps[k]]
    open_groups.sort(key=lambda k: (-remainders[k], -weights[k], k))
    left = total - sum(result)
    if 0 < left < len(open_groups):
        a, b = open_groups[left - 1], open_groups[left]
        out.margin = min(out.margin, abs(remainders[a] - remainders[b]) / max(quotas[a], quotas[b]))
    for k in open_groups[:left]:
        result[k] += 1
    return result


def merge_segment(out: Reference, x, segment, fixed, share, interval, config) -> None:
    anchor_frames = segment[::-1][::interval]
    counts = {t: share // len(anchor_frames) + (i < share % len(anchor_frames)) for i, t in enumerate(anchor_frames)}
    anchors: list[tuple[int, int]] = []
    used: set[int] = set()
    for t in sorted(anchor_frames):
        free = [p for p in range(x.shape[1]) if (t, p) not in out.salient]
        score = density_scores(out, x[t, free], config["neighbours"])
        level = [s - (1e4 if p in used else 0) for p, s in zip(free, score, strict=True)]
        picked = [free[i] for i in largest(out, level, counts[t])]
        used |= set(picked) & fixed
        anchors += [(t, p) for p in picked]

    members: dict[tuple[int, int], list[tuple[int, int]]] = {anchor: [] for anchor in anchors}
    for token in ((t, p) for t in segment for p in range(x.shape[1])):
        if token in out.salient or token in members or not anchors:
            continue
        similarity = [cosine(x[token], x[anchor]) for anchor in anchors]
        members[anchors[largest(out, similarity, 1)[0]]].append(token)
    for anchor, absorbed in members.items():
        out.tokens[anchor] = x[anchor]
        if absorbed:
            weight = max(config["merge_weight"], 1 / (len(absorbed) + 1))
            mean = np.mean([x[token] for token in absorbed], 0)
            out.tokens[anchor] = weight * x[anchor] + (1 - weight) * mean
    out.members.update(members)


def density_scores(out: Reference, tokens, neighbours) -> list[float]:
    count = len(tokens)
    k = min(neighbours, count)
    distance2 = [[float(((a - b) ** 2).sum()) / len(a) for b in tokens] for a in tokens]
    density = [math.exp(-sum(sorted(row)[:k]) / k) for row in distance2]
    farthest = max(max(row) for row in distance2)
    scores = []
    for i in range(count):
        denser = [j for j in range(count) if density[j] > density[i] or (density[j] == density[i] and j < i)]
        near = min([distance2[i][j] for j in denser], default=farthest)
        scores.append(density[i] * math.sqrt(near))
        # The order of two densities matters only where it decides the nearest denser token.
        for j in range(count):
            if j != i and distance2[i][j] <= near:
                out.close(density[i], density[j])
    return scores
