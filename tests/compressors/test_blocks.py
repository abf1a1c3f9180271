"""The shared building blocks against plain programs with lists, sorts and loops."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgevtc.compressors.blocks.apportion import apportion
from edgevtc.compressors.blocks.density import (
    FAR,
    assign_to_centres,
    cosine_distances,
    density_peaks,
    squared_distances,
)
from edgevtc.compressors.blocks.frames import frame_products
from edgevtc.compressors.blocks.merging import cluster_sums, merge_weights
from edgevtc.compressors.blocks.ranking import (
    compact,
    compact_by_priority,
    histogram,
    kth_largest,
    largest_of_row,
    one_hot,
    precedes,
    prefix_count,
    stable_rank,
    top_mask,
)
from edgevtc.compressors.blocks.segments import segments_from_cuts, segments_from_start
from edgevtc.compressors.blocks.windows import best_windows, static_positions, still_positions, window_gains

pytestmark = pytest.mark.export

quick = settings(max_examples=40, deadline=None, derandomize=True)
# Few distinct values, so that ties are the rule.
tied = st.lists(st.integers(-3, 3), min_size=1, max_size=40).map(lambda v: torch.tensor(v, dtype=torch.float32))


@quick
@given(values=tied, descending=st.booleans())
def test_stable_rank(values, descending):
    order = torch.sort(values, descending=descending, stable=True).indices
    assert stable_rank(values, descending).long()[order].tolist() == list(range(len(values)))


def test_precedes():
    values = torch.tensor([1.0, 3.0, 1.0])
    assert precedes(values).tolist() == [[False, True, False], [False, False, False], [True, True, False]]
    upward = [[False, False, False], [True, False, True], [True, False, False]]
    assert precedes(values, descending=False).tolist() == upward


@quick
@given(mask=st.lists(st.booleans(), min_size=1, max_size=200))
def test_prefix_count(mask):
    assert prefix_count(torch.tensor(mask)).tolist() == [sum(mask[: i + 1]) for i in range(len(mask))]


def test_one_hot_of_an_index_out_of_range_is_zero():
    index = torch.tensor([[2, -1], [0, 3]], dtype=torch.int32)
    assert one_hot(index, 3).tolist() == [[[0, 0, 1], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]]]


@quick
@given(values=tied, data=st.data())
def test_top_mask(values, data):
    budget = data.draw(st.integers(1, len(values)))
    assert torch.equal(top_mask(values, budget), stable_rank(values) < budget)


@quick
@given(values=tied, data=st.data())
def test_largest_of_row(values, data):
    rows, counts = torch.stack([values, values.flip(0)]), [data.draw(st.integers(0, len(values))) for _ in "ab"]
    chosen = largest_of_row(rows, torch.tensor(counts, dtype=torch.float32))
    assert torch.equal(chosen, stable_rank(rows) < torch.tensor(counts)[:, None])


@quick
@given(values=tied, data=st.data())
def test_compact_by_priority_takes_the_largest_and_of_ties_the_first(values, data):
    budget = data.draw(st.integers(1, len(values)))
    order = torch.sort(values, descending=True, stable=True)
    assert kth_largest(values, budget) == order.values[budget - 1]
    assert compact_by_priority(values, budget).tolist() == sorted(order.indices[:budget].tolist())


@pytest.mark.parametrize("budget", [3839, 3840, 3841, 5000, 7000, 9999, 10816])
@pytest.mark.parametrize("distinct", [3, 10**6])
def test_selection_beyond_the_limit_of_topk(budget, distinct):
    values = torch.randint(0, distinct, (10816,), generator=torch.Generator().manual_seed(budget)).float()
    chosen = torch.sort(values, descending=True, stable=True).indices[:budget].sort().values
    assert torch.equal(compact_by_priority(values, budget), chosen.int())
    mask = torch.zeros(10816, dtype=torch.bool).scatter(0, chosen, True)
    assert torch.equal(compact(mask, budget), chosen.int())


@quick
@given(index=st.lists(st.integers(-1, 149), min_size=1, max_size=300), size=st.integers(1, 150))
def test_histogram(index, size):
    assert histogram(torch.tensor(index, dtype=torch.int32), size).tolist() == [index.count(i) for i in range(size)]


@quick
@given(cuts=st.lists(st.booleans(), max_size=12))
def test_segments(cuts):
    runs, frames = [[0]], len(cuts) + 1
    for t, cut in enumerate(cuts):
        if cut:
            runs.append([])
        runs[-1].append(t + 1)
    segments = segments_from_cuts(torch.tensor(cuts, dtype=torch.bool))
    of = {t: (number, run) for number, run in enumerate(runs) for t in run}
    assert segments.count == len(runs)
    assert segments.start.tolist() == [float(of[t][1][0] == t) for t in range(frames)]
    assert segments.end.tolist() == [float(of[t][1][-1] == t) for t in range(frames)]
    assert segments.index.tolist() == [of[t][0] for t in range(frames)]
    assert segments.length.tolist() == [len(of[t][1]) for t in range(frames)]
    assert segments.first.tolist() == [of[t][1][0] for t in range(frames)]
    assert segments.last.tolist() == [of[t][1][-1] for t in range(frames)]
    x = torch.arange(frames * 6, dtype=torch.float32).reshape(frames, 2, 3)
    torch.testing.assert_close(segments.segment_sum(x), torch.stack([x[of[t][1]].sum(0) for t in range(frames)]))
    torch.testing.assert_close(segments.segment_mean(x), torch.stack([x[of[t][1]].mean(0) for t in range(frames)]))


@settings(quick, max_examples=150)
@given(data=st.data(), floor=st.sampled_from([0, 1]))
def test_apportion_keeps_floors_caps_and_total(data, floor):
    caps = torch.tensor(data.draw(st.lists(st.integers(0, 30), min_size=1, max_size=12)), dtype=torch.float32)
    scale = data.draw(st.sampled_from([1.0, 1e-4, 1e5]))
    weights = data.draw(st.lists(st.sampled_from([0.0, 1.0, 1.5, 40.0]), min_size=len(caps), max_size=len(caps)))
    weights = torch.where(caps > 0, torch.tensor(weights) * scale, 0.0)
    total = data.draw(st.integers(0, int(caps.sum()) + 3))
    share = apportion(weights, caps, total if data.draw(st.booleans()) else torch.tensor(total), floor)
    assert torch.equal(share, share.round()) and (share >= 0).all() and (share <= caps).all()
    assert share.sum() == min(total, int(caps.sum()))
    if floor and total >= (caps > 0).sum():
        assert (share[caps > 0] >= 1).all()
    if not floor and (weights == 0).all():
        filled = (caps.cumsum(0).clamp_max(total)).diff(prepend=torch.zeros(1))
        assert torch.equal(share, filled)


@quick
@given(sizes=st.lists(st.integers(0, 200), min_size=1, max_size=20), data=st.data())
def test_apportion_is_the_largest_remainder_method(sizes, data):
    total = data.draw(st.integers(0, sum(sizes)))
    quotas = [Fraction(size * total, max(1, sum(sizes))) for size in sizes]
    expected = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(sizes)), key=lambda i: (expected[i] - quotas[i], -sizes[i], i))
    for i in by_remainder[: total - sum(expected)]:
        expected[i] += 1
    caps = torch.tensor(sizes, dtype=torch.float32)
    ours = apportion(caps, caps, total).tolist()
    # Equal remainders of unequal sizes may round apart in float32.
    remainders = {i: quotas[i] - int(quotas[i]) for i in range(len(sizes))}
    for i, (share, exact) in enumerate(zip(ours, expected, strict=True)):
        assert share == exact or sum(remainders[j] == remainders[i] for j in remainders) > 1
    assert all(abs(share - quota) < 1 for share, quota in zip(ours, quotas, strict=True))


@pytest.mark.parametrize("size", [7, 100, 169, 196, 250])
def test_distances_in_tiles(size):
    x = torch.randn(3, size, 6, generator=torch.Generator().manual_seed(size))
    valid = torch.rand(3, size, generator=torch.Generator().manual_seed(1)) < 0.7
    expected = torch.cdist(x.double(), x.double()).square() / 6
    every = squared_distances(x)
    torch.testing.assert_close(every.double(), expected, rtol=1e-5, atol=1e-5)
    damaged = torch.where(valid[..., None], x, float("nan"))
    for found in (squared_distances(x, valid), squared_distances(damaged, valid, damaged=True)):
        for g, distance2 in enumerate(found):
            among = distance2[valid[g]][:, valid[g]]
            torch.testing.assert_close(among.double(), expected[g][valid[g]][:, valid[g]], rtol=1e-5, atol=1e-5)
            assert (among == among.T).all() and (among.diagonal() == 0).all()
            assert (distance2[valid[g]][:, ~valid[g]] >= FAR).all()


@pytest.mark.parametrize("size", [40, 196])
def test_distances_of_nearly_equal_tokens_are_not_noise(size):
    generator = torch.Generator().manual_seed(size)
    x = torch.randn(64, generator=generator) + 1e-3 * torch.randn(2, size, 64, generator=generator)
    expected = torch.cdist(x.double(), x.double(), compute_mode="donot_use_mm_for_euclid_dist").square() / 64
    torch.testing.assert_close(squared_distances(x).double(), expected, rtol=1e-3, atol=1e-12)


def test_cosine_distances():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, generator=generator) + 1e-3 * torch.randn(2, 50, 64, generator=generator)
    x[1, :2] = 0  # without a direction
    x[1, 3] *= -5
    units = torch.nn.functional.normalize(x.double(), dim=-1, eps=1e-6)
    expected = (units[:, :, None] - units[:, None, :]).square().sum(-1) / 2
    expected[1, :2] = expected[1, :, :2] = 1
    torch.testing.assert_close(cosine_distances(x).double(), expected, rtol=1e-2, atol=1e-12)
    assert torch.equal(cosine_distances(x), cosine_distances(x).transpose(1, 2))


def plain_density_peaks(x, neighbours, clusters):
    """DPC-KNN on a list of tokens, float64: densities, scores, centres, centre of each."""
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist") / x.shape[1] ** 0.5
    k = max(1, min(neighbours, clusters, len(x)))
    density = torch.exp(-(distance**2).sort(1).values[:, :k].mean(1)).tolist()
    score = []
    for i, own in enumerate(density):
        denser = [distance[i, j].item() for j, other in enumerate(density) if (other, -j) > (own, -i)]
        score.append(own * min([*denser, distance.max().item()]))
    centres = sorted(sorted(range(len(x)), key=lambda i: (-score[i], i))[:clusters])
    nearest = [min(centres, key=lambda c: (distance[i, c].item(), c)) if i not in centres else i for i in range(len(x))]
    return density, score, centres, nearest


@pytest.mark.parametrize("seed", range(12))
def test_masked_density_peaks_equal_those_of_the_valid_tokens_alone(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 20, 6, generator=generator)
    valid = torch.rand(3, 20, generator=generator) < 0.7
    clusters = torch.tensor([2.0, 5.0, 3.0])
    distance2 = squared_distances(x, valid)
    density, score = density_peaks(distance2, valid, 4, clusters)
    centres = valid & (stable_rank(score) < clusters[:, None])
    near = density_peaks(distance2, valid, 4, clusters, farthest=False)[1]
    assert (centres == (valid & (stable_rank(near) < clusters[:, None]))).all()
    label = assign_to_centres(distance2, centres, valid)
    assert (density[~valid] == 0).all() and (score[~valid] == -1).all() and (label[~valid] == -1).all()
    for g in range(3):
        index = valid[g].nonzero()[:, 0]
        # Two clusters make mutual neighbours tie exactly, which cdist's rounding would break: use the same distances.
        expected = plain_density_peaks(x[g, index].double(), 4, int(clusters[g]))
        torch.testing.assert_close(density[g, index], torch.tensor(expected[0]), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(score[g, index], torch.tensor(expected[1]), rtol=1e-4, atol=1e-5)
        assert centres[g].nonzero()[:, 0].tolist() == index[expected[2]].tolist()
        assert label[g, index].tolist() == index[expected[3]].tolist()


def test_equal_tokens_tie_to_the_lower_index():
    assert (squared_distances(torch.ones(1, 5, 4)) == 0).all()
    valid = torch.tensor([[False, True, True, True, True]])
    distance2 = squared_distances(torch.ones(1, 5, 4), valid)
    _, score = density_peaks(distance2, valid, 2)
    centres = valid & (stable_rank(score) < 2)
    assert centres[0].tolist() == [False, True, True, False, False]
    assert assign_to_centres(distance2, centres, valid)[0].tolist() == [-1, 1, 2, 1, 1]


@quick
@given(data=st.data())
def test_cluster_sums(data):
    groups, size = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 30))
    clusters = data.draw(st.integers(0, size - 1))
    labels = st.lists(st.integers(-1, clusters), min_size=size, max_size=size)
    label = torch.tensor([data.draw(labels) for _ in range(groups)], dtype=torch.int32)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(groups, size, 3, generator=generator, dtype=torch.float64)
    weight = torch.rand(groups, size, generator=generator)
    wanted = [(g, c) for g in range(groups) for c in sorted(set(label[g].tolist()) - {-1})]
    if wanted:
        group, cluster = torch.tensor(wanted, dtype=torch.int32).unbind(1)
        expected = [(x[g] * weight[g].double()[:, None])[label[g] == c].sum(0) for g, c in wanted]
        torch.testing.assert_close(cluster_sums(x, label, weight, group, cluster), torch.stack(expected))


def test_merge_weights():
    label = torch.tensor([[0, 0, 2, 0, -1, 5]], dtype=torch.int32)
    beta = [0.6, 0.2, 1.0, 0.2, 0.0, 1.0]
    torch.testing.assert_close(merge_weights(label, 0.6), torch.tensor([beta]))
    mean = [1 / 3, 1 / 3, 1.0, 1 / 3, 0.0, 1.0]
    torch.testing.assert_close(merge_weights(label, None), torch.tensor([mean]))


def plain_windows(still, longest):
    """HoliTom's recursion: starts of the windows, tokens saved."""
    frames = len(still)
    best, choice = [0] * (frames + 1), [0] * (frames + 1)
    for end in range(1, frames + 1):
        best[end], choice[end] = best[end - 1], end - 1
        for width in range(2, min(end, longest) + 1):
            saved = int(still[end - width + 1 : end].all(0).sum()) * (width - 1)
            if best[end - width] + saved > best[end]:
                best[end], choice[end] = best[end - width] + saved, end - width
    starts, end = [], frames
    while end:
        end = choice[end]
        starts.append(end)
    return sorted(starts), best[frames]


