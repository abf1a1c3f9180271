"""Examine a checkpoint folder on fresh videos: accuracy by type and slice, controls, files, the pooling head.

    python scripts/train/evaluate.py CHECKPOINT_FOLDER --videos 300 --files 24 --out runs/dev.json

Intervals are 95 % bootstrap over videos. `blind` answers from the question's text alone; `shuffled_video` asks the
model about another video; `domain` counts the clips that `domain.npz` calls foreign: of the world's own (wrong), of
procedural clutter, of white noise and of windows of one second of the natural clips given by --outside.
The test split is for a final result only: nothing may be chosen by it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import av
import numpy as np
import torch
from batches import encode_questions
from heads import Heads
from network import grid_of, load_heads, pixels
from packing import answer_logits, exact, see
from torch import Tensor
from transformers import AutoTokenizer, LlavaOnevisionForConditionalGeneration

from edgevtc.domain import Domain
from edgevtc.eval.intervals import Score
from edgevtc.eval.world import Sample, World
from edgevtc.eval.world_labels import GRID
from edgevtc.eval.world_outside import outside_frames
from edgevtc.eval.world_phrases import CHANCE, TYPES
from edgevtc.eval.world_scores import Blind, Result, group, score
from edgevtc.eval.world_video import write_mp4
from edgevtc.eval.world_words import decode
from edgevtc.video import iter_frames

BATCH, QUESTIONS = 10, 24
#: Width × height, frames a second, seconds: of files that are larger, oblong, and longer than the model's frames.
FILES = [
    ((384, 384), 8, 6.0),
    ((640, 360), 15, 8.0),
    ((320, 240), 25, 10.0),
    ((192, 192), 4, 4.0),
    ((480, 640), 30, 20.0),
]


def results_of(samples: Sequence[Sample], right: Tensor) -> list[Result]:
    """Results [videos, K] with the groups of their questions."""
    return [
        Result(
            video,
            bool(right[video, k]),
            {
                **sample.slices,
                "type": question.type,
                "phrasing": str(question.phrasing),
                "combination": "held out" if question.held_out else "seen",
            },
        )
        for video, sample in enumerate(samples)
        for k, question in enumerate(sample.questions)
    ]


@torch.no_grad()
def answer(model: torch.nn.Module, samples: Sequence[Sample], shift: int = 0) -> tuple[Tensor, dict[str, float]]:
    """Exact matches [videos, K], and how well the pooling head sees; `shift` asks about the video so many further."""
    right, auc = torch.zeros(len(samples), QUESTIONS, dtype=torch.bool), []
    for start in range(0, len(samples), BATCH):
        part = samples[start : start + BATCH]
        shown = [samples[(start + i + shift) % len(samples)].frames for i in range(len(part))]
        tokens, _, attention = see(model, torch.from_numpy(np.stack(shown)), train_tower=False)
        questions, answers = encode_questions([sample.questions for sample in part])
        logits, _ = answer_logits(model, tokens, questions, answers)
        right[start : start + len(part), : answers.shape[1]] = exact(logits, answers)
        if not shift:
            there = torch.from_numpy(np.stack([sample.labels["shape"] for sample in part])).flatten(2) > 0
            auc += [area(a, t) for a, t in zip(attention.flatten(0, 1), there.flatten(0, 1), strict=True)]
    return right, {"attention_auc": float(np.nanmean(auc))} if auc else {}


def area(values: Tensor, there: Tensor) -> float:
    """Probability that a cell with something in it ranks above one without (NaN where there is no such pair)."""
    inside, outside = values[there], values[~there]
    if not len(inside) or not len(outside):
        return float("nan")
    return (inside[:, None] > outside).float().mean().item()


@torch.no_grad()
def pooled_scores(model: torch.nn.Module, heads: Heads, samples: Sequence[Sample]) -> dict[str, float]:
    """What the auxiliary heads read from the pooled output: presence of each colour, shape, star and sign; count."""
    right = truth = said = both = count = frames = 0.0
    for sample in samples:
        _, pooled, _ = see(model, torch.from_numpy(sample.frames[None]), train_tower=False)
        seen, guess = torch.from_numpy(sample.labels["seen"]), heads.seen(pooled[0]) > 0
        right += (guess == (seen > 0)).float().mean().item()
        truth, said, both = (
            truth + seen.sum().item(),
            said + guess.sum().item(),
            both + (guess & (seen > 0)).sum().item(),
        )
        count += (
            (heads.visible(pooled[0]).argmax(-1) == torch.from_numpy(sample.labels["visible"])).float().mean().item()
        )
        frames += 1
    return {
        "pooled_presence_accuracy": right / frames,
        "pooled_presence_f1": 2 * both / (truth + said),
        "pooled_count_accuracy": count / frames,
    }


def from_files(world: World, samples: Sequence[Sample]) -> list[Sample]:
    """The samples written as mp4 files of several kinds, decoded, sampled uniformly and resized."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for index, sample in enumerate(samples):
            size, fps, seconds = FILES[index % len(FILES)]
            path = write_mp4(
                Path(folder) / "video.mp4", sample.scene, world.renderer, size=size, fps=fps, seconds=seconds
            )
            frames = [frame.image for frame in iter_frames(path, sample.scene.ticks, (96, 96))]
            found.append(replace(sample, frames=np.stack(frames)))
    return found


