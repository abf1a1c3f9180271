"""DySeg, ATS and DTM against what FastVID's published code made of synthetic videos, given its token counts."""

from pathlib import Path

import numpy as np
import pytest
import torch

from edgevtc.compressors.blocks.ats import salient_tokens
from edgevtc.compressors.blocks.density import density_peaks, squared_distances
from edgevtc.compressors.blocks.dtm import anchors_per_frame, merge_matrix, nearest_anchors, pick_anchors
from edgevtc.compressors.blocks.dyseg import dyseg, neighbour_change
from edgevtc.compressors.blocks.segments import Segments, segments_from_start

pytestmark = pytest.mark.export

GOLDEN = Path(__file__).parent.parent / "data" / "golden"
ONEVISION = sorted(GOLDEN.glob("fastvid_*.npz"))
VIDEO = sorted(GOLDEN.glob("fastvidvideo_*.npz"))
QWEN = sorted(GOLDEN.glob("fastvidqwen_*.npz"))


@pytest.fixture(params=ONEVISION, ids=lambda path: path.stem)
def onevision(request):
    return dict(np.load(request.param))


@pytest.fixture(params=VIDEO, ids=lambda path: path.stem)
def llava_video(request):
    return dict(np.load(request.param))


def test_the_vectors_are_there():
    assert (len(ONEVISION), len(VIDEO), len(QWEN)) == (8, 3, 3)


@pytest.mark.parametrize("path", [*ONEVISION, *VIDEO, *QWEN], ids=lambda path: path.stem)
def test_cuts(path):
    golden = dict(np.load(path))
    descriptors = torch.from_numpy(golden["descriptors"])
    segments = dyseg(descriptors, int(golden["c"]), float(golden["tau"]))
    np.testing.assert_allclose(1 - neighbour_change(descriptors), golden["frame_similarity"], atol=1e-5)
    assert (np.flatnonzero(segments.start[1:]) == golden["cuts"]).all()
    assert (segments.length[segments.start > 0].numpy() == golden["segment_lengths"]).all()


def test_salient_tokens(onevision):
    salient = salient_tokens(
        torch.from_numpy(onevision["saliency"]), len(onevision["tokens"]) * [onevision["salient_per_frame"].item()]
    )
    assert (np.stack([np.flatnonzero(row) for row in salient]) == onevision["salient_idx"]).all()


@pytest.mark.parametrize("path", [*VIDEO, *QWEN], ids=lambda path: path.stem)
def test_salient_tokens_of_differing_counts(path):
    golden = dict(np.load(path))
    salient = salient_tokens(torch.from_numpy(golden["saliency"]), golden["salient_count"].tolist())
    assert (salient == chosen(golden, 0)).all()


def test_density_and_score(onevision):
    salient = chosen(onevision, 0)
    density, score = density_peaks(squared_distances(torch.from_numpy(onevision["tokens"]), ~salient), ~salient, 4)
    np.testing.assert_allclose(density[~salient], onevision["density"][~salient.numpy()], atol=1e-5)
    np.testing.assert_allclose(score[~salient], onevision["density_score"][~salient.numpy()], atol=1e-4)


def test_onevision_anchors_and_merged_tokens(onevision):
    """Every anchor frame absorbs the segment's tokens anew, its own anchors among them."""
    salient, segments = chosen(onevision, 0), segments_of(onevision)
    x = torch.from_numpy(onevision["tokens"])
    anchors = picked(onevision, x, salient, segments)
    assert (anchors == (chosen(onevision, 1) | chosen(onevision, 2))).all()

    # The published code merges some segments frame by frame (kind 1): for those, each frame is a segment.
    alone = torch.zeros_like(segments.start)
    alone[onevision["pos"][onevision["kind"] == 1] // x.shape[1]] = 1
    pools = segments_from_start(torch.maximum(segments.start, (segments.segment_sum(alone) > 0).float()))
    check_merged(onevision, x, anchors, ~salient, pools, members="all")


def test_onevision_anchor_frames_hold_equal_shares(onevision):
    segments = segments_of(onevision)
    context, interval = int(onevision["context_per_frame"]), int(onevision["p"])
    frames = torch.ceil(segments.length / interval)
    # The published code drops the remainder; a budget without one is spread as it is.
    budget = torch.floor(context * segments.length / frames) * frames
    assert (anchors_per_frame(budget, segments, interval).numpy() == onevision["anchor_count"]).all()


def test_video_anchors_and_merged_tokens(llava_video):
    """Own anchors are not absorbed, and the remainder of a segment's budget goes to its latest anchor frames."""
    salient, segments = chosen(llava_video, 0), segments_of(llava_video)
    x = torch.from_numpy(llava_video["tokens"])
    counts = torch.from_numpy(llava_video["anchor_count"]).float()
    spread = anchors_per_frame(segments.segment_sum(counts), segments, int(llava_video["p"]))
    assert (spread == counts).all()
    anchors = picked(llava_video, x, salient, segments)
    assert (anchors == chosen(llava_video, 1)).all()
    check_merged(llava_video, x, anchors, ~salient, segments, members="others")


@pytest.mark.parametrize("path", QWEN, ids=lambda path: path.stem)
def test_qwen_anchors_and_merged_tokens(path):
    """Only some frames of a segment keep tokens there."""
    golden = dict(np.load(path))
    x, salient, segments = torch.from_numpy(golden["tokens"]), chosen(golden, 0), segments_of(golden)
    anchors = picked(golden, x, salient, segments)
    assert (anchors == chosen(golden, 1)).all()
    check_merged(golden, x, anchors, ~salient, segments, members="others")


def segments_of(golden) -> Segments:
    return dyseg(torch.from_numpy(golden["descriptors"]), int(golden["c"]), float(golden["tau"]))


def chosen(golden, kind: int) -> torch.Tensor:
    """[T, N] bool tokens of a kind in the output."""
    mask = torch.zeros(golden["tokens"].shape[:2], dtype=torch.bool)
    mask.view(-1)[golden["pos"][golden["kind"] == kind]] = True
    return mask


def picked(golden, x, salient, segments):
    _, score = density_peaks(squared_distances(x, ~salient), ~salient, int(golden["knn"]))
    return pick_anchors(score, ~salient, torch.from_numpy(golden["anchor_count"]).float(), segments)


def check_merged(golden, x, anchors, pool, segments, members):
    index, _, absorbs = nearest_anchors(x, anchors, pool, segments, int(anchors.sum()), "anchor_frame", members)
    merged = merge_matrix(index, absorbs, float(golden["beta"]), adaptive=True) @ x.reshape(-1, x.shape[-1])
    context = golden["kind"] > 0
    assert (index.numpy() == golden["pos"][context]).all()
    assert (absorbs.sum(1).numpy() == golden["absorbed"][context]).all()
    np.testing.assert_allclose(merged, golden["tokens_out"][context], atol=1e-5)
