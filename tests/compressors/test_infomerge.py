"""InfoMerge as a whole: how the budget is split, what is replaced and merged, and its options."""

import itertools

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.blocks.segments import segments_from_start
from edgevtc.compressors.infomerge import segment_merit, standardize, temporal_feature_dynamics
from edgevtc.errors import ConfigError
from edgevtc.exporter.contract import check_graph
from edgevtc.exporter.vision import export_compressor
from edgevtc.methods import method_spec

pytestmark = pytest.mark.export

# Every option once away from its default.
OPTIONS = [
    {"dtm_scope": "anchor_frame"},
    {"dtm_scope": "anchor_frame", "dtm_members": "all"},
    {"dtm_members": "all"},
    {"dtm_features": "original"},
    {"merge_weighting": "fixed", "merge_weight": 0.2},
    {"richness": "renyi2"},
    {"richness": "sketch64"},
    {"penalty_deviation": "population"},
    {"context_share": 0.0},
    {"context_share": 1.0},
    {"static_share": 0.0},
    {"static_share": 1.0},
    {"min_segments": 1, "segment_threshold": -1.0},
    {"anchor_interval": 1, "neighbours": 1},
    {"richness_weight": 0.0, "uniqueness_weight": 0.0},
]


def scenes(lengths, size=16, dim=40, seed=0, still=0.5):
    """Features of scenes with a share of positions that stay; one descriptor a scene."""
    rng = np.random.default_rng(seed)
    tokens, descriptors = [], []
    for number, length in enumerate(lengths):
        moving = rng.random((size, 1)) >= still
        scene = rng.standard_normal((size, dim))
        tokens += [scene + moving * rng.standard_normal((size, dim)) for _ in range(length)]
        descriptors += [np.eye(len(lengths))[number]] * length
    x = torch.tensor(np.array(tokens), dtype=torch.float32)
    saliency = torch.tensor(rng.random(x.shape[:2]), dtype=torch.float32)
    return Features(x, saliency, torch.tensor(np.array(descriptors), dtype=torch.float32))


def run(features, budget, **config):
    """The compressor, its plan and its tokens."""
    frames, size, _ = features.frame_tokens.shape
    compressor = create("infomerge", frames, size, budget, **({"min_segments": 1} | config))
    plan = compressor.plan(features)
    return compressor, plan, compressor.apply(plan, features.frame_tokens)


