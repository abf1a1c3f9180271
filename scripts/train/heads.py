"""Auxiliary heads: dense losses for training only. They are dropped at export, and shape what the model carries."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from network import HIDDEN, VISION_HIDDEN
from torch import Tensor, nn

from edgevtc.eval.world_history import BESIDE_CLASSES, HISTORY_CLASSES
from edgevtc.eval.world_labels import CELL_CLASSES, FRAME_CLASSES, IGNORE
from edgevtc.eval.world_words import COLORS, DIGITS, SHAPES, VOCABULARY

_SEEN = ("color", "shape", "size", "digit")
_TRACKED = ("heading", "age", "birth_color", "birth_size", "changed", "moved", "speed", *BESIDE_CLASSES)
_WEIGHED = {"birth_color", "birth_size", "changed"}  # weighed up once the thing has changed
_SO_FAR = ("things", "newest", "flash", "flashes", "changes", *HISTORY_CLASSES)
_TIED = {"color": (0, COLORS), "shape": (1, (*SHAPES, "flash", "sign")), "digit": (1, DIGITS)}  # scale, words

Scores = dict[str, float]
Labels = dict[str, Tensor]


class Heads(nn.Module):
    """All auxiliary heads: of projected tokens, of LM states, and of the tower's pooling head."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.ModuleDict({name: nn.Linear(HIDDEN, CELL_CLASSES[name]) for name in _SEEN})
        self.tied_scale = nn.Parameter(torch.tensor([1.1, 1.1]))
        self.norms = nn.ModuleList([nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)])
        self.track = nn.ModuleDict({name: nn.Linear(HIDDEN, CELL_CLASSES[name]) for name in _TRACKED})
        self.frame = nn.ModuleDict({name: nn.Linear(HIDDEN, FRAME_CLASSES[name]) for name in _SO_FAR})
        self.seen = nn.Linear(VISION_HIDDEN, 16)
        self.visible = nn.Linear(VISION_HIDDEN, FRAME_CLASSES["visible"])

    def vision_loss(self, tokens: Tensor, labels: Labels, words: Tensor) -> tuple[Tensor, Scores]:
        """What is in each cell, read from the projected tokens [B, N, D] and, for colours, shapes and digits, by their
        similarity to the LM's word embeddings [V, D] (so that a token says what it shows in the LM's own language)."""
        flat, scores, loss = tokens.flatten(0, 1), {}, tokens.new_zeros(())
        there = labels["shape"].flatten() > 0
        for name in _SEEN:
            logits, target = self.cell[name](flat), labels[name].flatten()
            weight = torch.ones(logits.shape[1], device=flat.device)
            weight[0] = 0.15 if name != "digit" else 0.03
            loss = loss + F.cross_entropy(logits, target, weight, ignore_index=IGNORE)
            counted = there & (target > 0) if name == "digit" else there & (target >= 0)
            if bool(counted.any()):
                scores["see_" + name] = (logits.argmax(1) == target)[counted].float().mean().item()
        for name, (scale, spoken) in _TIED.items():
            target = labels[name].flatten()
            mask = target > 0
            if not bool(mask.any()):
                continue
            unit = F.layer_norm(flat[mask], flat.shape[-1:])
            rows = words[[VOCABULARY[word] for word in spoken]]
            loss = loss + 0.3 * F.cross_entropy(unit @ rows.T * self.tied_scale[scale].exp(), target[mask] - 1)
        return loss, scores

    def pooling_loss(self, pooled: Tensor, attention: Tensor, labels: Labels) -> tuple[Tensor, Scores]:
        """Trains the pooling head: its output [B, T, Dv] tells what is in the picture and how many things, its
        attention [B, T, N] covers the cells with something in them evenly."""
        seen = labels["seen"].float()
        logits = self.seen(pooled)
        loss = 2 * F.binary_cross_entropy_with_logits(logits, seen)
        count = self.visible(pooled).flatten(0, 1)
        target = labels["visible"].flatten().clamp(max=FRAME_CLASSES["visible"] - 1)
        loss = loss + 0.5 * F.cross_entropy(count, target)
        there = (labels["shape"].flatten(2) > 0).float()
        some = there.sum(-1) > 0
        share = there / there.sum(-1, keepdim=True).clamp(min=1)
        loss = loss - 0.2 * ((share * (attention + 1e-6).log()).sum(-1)[some]).mean()
        scores = {
            "pool_seen": ((logits > 0) == (seen > 0.5)).float().mean().item(),
            "pool_count": (count.argmax(-1) == target).float().mean().item(),
            "pool_mass": (attention * there).sum(-1)[some].mean().item(),
        }
        return loss, scores

    def time_loss(self, hidden: list[Tensor], labels: Labels) -> tuple[Tensor, Scores]:
        """History of each cell's thing after layer L−2, and of the video so far after layer L−1."""
        length = labels["things"].shape[1]
        scores: Scores = {}
        loss = hidden[0].new_zeros(())
        cells, late = self.norms[0](hidden[0]).flatten(0, 1), labels["changed"].flatten() > 0
        for name in _TRACKED:
            target = labels[name].flatten()
            mask = target >= 0
            if not bool(mask.any()):
                continue
            logits = self.track[name](cells[mask])
            plain = name not in _WEIGHED
            weight = torch.ones(len(logits), device=cells.device) if plain else 1 + 5.0 * late[mask]
            each = F.cross_entropy(logits, target[mask], reduction="none")
            loss = loss + (each * weight).sum() / weight.sum()
            right = (logits.argmax(1) == target[mask]).float()
            if plain:
                scores["track_" + name] = right.mean().item()
            elif bool(late.any()):
                scores["track_" + name] = right[late[mask]].mean().item()
        ends = self.norms[1](hidden[1].unflatten(1, (length, -1))[:, :, -1])
        for name in _SO_FAR:
            logits, target = self.frame[name](ends), labels[name]
            loss = loss + 0.5 * F.cross_entropy(logits.flatten(0, 1), target.flatten())
            scores["frame_" + name] = (logits.argmax(-1) == target).float().mean().item()
        return loss, scores