def natural_clips(paths: Sequence[Path]) -> Iterator[np.ndarray]:
    """Windows of one second, [16, 96, 96, 3] each, of video files."""
    for path in paths:
        with av.open(str(path)) as container:
            seconds = (container.duration or 0) / av.time_base
        for start in range(int(seconds)):
            frames = iter_frames(path, 16, (96, 96), start_s=start, end_s=start + 1)
            yield np.stack([frame.image for frame in frames])


def veiled(clip: np.ndarray, contrast: float, light: float = 1.0) -> np.ndarray:
    """A clip [T, H, W, 3] of less contrast around its mean, and of less light, as through fog or at night."""
    mean = clip.mean()
    return np.clip((mean + (clip - mean) * contrast) * light, 0, 255).astype(np.uint8)


@torch.no_grad()
def foreign(model: torch.nn.Module, domain: Domain, clips: Sequence[np.ndarray]) -> dict[str, object]:
    """How many of the clips are called foreign, with their least and largest distance."""
    found = [domain.distance(see(model, torch.from_numpy(clip[None]), train_tower=False)[0].numpy()) for clip in clips]
    count = sum(distance > domain.limit for distance in found)
    return {"foreign": f"{count}/{len(found)}", "least": min(found), "largest": max(found)}


@torch.no_grad()
def generated(folder: Path, model: torch.nn.Module, samples: Sequence[Sample]) -> tuple[int, int]:
    """How many answers transformers' own `generate` gives like the packed pass, of how many."""
    tokenizer, same, total = AutoTokenizer.from_pretrained(folder), 0, 0
    for sample in samples:
        frames = torch.from_numpy(sample.frames[None])
        tokens, _, _ = see(model, frames, train_tower=False)
        questions, answers = encode_questions([sample.questions])
        logits, _ = answer_logits(model, tokens, questions, answers)
        right = exact(logits, answers)[0]
        for k, question in enumerate(sample.questions):
            video = " ".join(["<video>"] * (tokens.shape[1] + 1))
            prompt = tokenizer(f"<bos> {video} <q> {question.text.capitalize()}? <a>", return_tensors="pt")
            ids = model.generate(
                input_ids=prompt.input_ids,
                attention_mask=prompt.attention_mask,
                pixel_values_videos=pixels(frames),
                max_new_tokens=3,
                do_sample=False,
            )[0, prompt.input_ids.shape[1] :]
            same += (decode(ids.tolist()) == question.answer) == bool(right[k])
            total += 1
    return same, total


