"""PruneVid against what the published code made of synthetic videos, and what is its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.prunevid import PruneVid, frame_clusters, repaired_windows

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("prunevid_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def program(golden) -> PruneVid:
    frames, size, _ = golden["tokens"].shape
    config = {"threshold": "tau", "temporal_ratio": "temporal_ratio", "cluster_ratio": "cluster_ratio"}
    config = {name: golden[key].item() for name, key in (config | {"neighbours": "knn"}).items()}
    compressor = create("prunevid", frames, size, len(golden["pos"]), **config)
    assert isinstance(compressor, PruneVid)
    return compressor


def published_counts(golden) -> tuple[torch.Tensor, torch.Tensor]:
    """Clusters of each window, at its first frame, and of each frame."""
    first = np.cumsum(golden["window_lengths"]) - golden["window_lengths"]
    static, dynamic = torch.zeros(2, golden["tokens"].shape[0])
    for window, frame, count in zip(
        golden["group_window"], golden["group_frame"], golden["group_clusters"], strict=True
    ):
        if frame < 0:
            static[first[window]] = float(count)
        else:
            dynamic[frame] = float(count)
    return static, dynamic


def test_the_vectors_are_there():
    assert len(FILES) == 6


def test_published_windows_and_static_positions(golden):
    x = torch.from_numpy(golden["tokens"])
    centre_of = frame_clusters(x.mean(1), len(golden["frame_centres"]), int(golden["knn"]))
    assert (centre_of.numpy() == golden["frame_centres"][golden["frame_labels"]]).all()
    segments, static = program(golden).segment(x)
    assert segments.length[segments.start > 0].tolist() == golden["window_lengths"].tolist()
    assert (static[segments.start > 0].numpy() == golden["static_mask"]).all()


def test_published_positions_clusters_and_tokens(golden):
    compressor, x = program(golden), torch.from_numpy(golden["tokens"])
    segments, static = compressor.segment(x)
    plan = compressor.select(x, torch.zeros(x.shape[:2]), segments, static, *published_counts(golden))
    order = golden["pos"].argsort()
    assert plan.positions.tolist() == golden["pos"][order].tolist()
    np.testing.assert_allclose(compressor.apply(plan, x), golden["tokens_out"][order], rtol=0, atol=1e-5)

    slot_of = np.empty(len(order), dtype=int)
    slot_of[order] = np.arange(len(order))
    first = np.cumsum(golden["window_lengths"]) - golden["window_lengths"]
    member = output = 0
    for window, frame, size, clusters in zip(
        *(golden[f"group_{key}"] for key in ("window", "frame", "size", "clusters")), strict=True
    ):
        frame = first[window] if frame < 0 else frame
        ours = plan.assignment[frame].numpy()[golden["member_pos"][member : member + size]]
        assert (ours == slot_of[output + golden["member_label"][member : member + size]]).all()
        member, output = member + size, output + clusters


def test_shares_follow_the_published_counts(golden):
    compressor = program(golden)
    segments, static = compressor.segment(torch.from_numpy(golden["tokens"]))
    ours, theirs = torch.cat(compressor.share(segments, static)), torch.cat(published_counts(golden))
    assert ours.sum() == theirs.sum()
    # The published ⌊β·n⌋ loses up to a token a group, which is shared out again here.
    assert (ours - theirs).abs().max() <= 1


@pytest.mark.parametrize(
    ("label", "lengths"),
    [
        ([0, 0, 1, 0, 0, 2, 2], [5, 2]),  # a stray frame between runs of one label
        ([0, 0, 1, 2, 2], [3, 2]),  # between equal runs: the earlier one
        ([0, 0, 1, 2, 2, 2], [2, 4]),  # between runs of different length: the longer one
        ([3, 0, 0, 1, 1, 1, 0], [3, 4]),  # strays at both ends
        ([0, 1, 0, 1, 2], [5]),  # no run outlasts one frame
    ],
)
def test_repair_of_windows(label, lengths):
    segments = repaired_windows(torch.tensor(label, dtype=torch.int32))
    assert segments.length[segments.start > 0].tolist() == lengths


def test_merged_weights_sum_to_one(make_clip):
    features = Features(torch.from_numpy(make_clip((9, 16, 8))["frame_tokens"]))
    for budget in (1, 7, 40, 143):
        compressor = create("prunevid", 9, 16, budget)
        out = compressor.apply(compressor.plan(features), torch.ones(9, 16, 2))
        torch.testing.assert_close(out, torch.ones(budget, 2))