def kept_per_frame(plan, size):
    return torch.bincount(plan.positions.long() // size, minlength=plan.assignment.shape[0]).tolist()


@pytest.mark.parametrize(
    ("retention", "row"),
    [(0.02, (2.0, 0.05)), (0.05, (2.0, 0.05)), (0.1, (1.2, 0.1)), (0.15, (1.2, 0.09)), (0.5, (1.2, 0.09))],
)
def test_hyper_parameters_follow_the_retention_ratio(retention, row):
    config = method_spec("infomerge").configure(retention)
    assert (config["temperature"], config["static_share"]) == row
    assert (config["penalty"], config["uniqueness_weight"], config["richness_weight"]) == (12, 0.9, 0.1)


def test_salient_tokens_in_every_frame_and_anchors_in_every_fourth():
    compressor, plan, _ = run(scenes([8]), 40)
    # ⌊0.6·40/8⌋ = 3 salient tokens a frame leave 16 anchors for the last frame and the fourth before it.
    assert (compressor.salient_shares, compressor.num_anchors) == ([3] * 8, 16)
    assert kept_per_frame(plan, 16) == [3, 3, 3, 11, 3, 3, 3, 11]


def test_less_than_a_token_a_frame_still_has_its_share_of_salient_ones():
    compressor, plan, _ = run(scenes([8]), 6)
    # ⌊0.6·6⌋ = 3 of eight frames, and 3 anchors in two.
    assert compressor.salient_shares == [0, 1, 0, 0, 1, 0, 1, 0]
    assert kept_per_frame(plan, 16) == [0, 1, 0, 1, 1, 0, 1, 2]


@pytest.mark.parametrize(("frames", "size", "budget", "share"), [(6, 1, 4, 0.4), (6, 1, 6, 0.4), (8, 3, 20, 0.9)])
def test_anchors_that_would_not_fit_beside_salient_tokens_are_all_there_is(frames, size, budget, share):
    compressor, plan, _ = run(scenes([frames], size=size), budget, context_share=share)
    assert (sum(compressor.salient_shares), len(plan.positions.unique())) == (0, budget)


def test_anchor_frames_move_closer_where_they_could_not_hold_the_anchors():
    compressor, plan, _ = run(scenes([8]), 120)
    assert compressor.anchor_interval == 1
    assert plan.positions.shape == (120,)


def test_a_unique_segment_gets_more_anchors_than_its_share():
    features = scenes([4, 4, 4], still=1.0)
    features.frame_tokens[4:8] = features.frame_tokens[:4]
    features.frame_tokens[8:] *= -1
    _, plan, _ = run(features, 36)
    kept = [sum(kept_per_frame(plan, 16)[start : start + 4]) for start in (0, 4, 8)]
    assert kept[2] > kept[0] and abs(kept[0] - kept[1]) <= 1


def test_alike_segments_share_by_length():
    features = scenes([8, 4], still=1.0)
    features.frame_tokens[:] = features.frame_tokens[:1]
    _, plan, _ = run(features, 84)
    kept = kept_per_frame(plan, 16)
    # 4 salient tokens a frame; of 36 anchors two thirds are the longer segment's, but for richness, by rank.
    anchors = sum(kept[:8]) - 32, sum(kept[8:]) - 16
    assert sum(anchors) == 36 and 22 <= anchors[0] <= 26


def test_a_static_salient_token_becomes_its_segments_mean():
    features = scenes([3, 3])
    compressor, plan, tokens = run(features, 24, static_share=0.5, penalty=0.0, context_share=0.0)
    x = features.frame_tokens
    static = compressor._static(x, segments_from_start(torch.tensor([1.0, 0, 0, 1, 0, 0])))
    means = x.reshape(2, 3, 16, 40).mean(1).repeat_interleave(3, 0)
    expected = torch.where(static[..., None], means, x).reshape(-1, 40)[plan.positions.long()]
    torch.testing.assert_close(tokens, expected)
    assert 0 < static.reshape(-1)[plan.positions.long()].sum() < 24


def test_the_penalty_spreads_salient_tokens_over_positions():
    features = scenes([8], still=1.0)
    features.saliency[:] = features.saliency[:1].sort().values
    distinct = {}
    for penalty in (0.0, 12.0):
        _, plan, _ = run(features, 16, penalty=penalty, static_share=1.0, context_share=0.0)
        distinct[penalty] = len(set((plan.positions % 16).tolist()))
    assert distinct == {0.0: 2, 12.0: 16}


def test_every_token_of_a_segment_merges_within_it():
    features = scenes([3, 5])
    _, plan, _ = run(features, 30)
    assert plan.assignment.min() == 0
    frames = plan.positions.reshape(-1)[plan.assignment.reshape(-1).long()].reshape(8, 16) // 16
    assert (frames[:3] < 3).all() and (frames[3:] >= 3).all()
    assert int(plan.counts().sum()) == 8 * 16


def test_merged_tokens_are_weighted_means():
    features = scenes([4], dim=6)
    _, plan, tokens = run(features, 6, context_share=1.0, static_share=0.0)
    flat = features.frame_tokens.reshape(-1, 6)
    for slot, position in enumerate(plan.positions.tolist()):
        members = [i for i in (plan.assignment.reshape(-1) == slot).nonzero().flatten().tolist() if i != position]
        expected = 0.6 * flat[position] + 0.4 * flat[members].mean(0)
        torch.testing.assert_close(tokens[slot], expected)


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()))
@pytest.mark.parametrize("budget", [1, 5, 31, 95])
def test_exact_budget_under_every_option(options, budget):
    features = scenes([1, 3, 2])
    compressor, plan, tokens = run(features, budget, **options)
    assert (plan.positions[1:] > plan.positions[:-1]).all() and plan.positions.shape == (budget,)
    assert plan.counts().min() >= 1
    # Rows of weights sum to one: a clip of ones stays one.
    ones = compressor.apply(plan, torch.ones_like(features.frame_tokens))
    torch.testing.assert_close(ones, torch.ones_like(ones))
    torch.testing.assert_close(compressor.apply(plan, 3 * features.frame_tokens), 3 * tokens)


