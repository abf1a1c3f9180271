"""FlashVID against what the published code made of synthetic videos, and what is its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create
from edgevtc.compressors.blocks.dyseg import dyseg
from edgevtc.compressors.flashvid import FlashVID, Trees

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("flashvid_0*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def program(golden, **config) -> FlashVID:
    """A compressor that selects as many tokens a frame as the file says."""
    frames, size, _ = golden["tokens"].shape
    budget = frames * int(golden["n_adts"] + golden["n_sttm"])
    names = {"segment_threshold": "segment_threshold", "temporal_threshold": "temporal_threshold"}
    config |= {name: golden[key].item() for name, key in (names | {"min_segments": "min_segments"}).items()}
    compressor = create("flashvid", frames, size, budget, selection=str(golden["method"]), **config)
    assert isinstance(compressor, FlashVID)
    compressor.selected_shares = [int(golden["n_adts"])] * frames
    return compressor


def stages(golden, compressor):
    x = torch.from_numpy(golden["tokens"])
    segments = dyseg(x.mean(1), compressor.config["min_segments"], compressor.config["segment_threshold"])
    selected = compressor.select(x, torch.from_numpy(golden["saliency"]), segments)
    return x, segments, selected, compressor.trees(x, selected, segments)


def test_the_vectors_are_there():
    assert len(FILES) == 6


def test_published_segments_selection_and_roots(golden):
    _, segments, selected, trees = stages(golden, program(golden))
    assert segments.length[segments.start > 0].tolist() == golden["segment_lengths"].tolist()
    assert (np.stack([np.flatnonzero(row) for row in selected]) == golden["adts_idx"]).all()
    roots = (trees.root == torch.arange(trees.root.shape[0])).reshape(selected.shape)
    # In a segment of one frame the published code clusters the selected tokens too.
    alone = (segments.length == 1)[:, None]
    assert torch.equal(roots & (~selected | alone), torch.from_numpy(golden["roots"]))


def test_published_clusters_and_tokens(golden):
    compressor = program(golden, tree_divisor="children")
    x, _, _, trees = stages(golden, compressor)
    roots = torch.from_numpy(golden["roots"])
    features = trees.sums(x) / (1 + trees.children).reshape(*roots.shape, 1)
    np.testing.assert_allclose(features[roots], golden["root_tokens"], rtol=0, atol=1e-5)

    counts = torch.from_numpy(golden["cluster_count"]).float()
    chosen, label, weight = compressor.cluster(x, trees, roots, counts)
    clustered = golden["kind"] == 1
    centres = golden["pos"][clustered]
    order = centres.argsort()
    assert chosen.reshape(-1).nonzero()[:, 0].tolist() == centres[order].tolist()
    size = roots.shape[1]
    for centre, expected in zip(centres[order], golden["tokens_out"][clustered][order], strict=True):
        frame, position = divmod(int(centre), size)
        member_roots = (label[frame] == position).nonzero()[:, 0] + frame * size
        members = torch.isin(trees.root, member_roots).nonzero()[:, 0]
        weights = weight.reshape(-1)[trees.root[members].long()]
        merged = (weights[:, None] * x.reshape(-1, x.shape[-1])[members]).sum(0)
        np.testing.assert_allclose(merged, expected, rtol=0, atol=1e-5)


def test_trees_of_a_small_clip():
    # 1 ← 1 ← 0 over three frames, and 0 ← 2 in the last two.
    link = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 1]], dtype=torch.bool)
    parent = torch.tensor([[0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=torch.int32)
    trees = Trees(link, parent)
    assert trees.root.tolist() == [0, 1, 2, 3, 1, 5, 1, 7, 3]
    assert trees.members.tolist() == [1, 3, 1, 2, 0, 1, 0, 1, 0]
    assert trees.children.tolist() == [0, 1, 0, 1, 1, 0, 0, 0, 0]
    sums = trees.sums(torch.arange(9.0).reshape(3, 3, 1)).reshape(-1)
    assert sums[[0, 1, 2, 3]].tolist() == [0, 1 + 4 + 6, 2, 3 + 8]


def test_a_merged_token_is_the_mean_of_its_trees_means(make_clip):
    clip = make_clip((9, 16, 8))
    features = Features(torch.from_numpy(clip["frame_tokens"]), torch.from_numpy(clip["saliency"]))
    for budget in (1, 7, 40, 143):
        compressor = create("flashvid", 9, 16, budget, min_segments=2)
        plan = compressor.plan(features)
        torch.testing.assert_close(compressor.apply(plan, torch.ones(9, 16, 2)), torch.ones(budget, 2))
        alone = plan.counts() == 1
        tokens = features.frame_tokens.reshape(-1, 8)[plan.positions.long()]
        torch.testing.assert_close(compressor.apply(plan, features.frame_tokens)[alone], tokens[alone])


def test_identical_frames_keep_roots_enough():
    tokens = torch.randn(1, 9, 8, generator=torch.Generator().manual_seed(0)).expand(6, -1, -1)
    plan = create("flashvid", 6, 9, 40, min_segments=1).plan(Features(tokens, torch.rand(6, 9)))
    assert plan.positions.unique().shape == (40,)
