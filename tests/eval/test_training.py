"""Training: the packed pass is transformers' own, runs go on where they were, checkpoints load anywhere."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from edgevtc.domain import Domain
from edgevtc.eval.world import World
from edgevtc.eval.world_words import ANSWER, BOS, QUESTION, VIDEO, encode

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "train"))

import average
import batches
import domain
import footage
import network
import packing
import reduction
import run
import stages

pytestmark = pytest.mark.export


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> LlavaOnevisionForConditionalGeneration:
    return network.build(seed=1).eval()


@torch.no_grad()
def test_packed_questions_get_the_logits_of_transformers(model: LlavaOnevisionForConditionalGeneration):
    sample = World("dev", 2, textures=2).sample("clip", 5)
    frames = torch.from_numpy(sample.frames[None])
    tokens, pooled, attention = packing.see(model, frames, train_tower=False)
    questions, answers = batches.encode_questions([sample.questions])
    logits, _ = packing.answer_logits(model, tokens, questions, answers)
    pixels = network.pixels(frames)
    for k, question in enumerate(sample.questions):
        said = encode(question.answer)
        prompt = [BOS, *[VIDEO] * (tokens.shape[1] + 1), QUESTION, *encode(question.text), ANSWER]
        ids = torch.tensor([[*prompt, *said]])
        theirs = model(input_ids=ids, attention_mask=torch.ones_like(ids), pixel_values_videos=pixels).logits[0]
        torch.testing.assert_close(
            logits[0, k, : len(said) + 1], theirs[len(prompt) - 1 : len(prompt) + len(said)], atol=1e-4, rtol=1e-4
        )
    tower = model.model.vision_tower(pixels.flatten(0, 1))
    torch.testing.assert_close(pooled[0], tower.pooler_output, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(attention.sum(-1), torch.ones(1, 4), atol=1e-5, rtol=1e-5)


def test_footage_shows_the_scene_at_its_ticks_less_what_the_file_cost():
    world, rng = World("dev", 4, textures=2), np.random.default_rng(0)
    for kind, ticks in (("video", 16), ("clip", 4), ("image", 1)):
        scene = world.sample(kind, 4, render=False).scene
        seen, drawn = footage.footage(scene, world.renderer, rng), world.renderer.frames(scene)
        assert seen.shape == drawn.shape == (ticks, 96, 96, 3)
        assert seen.dtype == np.uint8
        lost = np.abs(seen.astype(int) - drawn)
        assert 0 < lost.mean() < 12  # sensor noise and edges; a frame of another tick or upside down is farther off
        assert not any(np.array_equal(a, b) for a, b in itertools.pairwise(seen))


@torch.no_grad()
def test_dropping_nothing_changes_nothing(model: LlavaOnevisionForConditionalGeneration):
    sample = World("dev", 4, textures=2).sample("clip", 4)
    tokens, _, _ = packing.see(model, torch.from_numpy(sample.frames[None]), train_tower=False)
    questions, answers = batches.encode_questions([sample.questions])
    plain, _ = packing.answer_logits(model, tokens, questions, answers)
    total = tokens.shape[1]
    for kept, slots, valid in (reduction.random_drop(tokens, total), reduction.temporal_merge(tokens, 4, total)):
        again, _ = packing.answer_logits(model, kept, questions, answers, slots, valid, newline=total)
        torch.testing.assert_close(again, plain, atol=1e-4, rtol=1e-4)


def test_merging_averages_runs_and_keeps_their_first_slot():
    tokens = torch.randn(1, 3 * 36, 8)
    frames = tokens.view(1, 3, 36, 8)
    frames[:, 1:] = frames[:, :1]
    frames[0, 2, 7] *= -1
    merged, slots, valid = reduction.temporal_merge(tokens, 3, threshold=0.9)
    assert valid.all()
    assert slots[0].tolist() == [*range(36), 2 * 36 + 7]
    torch.testing.assert_close(merged[0, :36], frames[0, 0])
    torch.testing.assert_close(merged[0, -1], frames[0, 2, 7])


def test_a_run_goes_on_from_its_state_and_from_its_folder(tmp_path: Path):
    stage = stages.Stage("test", {"video": 1.0}, 1e-3, 0.1, 1.0, compress=1.0, renumber=0.5)
    first = run.Trainer(stage, tmp_path / "one", 1.0, torch.device("cpu"), None)
    rng = np.random.default_rng(0)
    stream = iter(batches.Batches(stage.mix, seed=1, scale=0.1))
    for _ in range(2):
        assert first.learn(next(stream), rng, 1.0)["loss"] > 0
    assert first.seen["video"] == 2
    first.seconds = 12.0
    first.save()
    folder = first.save_folder()
    again = run.Trainer(stage, tmp_path / "one", 1.0, torch.device("cpu"), folder)
    assert (again.step, again.seconds, again.seen) == (2, 12.0, first.seen)
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(again.model.state_dict()[name], value, atol=0, rtol=0)
    moments = [state["exp_avg"].abs().sum().item() for state in again.optimizer.state.values()]
    assert sum(moments) > 0
    elsewhere = run.Trainer(stage, tmp_path / "two", 1.0, torch.device("cpu"), folder)
    assert elsewhere.step == 0
    for name, value in first.model.state_dict().items():
        torch.testing.assert_close(elsewhere.model.state_dict()[name], value, atol=2e-3, rtol=2e-3)
    events = [json.loads(line).get("event") for line in (tmp_path / "two" / "log.jsonl").read_text().splitlines()]
    assert events == ["init"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--init", "{tmp}/none"], "none is no checkpoint folder: it has no config.json"),
        (["--minutes", "-1"], "-1 is not above 0"),
        (["--minutes", "nan"], "nan is not above 0"),
        (["--scale", "0"], "0 is not above 0"),
        (["--workers", "-1"], "-1 is not above -1"),
        (["--report", "0"], "0 is not above 0"),
        (["--until", "99:99"], "99:99 is no time of day"),
        (["--out", "/dev/null/run"], "/dev/null/run/d cannot be written to"),
        (["--device", "cuda"], "sees no GPU"),
    ],
)
def test_wrong_options_are_refused_in_a_line_and_write_nothing(
    options: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    given = [part.format(tmp=tmp_path) for part in options]
    monkeypatch.setattr(sys, "argv", ["run.py", "--stage", "d", "--out", str(tmp_path / "run"), *given])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert says in capsys.readouterr().err + str(ended.value)
    assert not list(tmp_path.iterdir())


def test_a_runs_folder_takes_one_run_and_a_damaged_state_is_named(tmp_path: Path):
    with run.claimed(tmp_path), pytest.raises(SystemExit, match="in use by another run"):
        run.claimed(tmp_path)
    run.claimed(tmp_path).close()
    first = run.Trainer(stages.STAGES["d"], tmp_path, 1.0, torch.device("cpu"), None)
    first.save()
    first.state.write_bytes(first.state.read_bytes()[:1000])
    with pytest.raises(SystemExit, match=r"state\.pt is damaged .*: delete it and go on with --init"):
        run.Trainer(stages.STAGES["d"], tmp_path, 1.0, torch.device("cpu"), None)


def test_the_clock_is_read_forward():
    now = run.time.time()
    for ahead in (120, 23 * 3600):
        shown = run.time.strftime("%H:%M", run.time.localtime(now + ahead))
        assert -60 <= run._clock(shown) - (now + ahead) <= 0


def test_the_mean_of_checkpoints_is_that_of_all_their_weights(tmp_path: Path):
    parts = [(network.build(seed=seed), run.Heads()) for seed in (1, 2)]
    for index, (part, heads) in enumerate(parts):
        network.save_folder(part, heads, tmp_path / str(index), {"step": index})
    average.average([tmp_path / "0", tmp_path / "1"], [1, 3], tmp_path / "mean")
    mean, heads = network.build(), run.Heads()
    assert network.warm_start(mean, tmp_path / "mean") == []
    assert network.load_heads(heads, tmp_path / "mean")
    for got, *states in ((mean, parts[0][0], parts[1][0]), (heads, parts[0][1], parts[1][1])):
        one, two = (state.state_dict() for state in states)
        for name, value in got.state_dict().items():
            torch.testing.assert_close(value, one[name] / 4 + two[name] * 3 / 4, atol=2e-3, rtol=2e-3)
    about = json.loads((tmp_path / "mean" / "training.json").read_text())
    assert (about["shares"], [part["step"] for part in about["of"]]) == ([0.25, 0.75], [0, 1])
    network.save_folder(network.build(grid=8), run.Heads(), tmp_path / "fine", {})
    with pytest.raises(ValueError, match=r"\[6, 8\] tokens along a frame's side"):
        average.average([tmp_path / "0", tmp_path / "fine"], [1, 1], tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_checkpoint_folder_is_small_and_reads_questions_as_people_write_them(
    model: LlavaOnevisionForConditionalGeneration, tmp_path: Path
):
    network.save_folder(model, run.Heads(), tmp_path / "model", {"step": 1})
    assert sum(file.stat().st_size for file in (tmp_path / "model").iterdir()) < 8e6
    loaded = LlavaOnevisionForConditionalGeneration.from_pretrained(tmp_path / "model", dtype=torch.float32)
    head = loaded.model.vision_tower.head.probe
    torch.testing.assert_close(head, model.model.vision_tower.head.probe, atol=1e-3, rtol=1e-3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer("<q> What COLOUR is the circle? <a>").input_ids == [
        QUESTION,
        *encode("what color is the circle"),
        ANSWER,
    ]


def test_the_domains_limit_is_twice_the_farthest_of_dev_scenes(
    model: LlavaOnevisionForConditionalGeneration, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(domain, "DIRECTIONS", 12)
    network.save_folder(model, run.Heads(), tmp_path / "model", {})
    learnt = domain.learn(tmp_path / "model", scenes=24, dev_scenes=10)
    read = Domain.read(tmp_path / "model" / "domain.npz")
    assert read.limit == learnt.limit
    own = domain.mean_tokens(model, World("dev", 0), 10)
    assert max(read.distance(mean[None]) for mean in own) == pytest.approx(read.limit / domain.SLACK, rel=0.05)


def test_growing_the_vocabulary_keeps_the_words_that_were_there(
    model: LlavaOnevisionForConditionalGeneration, tmp_path: Path
):
    small = network.build(seed=2)
    small.resize_token_embeddings(75)
    small.save_pretrained(tmp_path / "small")
    grown = network.build(seed=3)
    before = grown.get_input_embeddings().weight[73:].clone()
    assert network.warm_start(grown, tmp_path / "small") == []
    torch.testing.assert_close(grown.get_input_embeddings().weight[:73], small.get_input_embeddings().weight[:73])
    torch.testing.assert_close(grown.get_input_embeddings().weight[73:], before)


@torch.no_grad()
def test_a_finer_grid_starts_from_the_weights_of_a_coarser_one(
    model: LlavaOnevisionForConditionalGeneration, tmp_path: Path
):
    network.save_folder(model, run.Heads(), tmp_path / "coarse", {})
    stage = stages.Stage("test", {"video": 1.0, "crowd": 1.0}, 1e-3, 0.1, 1.0, compress=0.5)
    fine = run.Trainer(stage, tmp_path / "run", 1.0, torch.device("cpu"), tmp_path / "coarse", grid=8)
    old, new = (m.model.vision_tower.embeddings.position_embedding.weight for m in (model, fine.model))
    assert (len(old), len(new)) == (144, 256)
    # A stretched square keeps its corners in their places and its mean.
    torch.testing.assert_close(new.mean(0), old.mean(0), atol=2e-3, rtol=0)
    assert (new[[0, 15, 240, 255]] @ old[[0, 11, 132, 143]].T).argmax(1).tolist() == [0, 1, 2, 3]
    with torch.enable_grad():
        stream, rng = iter(batches.Batches(stage.mix, seed=1, scale=0.1, grid=8)), np.random.default_rng(0)
        kinds = {(batch := next(stream)).kind: fine.learn(batch, rng, 1.0) for _ in range(6)}
    assert set(kinds) == {"video", "crowd"}
    loaded = LlavaOnevisionForConditionalGeneration.from_pretrained(fine.save_folder(), dtype=torch.float32)
    frames = torch.zeros(1, 2, 128, 128, 3, dtype=torch.uint8)
    tokens, _, attention = packing.see(loaded, frames, train_tower=False)
    assert tokens.shape[1] == attention.flatten().numel() == 2 * 64
    assert (
        json.loads((tmp_path / "run" / "checkpoint" / "preprocessor_config.json").read_text())["size"]["width"] == 128
    )