def main() -> None:
    """Parse arguments, examine, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--split", default="dev", choices=["dev", "test"])
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--videos", type=int, default=300)
    parser.add_argument("--files", type=int, default=25, help="videos that are also answered from mp4 files")
    parser.add_argument("--outside", type=Path, nargs="*", default=[], help="natural clips: none of its world in them")
    parser.add_argument("--generate", type=int, default=2, help="videos that transformers' generate answers too")
    parser.add_argument("--blind", type=int, default=8000, help="training scenes the blind control learns from")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    begin = time.monotonic()
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(options.folder, dtype=torch.float32).eval()
    if grid_of(model) != GRID:
        raise SystemExit(f"this examines {GRID}x{GRID} tokens a frame: export the checkpoint and use `edgevtc eval`")
    world = World(options.split, options.seed)
    samples = [world.sample(limit=QUESTIONS) for _ in range(options.videos)]
    right, head = answer(model, samples)
    heads = Heads()
    if load_heads(heads, options.folder):
        head |= pooled_scores(model, heads, samples[:50])
    results = results_of(samples, right)
    other = results_of(samples, answer(model, samples, shift=1)[0])
    words = Blind(options.blind)
    blind = [
        Result(video, words.answer(question.text) == question.answer, {"type": question.type})
        for video, sample in enumerate(samples)
        for question in sample.questions
    ]
    report: dict[str, object] = {"folder": str(options.folder), "split": options.split, "seed": options.seed}
    report |= {"videos": options.videos, "total": score(results), "blind": score(blind), "shuffled_video": score(other)}
    by_type = {name: group(part, "type") for name, part in (("full", results), ("blind", blind), ("shuffled", other))}
    report["types"] = {
        kind: {name: score(part[kind]) for name, part in by_type.items()} | {"chance": CHANCE[kind]}
        for kind in TYPES
        if kind in by_type["full"]
    }
    report["slices"] = {
        name: {value: score(part) for value, part in sorted(group(results, name).items())}
        for name in ("camera", "noise", "things", "phrasing", "combination")
    }
    report["pooling_head"] = head
    rng = np.random.default_rng([1_000_000, options.seed])
    natural = list(natural_clips(options.outside))
    clips = {
        "own world": [sample.frames for sample in samples],
        "clutter": [outside_frames(rng) for _ in range(50)],
        "white noise": [rng.integers(0, 256, (16, 96, 96, 3), dtype=np.uint8) for _ in range(20)],
        "natural": natural,
        "natural, half the contrast": [veiled(clip, 0.5) for clip in natural],
        "natural, a third of the contrast": [veiled(clip, 0.3) for clip in natural],
        "natural, a sixth of the contrast": [veiled(clip, 0.15) for clip in natural],
        "natural, dark": [veiled(clip, 1.0, 0.3) for clip in natural],
        "natural, grey": [np.repeat(clip.mean(-1, keepdims=True), 3, -1).astype(np.uint8) for clip in natural],
        "natural, grey and dark": [
            np.repeat(veiled(clip, 1.0, 0.3).mean(-1, keepdims=True), 3, -1).astype(np.uint8) for clip in natural
        ],
    }
    if (file := options.folder / "domain.npz").exists():
        domain = Domain.read(file)
        report["domain"] = {name: foreign(model, domain, part) for name, part in clips.items() if part}
        report["domain"] |= {"limit": domain.limit}
    if options.files:
        files = from_files(world, samples[: options.files])
        decoded = results_of(files, answer(model, files)[0])
        report["files"] = {"frames": score(results_of(files, right)), "mp4": score(decoded)}
    if options.generate:
        same, total = generated(options.folder, model, samples[: options.generate])
        report["generate_agrees"] = f"{same}/{total}"
    report["seconds"] = round(time.monotonic() - begin)
    show(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1, default=lambda value: asdict(value)) + "\n")


def show(report: dict[str, object], indent: str = "") -> None:
    """Print a report as indented lines."""
    for name, value in report.items():
        if isinstance(value, dict) and not all(isinstance(part, Score | float) for part in value.values()):
            print(f"{indent}{name}")
            show(value, indent + "  ")
        elif isinstance(value, dict):
            print(f"{indent}{name}: " + "; ".join(f"{key} {_short(part)}" for key, part in value.items()))
        else:
            print(f"{indent}{name}: {value}")


def _short(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    main()
