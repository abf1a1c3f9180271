"""VisionZip against what the published code made of synthetic clips."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors import Features, create

pytestmark = pytest.mark.export

FILES = sorted((Path(__file__).parents[1] / "data" / "golden").glob("visionzip_*.npz"))


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def golden(request):
    return dict(np.load(request.param))


def program(golden, **config):
    frames, size, _ = golden["tokens"].shape
    share = golden["dominant"] / golden["tokens_per_frame"]
    if int(golden["tokens_per_frame"] * 54 / 64) != golden["dominant"]:
        config["dominant_share"] = float(share)
    return create("visionzip", frames, size, len(golden["pos"]), **config)


def features(golden):
    tokens, saliency, keys = (torch.from_numpy(golden[key]) for key in ("tokens", "saliency", "metric"))
    return Features(tokens, saliency, None, keys)


def test_all_files_are_here():
    assert len(FILES) == 6


def test_published_choice(golden):
    dominant, target = program(golden).choose(torch.from_numpy(golden["saliency"]))
    for ours, theirs in ((dominant, golden["dominant_idx"]), (target, golden["target_idx"])):
        assert [row.nonzero()[:, 0].tolist() for row in ours] == theirs.tolist()


def test_published_members_and_features(golden):
    compressor, given = program(golden), features(golden)
    plan = compressor.plan(given)
    order = golden["pos"].argsort()
    assert plan.positions.tolist() == golden["pos"][order].tolist()
    size, kept = golden["tokens"].shape[1], plan.positions
    own = kept[plan.assignment.long()] % size
    target = np.take_along_axis(golden["target_idx"], golden["assigned"].clip(0), 1)
    merged = golden["assigned"] >= 0
    assert (own.numpy()[merged] == target[merged]).all()
    slots = plan.assignment.numpy()[np.arange(len(own))[:, None], golden["target_idx"]]
    assert (plan.counts().numpy()[slots] == golden["merged_count"] + 1).all()
    np.testing.assert_allclose(compressor.apply(plan, given.frame_tokens), golden["tokens_out"][order], atol=1e-5)


def test_mean_divides_by_all_members(make_clip):
    clip = {name: torch.from_numpy(value) for name, value in make_clip((5, 16, 8)).items()}
    given = Features(clip["frame_tokens"], clip["saliency"], None, clip["keys"])
    compressor = create("visionzip", 5, 16, 22, merge="mean", dominant_share=0.5)
    plan = compressor.plan(given)
    out = compressor.apply(plan, given.frame_tokens)
    for slot in range(22):
        torch.testing.assert_close(out[slot], given.frame_tokens[plan.assignment == slot].mean(0))
    assert plan.counts().sum() == 5 * 16
    assert [int(n) for n in (plan.positions // 16).bincount()] == [4, 4, 5, 4, 5]


def test_without_contextual_tokens_the_rest_is_dropped(make_clip):
    clip = {name: torch.from_numpy(value) for name, value in make_clip((3, 16, 8)).items()}
    given = Features(clip["frame_tokens"], clip["saliency"], None, clip["keys"])
    plan = create("visionzip", 3, 16, 12, dominant_share=1.0).plan(given)
    salient = clip["saliency"].topk(4).indices + 16 * torch.arange(3)[:, None]
    assert plan.positions.tolist() == sorted(salient.flatten().tolist())
    assert plan.counts().tolist() == [1] * 12