def test_options_matter():
    features = scenes([2, 6])
    chosen = [OPTIONS[i] for i in (0, 1, 3, 4)]
    results = [run(features, 24, static_share=0.5, **options)[2] for options in ({}, *chosen)]
    assert not any(torch.equal(a, b) for a, b in itertools.combinations(results, 2))


@pytest.mark.parametrize("dim", [8, 24])
def test_one_frame(dim):
    _, plan, tokens = run(scenes([1], dim=dim), 5)
    assert tokens.shape == (5, dim) and int(plan.counts().sum()) == 16


def test_static_positions_are_the_steadiest_by_lower_index():
    features = scenes([4], still=1.0)
    features.frame_tokens[:, ::2] += torch.randn(4, 8, 40, generator=torch.Generator().manual_seed(0))
    compressor, _, _ = run(features, 20, static_share=0.25)
    static = compressor._static(features.frame_tokens, segments_from_start(torch.tensor([1.0, 0, 0, 0])))
    assert [row.nonzero().flatten().tolist() for row in static] == [[1, 3, 5, 7]] * 4


def test_temporal_feature_dynamics_of_a_step():
    # Cosines 1, 0, 0 to the first frame: |0−1| + |1−0| + |1−0| over the first step, none over the second.
    x = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[0.0, 3.0]]])
    assert temporal_feature_dynamics(x, segments_from_start(torch.tensor([1.0, 0, 0]))).flatten().tolist() == [0.5] * 3
    alone = temporal_feature_dynamics(x, segments_from_start(torch.tensor([1.0, 1, 0])))
    assert alone.flatten().tolist() == [0, 0, 0]


def test_standardize_weighs_segments_not_frames():
    segments = segments_from_start(torch.tensor([1.0, 0, 0, 1]))
    assert standardize(torch.tensor([3.0, 3, 3, 1]), segments).tolist() == [1, 1, 1, -1]
    assert standardize(torch.tensor([3.0, 3, 3, 3 + 4e-7]), segments).tolist() == [0, 0, 0, 0]


def test_merit_of_a_single_segment_is_zero():
    x = torch.randn(3, 4, 8, generator=torch.Generator().manual_seed(0))
    assert segment_merit(x, segments_from_start(torch.tensor([1.0, 0, 0])), 0.9, 0.1).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"context_share": 1.5}, "context_share"),
        ({"dtm_scope": "frame"}, "segment, anchor_frame"),
        ({"anchor_interval": 0}, "anchor_interval"),
        ({"rho": 0.1}, "static_share"),
    ],
)
def test_errors_name_what_is_valid(config, named):
    with pytest.raises(ConfigError, match=named):
        create("infomerge", 4, 9, 8, **config)


def test_graph_of_the_options(tmp_path):
    options = {"richness": "sketch64", "dtm_scope": "anchor_frame", "dtm_members": "all", "dtm_features": "original"}
    features = scenes([2, 2], dim=96)
    compressor, plan, tokens = run(features, 20, static_share=0.5, **options)
    inputs = {name: getattr(features, name) for name in compressor.spec.needs}
    model = export_compressor(compressor, {name: tuple(value.shape) for name, value in inputs.items()})
    assert check_graph(model, "compressor") == []
    ir.save(model, tmp_path / "infomerge.onnx")
    session = ort.InferenceSession(tmp_path / "infomerge.onnx", providers=["CPUExecutionProvider"])
    got = session.run(None, {name: value.numpy() for name, value in inputs.items()})
    np.testing.assert_allclose(got[0], tokens, atol=1e-5)
    np.testing.assert_array_equal(got[1], plan.positions)
    np.testing.assert_array_equal(got[3], plan.assignment)