@settings(quick, max_examples=100)
@given(
    frames=st.integers(1, 13),
    size=st.integers(1, 6),
    share=st.sampled_from([0.0, 0.5, 0.8, 0.95, 1.0]),
    longest=st.sampled_from([1, 2, 3, 1024]),
    seed=st.integers(0, 10**6),
)
def test_best_windows(frames, size, share, longest, seed):
    still = torch.rand(frames, size, generator=torch.Generator().manual_seed(seed)) < share
    start, saved = best_windows(window_gains(still), longest)
    assert (start.nonzero()[:, 0].tolist(), saved.item()) == plain_windows(still, longest)
    segments = segments_from_start(start)
    static = static_positions(still, segments)
    assert (static * (1 - start)[:, None]).sum() == saved


def test_still_positions():
    x = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [3.0, 4.0]], [[2.0, 0.0], [0.0, 0.0], [4.0, 3.0]]])
    # Cosines 1, 0 (a zero token resembles nothing) and 0.96.
    assert still_positions(frame_products(x), 2, 0.95).tolist() == [[False] * 3, [True, False, True]]
    assert still_positions(frame_products(x), 2, 0.97).tolist() == [[False] * 3, [True, False, False]]
    assert still_positions(frame_products(x), 2, 0.0).tolist() == [[False] * 3, [True, False, True]]
    assert still_positions(frame_products(x[:1]), 1, 0.0).tolist() == [[False] * 3]
