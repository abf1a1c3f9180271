"""USTC against a plain program written from the paper's description: loops, lists and float64."""

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from engine_builder import CAPABILITIES, build_engine

from edgevtc.compressors import Features, create
from edgevtc.compressors.ustc import dissimilar_tokens
from edgevtc.exporter.contract import check_graph
from edgevtc.exporter.vision import export_compressor

pytestmark = pytest.mark.export

VIDEOS = 60


def ustc(x: np.ndarray, saliency: np.ndarray, budget: int, config: dict):
    """Pooled raster indices; centre → its members; margin of the closest choice."""
    dim = x.shape[2]
    flat = x.reshape(-1, dim).astype(np.float64)
    unit = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    order = sorted(range(len(flat)), key=lambda i: (-saliency.reshape(-1)[i], i))
    clusters = round(config["cluster_share"] * budget)
    margins = [1.0]
    pool: list[int] = []
    for token in order:
        if len(pool) == budget - clusters:
            break
        closest = max((unit[token] @ unit[other] for other in pool), default=-1.0)
        margins.append(abs(closest - config["threshold"]))
        if closest < config["threshold"]:
            pool.append(token)
    pool += [token for token in order if token not in pool][: budget - clusters - len(pool)]
    rest = [token for token in range(len(flat)) if token not in pool]
    if not clusters:
        return set(pool), {}, min(margins)

    candidates = sorted(rest, key=lambda i: (-saliency.reshape(-1)[i], i))[: max(config["candidates"], clusters)]
    distance2 = {(i, j): np.square(flat[i] - flat[j]).mean() for i in candidates for j in candidates}
    near = min(config["neighbours"], len(candidates))
    density = {i: np.exp(-np.mean(sorted(distance2[i, j] for j in candidates)[:near])) for i in candidates}
    farthest = max(distance2.values()) ** 0.5
    score = {}
    for i in candidates:
        denser = [distance2[i, j] ** 0.5 for j in candidates if (-density[j], j) < (-density[i], i)]
        score[i] = density[i] * min(denser, default=farthest)
    ranked = sorted(candidates, key=lambda i: (-score[i], i))
    if clusters < len(ranked):
        margins.append(score[ranked[clusters - 1]] - score[ranked[clusters]])
    members: dict[int, list[int]] = {centre: [centre] for centre in sorted(ranked[:clusters])}
    for token in rest:
        if token not in members:
            distances = sorted((np.square(flat[token] - flat[centre]).mean(), centre) for centre in members)
            if clusters > 1:
                margins.append(distances[1][0] - distances[0][0])
            members[distances[0][1]].append(token)
    return set(pool), members, min(margins)


def video(rng: np.random.Generator):
    frames, size, dim = rng.integers(1, 8), rng.integers(4, 17), rng.integers(4, 12)
    scene = rng.standard_normal((size, dim))
    x = scene + rng.choice([0.2, 0.6, 2.0]) * rng.standard_normal((frames, size, dim))
    return x.astype(np.float32), rng.random((frames, size)).astype(np.float32)


def test_equals_the_plain_program():
    rng = np.random.default_rng(1)
    compared = short = merged = 0
    for number in range(VIDEOS):
        x, saliency = video(rng)
        frames, size, _ = x.shape
        budget = int(rng.integers(1, frames * size * 2 // 3 + 1))
        config = {
            "threshold": float(rng.choice([0.3, 0.7])),
            "cluster_share": float(rng.choice([0.0, 0.3, 1.0])),
            "candidates": int(rng.choice([frames * size // 3 + 1, 2048])),
        }
        # Candidates bound the pool of `pruned` too; the plain program draws it from all tokens.
        config["program"] = ("parallel", "loop")[number % 2]
        compressor = create("ustc", frames, size, budget, **config)
        features = Features(torch.from_numpy(x), torch.from_numpy(saliency))
        plan = compressor.plan(features)
        pool, members, margin = ustc(x, saliency, budget, compressor.config)
        if margin < 1e-5:
            continue
        assert set(plan.positions.tolist()) == pool | set(members), f"video {number}"
        slots, tokens = sorted(pool | set(members)), compressor.apply(plan, features.frame_tokens)
        for slot, token in enumerate(slots):
            group = members.get(token, [token])
            assert (plan.assignment == slot).reshape(-1).nonzero()[:, 0].tolist() == sorted(group), f"video {number}"
            expected = x.reshape(-1, x.shape[-1])[group].mean(0)
            np.testing.assert_allclose(tokens[slot], expected, rtol=0, atol=1e-5)
        compared += 1
        short += (
            bool(pool)
            and not dissimilar_tokens(
                torch.from_numpy(x.reshape(frames * size, -1)),
                torch.from_numpy(saliency.reshape(-1)),
                config["threshold"],
            )[list(pool)].all()
        )
        merged += any(len(group) > 1 for group in members.values())
    assert compared > 0.9 * VIDEOS and short > 5 and merged > 10


def test_programs_choose_alike_while_candidates_last(make_clip):
    clip = make_clip((12, 36, 16))
    features = Features(torch.from_numpy(clip["frame_tokens"]), torch.from_numpy(clip["saliency"]))
    plans = [
        create("ustc", 12, 36, 60, program=program, candidates=150).plan(features)
        for program in ("pruned", "parallel", "loop")
    ]
    assert torch.equal(plans[0].assignment, plans[1].assignment)
    assert torch.equal(plans[0].assignment, plans[2].assignment)


def test_the_loop_is_unrolled_into_a_graph_that_engines_take(make_clip, tmp_path):
    compressor, clip = create("ustc", 16, 36, 12, program="loop"), make_clip((16, 36, 24))
    inputs = {name: clip[name] for name in ("frame_tokens", "saliency")}
    model = export_compressor(compressor, {name: value.shape for name, value in inputs.items()})
    assert check_graph(model, "compressor") == []
    ir.save(model, tmp_path / "loop.onnx")
    tokens, *decisions = ort.InferenceSession(tmp_path / "loop.onnx").run(None, inputs)
    expected_tokens, *expected = compressor(*map(torch.from_numpy, inputs.values()))
    np.testing.assert_allclose(tokens, expected_tokens.numpy(), rtol=0, atol=1e-5)
    for ours, theirs in zip(decisions, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs.numpy())
    pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is an optional extra")
    size, reason = build_engine(tmp_path / "loop.onnx", CAPABILITIES)
    assert reason == "" and size > 1000


def test_rows_are_made_in_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x, saliency = torch.randn(90, 4, generator=generator), torch.rand(90, generator=generator)
    whole = dissimilar_tokens(x, saliency, 0.7)
    monkeypatch.setattr("edgevtc.compressors.ustc.ROWS", 32)
    assert torch.equal(whole, dissimilar_tokens(x, saliency, 0.7))
    assert 5 < whole.sum() < 80


def test_a_pool_of_look_alikes_is_filled_by_saliency():
    tokens = torch.ones(2, 9, 4)
    saliency = torch.rand(2, 9, generator=torch.Generator().manual_seed(0))
    plan = create("ustc", 2, 9, 5, cluster_share=0.0).plan(Features(tokens, saliency))
    assert plan.positions.tolist() == sorted(saliency.reshape(-1).topk(5).indices.tolist())
