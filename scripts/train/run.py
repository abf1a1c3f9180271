"""Train the embedded model, stage by stage; every run can be killed at any moment and goes on where it was.

    python scripts/train/run.py --stage d --out runs/d --init CHECKPOINT_FOLDER --minutes 100
    python scripts/train/run.py --stage all --out runs/model          # a, c, d, e from random weights

Written under --out/STAGE: `state.pt` (weights, optimizer, progress; replaced atomically), `log.jsonl`, and
`checkpoint/` (fp16 weights in transformers' layout with the auxiliary heads, enough to go on from elsewhere).
"""

from __future__ import annotations

import argparse
import fcntl
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import IO

import numpy as np
import torch
import torch.nn.functional as F
from batches import SIZES, Batch, Batches, collate, shown
from heads import Heads
from network import build, grid_of, load_heads, save_folder, warm_start
from packing import answer_logits, exact, see
from reduction import random_training_reduction
from stages import STAGES, Stage
from torch import Tensor, nn
from torch.utils.data import DataLoader

from edgevtc.eval.world import World
from edgevtc.eval.world_labels import GRID
from edgevtc.eval.world_phrases import TYPES

WARMUP, CLIP = 30, 1.0


class Trainer:
    """A stage's model, heads, optimizer and progress, kept in a folder."""

    def __init__(
        self, stage: Stage, folder: Path, minutes: float, device: torch.device, init: Path | None, grid: int = GRID
    ) -> None:
        self.stage, self.folder, self.minutes, self.device = stage, folder, minutes, device
        self.model, self.heads = build(grid=grid).to(device), Heads().to(device)
        self.step, self.seconds = 0, 0.0
        self.seen = dict.fromkeys(SIZES, 0)
        folder.mkdir(parents=True, exist_ok=True)
        if init is not None and not self.state.exists():
            missing = warm_start(self.model, init)
            heads = load_heads(self.heads, init)
            self.log({"event": "init", "from": str(init), "weights_not_in_it": len(missing), "heads_in_it": heads})
        tower = list(self.model.model.vision_tower.named_parameters())
        trunk = [p for name, p in tower if not name.startswith(("head.", "post_layernorm."))]
        ids = {id(p) for p in trunk}
        rest = [p for p in (*self.model.parameters(), *self.heads.parameters()) if id(p) not in ids]
        self.groups = [{"params": rest, "scale": 1.0}, {"params": trunk, "scale": stage.tower}]
        self.optimizer = torch.optim.AdamW(self.groups, lr=stage.rate, weight_decay=0.02, betas=(0.9, 0.98))
        if self.state.exists():
            if init is not None:
                self.log({"event": "init left out", "why": f"{self.state} goes on from where it was"})
            self._resume()

    @property
    def state(self) -> Path:
        """The file that holds everything needed to go on."""
        return self.folder / "state.pt"

    @property
    def rate(self) -> float:
        """Learning rate now: warm-up after every start, cosine over the stage's minutes."""
        done = min(1.0, self.seconds / (self.minutes * 60))
        return self.stage.rate * (self.stage.end + (1 - self.stage.end) * 0.5 * (1 + math.cos(math.pi * done)))

    def log(self, record: dict[str, object]) -> None:
        """Append a line to the log and print it."""
        line = json.dumps({"step": self.step, "seconds": round(self.seconds), **record})
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def save(self) -> None:
        """Write the state, whole or not at all."""
        part = self.state.with_suffix(".part")
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "seen": self.seen,
            "grid": grid_of(self.model),
        }
        with part.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.state)

    def save_folder(self) -> Path:
        """Write the fp16 checkpoint folder."""
        about = {"stage": self.stage.about, "step": self.step, "seconds": round(self.seconds), "samples": self.seen}
        save_folder(self.model, self.heads, self.folder / "checkpoint", about)
        return self.folder / "checkpoint"

    def _resume(self) -> None:
        try:
            state = torch.load(self.state, map_location=self.device, weights_only=True)
        except Exception as error:  # torch raises many kinds
            reason = str(error).splitlines()[0]
            raise SystemExit(f"{self.state} is damaged ({reason}): delete it and go on with --init") from None
        if (grid := state.get("grid", GRID)) != grid_of(self.model):
            raise SystemExit(f"{self.state} is of a run with --grid {grid}: give the same, or another --out")
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.seen = state["step"], state["seconds"], state["seen"]
        self.log({"event": "resume"})

    def learn(self, batch: Batch, rng: np.random.Generator, warm: float) -> dict[str, float]:
        """One optimizer step; returns its scores."""
        batch = batch.to(self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * group["scale"] * warm
        loss, scores = self._loss(batch, rng)
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for group in self.groups for p in group["params"]], CLIP)
        self.optimizer.step()
        self.step += 1
        self.seen[batch.kind] += len(batch.frames)
        return scores

    def _loss(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
        words = self.model.model.language_model.embed_tokens.weight
        crowd = batch.kind == "crowd"
        tokens, pooled, attention = see(self.model, batch.frames, train_tower=batch.kind != "video")
        loss, scores = tokens.new_zeros(()), {}
        if batch.labels:
            loss, scores = self.heads.vision_loss(tokens, batch.labels, words.detach() if crowd else words)
            pooling, pooling_scores = self.heads.pooling_loss(pooled, attention, batch.labels)
            loss = (1.0 if crowd else 0.2) * loss + 0.3 * pooling
            scores |= pooling_scores
        if crowd:
            return loss, scores
        if batch.kind == "video" and rng.random() < self.stage.compress:
            original = tokens.shape[1]
            tokens, slots, valid = random_training_reduction(tokens, batch.frames.shape[1], rng)
            if rng.random() < self.stage.renumber:
                slots, original = torch.arange(tokens.shape[1], device=slots.device).expand_as(slots), tokens.shape[1]
            logits, _ = answer_logits(
                self.model, tokens, batch.questions, batch.answers, slots, valid, newline=original
            )
        else:
            logits, hidden = answer_logits(self.model, tokens, batch.questions, batch.answers)
            if batch.kind in ("clip", "video"):
                tracking, tracking_scores = self.heads.time_loss(hidden, batch.labels)
                loss, scores = loss + 0.5 * tracking, scores | tracking_scores
        answering = F.cross_entropy(logits.flatten(0, 2), batch.answers.flatten(), ignore_index=-100)
        right, by_type = exact(logits.detach(), batch.answers).cpu(), defaultdict(list)
        for row, types in zip(right, batch.types, strict=True):
            for good, kind in zip(row.tolist(), types, strict=False):
                by_type[kind].append(good)
        scores |= {kind: float(np.mean(good)) for kind, good in by_type.items()}
        return loss + answering, scores | {"loss": answering.item()}


def claimed(folder: Path) -> IO[str]:
    """A folder of a run, made where it is missing and locked until the file returned is closed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / "lock").open("w")
    except OSError as error:
        raise SystemExit(f"{folder} cannot be written to ({error.strerror}): choose another --out") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit(f"{folder} is in use by another run: choose another --out") from None
    return lock


class Monitor:
    """Accuracy on a few dev videos, while training."""

    def __init__(self, videos: int, grid: int) -> None:
        world, rng = World("dev", 0), np.random.default_rng(0)
        samples = [world.sample(limit=24, render=False) for _ in range(videos)]
        samples = [replace(sample, frames=shown(world, sample.scene, rng, grid)) for sample in samples]
        self._batches = [collate("video", samples[i : i + 10], grid) for i in range(0, videos, 10)]

    @torch.no_grad()
    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """Accuracy by type, and of all questions."""
        right: dict[str, list[bool]] = defaultdict(list)
        for batch in self._batches:
            moved = batch.to(trainer.device)
            tokens, _, _ = see(trainer.model, moved.frames, train_tower=False)
            logits, _ = answer_logits(trainer.model, tokens, moved.questions, moved.answers)
            for row, types in zip(exact(logits, moved.answers).cpu(), batch.types, strict=True):
                for good, kind in zip(row.tolist(), types, strict=False):
                    right[kind].append(good)
        scores = {kind: round(float(np.mean(right[kind])), 3) for kind in TYPES if kind in right}
        return {"total": round(float(np.mean([good for part in right.values() for good in part])), 4), **scores}


def run_stage(name: str, out: Path, init: Path | None, minutes: float | None, options: argparse.Namespace) -> Path:
    """Train a stage to its end (at once where it is done already); returns its checkpoint folder."""
    lock = claimed(out / name)
    stage = STAGES[name] if options.rate is None else replace(STAGES[name], rate=options.rate)
    trainer = Trainer(stage, out / name, minutes or stage.minutes, torch.device(options.device), init, options.grid)
    seed = (options.seed + sum(map(ord, name))) * 97 + trainer.step
    batches = Batches(stage.mix, seed, options.scale, options.grid)
    loader = iter(DataLoader(batches, batch_size=None, num_workers=options.workers))
    rng = np.random.default_rng([seed, 2])
    torch.manual_seed(seed)
    monitor = Monitor(options.monitor, options.grid) if name != "a" and options.monitor else None
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    saved = checked = mark = time.monotonic()
    first, monitored = trainer.step, trainer.step
    while trainer.seconds < trainer.minutes * 60 and not (options.until and time.time() >= options.until):
        batch = next(loader)
        for key, value in trainer.learn(batch, rng, min(1.0, (trainer.step - first + 1) / WARMUP)).items():
            scores[batch.kind][key].append(value)
        stepped = time.monotonic()
        trainer.seconds, mark = trainer.seconds + stepped - mark, stepped
        if trainer.step % options.report == 0:
            for kind, part in scores.items():
                means = {key: round(float(np.mean(values)), 3) for key, values in part.items()}
                trainer.log({"kind": kind, "rate": float(f"{trainer.rate:.2e}"), **means})
            scores.clear()
        if time.monotonic() - saved > options.save:
            trainer.save()
            saved = time.monotonic()
        if monitor and time.monotonic() - checked > options.check:
            trainer.log({"event": "monitor", "samples": dict(trainer.seen), **monitor(trainer)})
            checked, monitored = time.monotonic(), trainer.step
        mark += time.monotonic() - stepped  # Saving and monitoring are no training.
    if trainer.step > first:
        trainer.save()
        if monitor and trainer.step > monitored:
            trainer.log({"event": "monitor", "samples": dict(trainer.seen), **monitor(trainer)})
    checkpoint = trainer.save_folder()
    lock.close()
    return checkpoint


def main() -> None:
    """Parse arguments and run the stages asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", required=True, nargs="+", choices=[*STAGES, "all"], help="in this order")
    parser.add_argument("--out", type=Path, required=True, help="folder of the run; each stage has a subfolder")
    parser.add_argument("--init", type=Path, help="checkpoint folder to start the first stage from")
    parser.add_argument("--minutes", type=_above(0.0), help="length of all the stages together")
    parser.add_argument("--rate", type=_above(0.0), help="highest learning rate, in place of the stage's")
    parser.add_argument("--until", type=_clock, help="stop at the next HH:MM of the day (the run can go on later)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=_above(0), default=1)
    parser.add_argument("--workers", type=_above(-1), default=0, help="processes that render; 0 renders in this one")
    parser.add_argument("--scale", type=_above(0.0), default=1.0, help="times the batch sizes; a GPU likes 8 and more")
    parser.add_argument("--grid", type=_above(0), default=GRID, help="visual tokens along each side of a frame")
    parser.add_argument("--seed", type=_above(-1), default=1)
    parser.add_argument("--report", type=_above(0), default=60, help="steps between log lines")
    parser.add_argument("--save", type=_above(0.0), default=120, help="seconds between saved states")
    parser.add_argument("--check", type=_above(0.0), default=600, help="seconds between monitor runs")
    parser.add_argument("--monitor", type=_above(-1), default=60, help="dev videos of the monitor; 0 for none")
    options = parser.parse_args()
    if options.init and not (options.init / "config.json").is_file():
        parser.error(f"--init {options.init} is no checkpoint folder: it has no config.json")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: this torch sees no GPU, give cpu")
    torch.set_num_threads(options.threads)
    names = list(STAGES) if "all" in options.stage else options.stage
    total = sum(STAGES[name].minutes for name in names)
    folder = options.init
    for name in names:
        minutes = options.minutes and options.minutes * STAGES[name].minutes / total
        folder = run_stage(name, options.out, folder, minutes, options)
        print(folder)
        if options.until and time.time() >= options.until:
            break


def _above(bound: float) -> Callable[[str], float]:
    """Reader of numbers of the type of a bound, which they exceed."""

    def number(text: str) -> float:
        value = type(bound)(text)
        if not bound < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above {bound:g}")
        return value

    return number


def _clock(text: str) -> float:
    """When the clock next shows HH:MM, as seconds of `time.time`."""
    try:
        shown = time.strptime(text, "%H:%M")
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text} is no time of day: give it as 22:30") from None
    now = time.localtime()
    then = time.mktime((*now[:3], shown.tm_hour, shown.tm_min, 0, *now[6:]))
    return then if then > time.time() else then + 24 * 3600


if __name__ == "__main__":
    main()
