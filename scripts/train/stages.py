"""The stages of training, in order. Minutes are those of one free CPU core; more are better, fewer still work."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A stage: shares of batches by kind, learning rate (cosine from `rate` to `rate * end`), minutes."""

    about: str
    mix: dict[str, float]
    rate: float
    end: float
    minutes: float
    tower: float = 0.4  # the tower's share of the learning rate
    compress: float = 0.0  # share of video batches with reduced tokens
    renumber: float = 0.0  # share of those whose tokens are renumbered 0, 1, 2, …


STAGES = {
    "a": Stage("tower and projector on crowded frames", {"crowd": 1.0}, 8e-4, 0.05, 15, tower=1.0),
    "c": Stage("lookup on images and clips", {"image": 0.5, "crowd": 0.25, "clip": 0.1, "video": 0.15}, 1e-3, 0.6, 25),
    "d": Stage(
        "videos",
        {"video": 0.6, "image": 0.22, "clip": 0.05, "crowd": 0.13},
        1e-3,
        0.03,
        100,
        tower=0.5,
    ),
    "e": Stage(
        "videos with reduced tokens",
        {"video": 0.75, "image": 0.14, "clip": 0.06, "crowd": 0.05},
        7e-4,
        0.03,
        25,
        compress=0.6,
        renumber=0.5,
    ),
}
