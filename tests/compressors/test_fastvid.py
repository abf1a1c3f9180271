"""FastVID as a whole against what the published code made of synthetic videos, and its budgets."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.blocks.dyseg import dyseg
from edgevtc.compressors.blocks.segments import segments_from_start
from edgevtc.compressors.fastvid import FastVID

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("fastvid_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def program(golden, budget: int | None = None) -> FastVID:
    frames, size, _ = golden["tokens"].shape
    names = {"min_segments": "c", "segment_threshold": "tau", "context_share": "d", "anchor_interval": "p"}
    config = {name: golden[key].item() for name, key in names.items()}
    config |= {"neighbours": golden["knn"].item(), "merge_weight": golden["beta"].item()}
    compressor = create("fastvid", frames, size, budget or len(golden["pos"]), **config)
    assert isinstance(compressor, FastVID)
    return compressor


def test_published_positions_and_tokens(golden):
    """Given the published counts, whose per-frame rounding leaves some budget unused."""
    compressor, x = program(golden), torch.from_numpy(golden["tokens"])
    counts = torch.from_numpy(golden["anchor_count"]).float()
    compressor.salient_shares = [int(golden["salient_per_frame"])] * len(x)
    compressor.num_anchors = int(counts.sum())
    segments = dyseg(torch.from_numpy(golden["descriptors"]), int(golden["c"]), float(golden["tau"]))
    # The segments that the published code merges frame by frame, which is mended here.
    alone = torch.zeros_like(segments.start)
    alone[golden["pos"][golden["kind"] == 1] // x.shape[1]] = 1
    segments = segments_from_start(torch.maximum(segments.start, (segments.segment_sum(alone) > 0).float()))
    plan = compressor.merge(x, compressor.salient(torch.from_numpy(golden["saliency"])), counts, segments)
    assert plan.positions.tolist() == golden["pos"].tolist()
    np.testing.assert_allclose(compressor.apply(plan, x), golden["tokens_out"], rtol=0, atol=1e-5)


def test_published_counts_at_whole_tokens_a_frame(golden):
    """At B = T·r: the same salient tokens, and no frame has fewer anchors than where remainders are dropped."""
    frames, size, _ = golden["tokens"].shape
    compressor = program(golden, frames * int(size * golden["retention"]))
    assert compressor.salient_shares == [golden["salient_per_frame"]] * frames
    assert compressor.num_anchors == frames * int(golden["context_per_frame"])
    features = Features(*(torch.from_numpy(golden[key]) for key in ("tokens", "saliency", "descriptors")))
    plan = compressor.plan(features)
    anchors = plan.positions[plan.extra["merged"]] // size
    counts = np.bincount(anchors, minlength=frames)
    assert (counts >= golden["anchor_count"]).all() and (counts[golden["anchor_count"] == 0] == 0).all()


@pytest.mark.parametrize(
    ("budget", "share", "salient", "anchors"),
    [
        (20, 0.0, [3] * 6, 2),
        (20, 0.4, [2] * 6, 8),
        (20, 1.0, [0] * 6, 20),
        (5, 0.4, [0, 1, 0, 1, 0, 1], 2),  # less than a token a frame
        (5, 1.0, [0] * 6, 5),
    ],
)
def test_the_budget_splits_by_the_context_share(budget, share, salient, anchors):
    compressor = create("fastvid", 6, 9, budget, context_share=share)
    assert isinstance(compressor, FastVID)
    assert (compressor.salient_shares, compressor.num_anchors) == (salient, anchors)


def test_merged_weights_sum_to_one(make_clip):
    clip = make_clip((9, 16, 8))
    features = Features(*(torch.from_numpy(clip[key]) for key in ("frame_tokens", "saliency", "frame_features")))
    for budget in (1, 7, 40, 143):
        compressor = create("fastvid", 9, 16, budget)
        out = compressor.apply(compressor.plan(features), torch.ones(9, 16, 2))
        torch.testing.assert_close(out, torch.ones(budget, 2))
