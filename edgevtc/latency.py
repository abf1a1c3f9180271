"""`--ttft`: how long a budget's first token takes on this machine, measured once and remembered."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgevtc import __version__
from edgevtc.bundle import MethodEntry
from edgevtc.bundle.reader import cache_dir
from edgevtc.environment import machine_name
from edgevtc.errors import ConfigError
from edgevtc.files import write_whole
from edgevtc.loaded import LoadedBundle
from edgevtc.methods import method_key
from edgevtc.vision import EncodedVideo, visual_span

__all__ = ["Latency"]

#: Asked where the bundle names no example; what a question adds to the visual tokens is little.
DEFAULT_QUESTION = "what happens in the video"


class Latency:
    """Times of the stages of a loaded bundle, each measured when it is first asked for and then kept in a file.

    A time is the slower of two runs, because an answer meets stages that have not run yet. It holds for one bundle,
    weight format, backend, version, number of threads and machine.

    Args:
        loaded: What is measured.
        folder: Where to keep the measurements; :func:`edgevtc.bundle.reader.cache_dir` where None.

    Attributes:
        path: The file.
    """

    def __init__(self, loaded: LoadedBundle, folder: str | os.PathLike[str] | None = None) -> None:
        self._loaded = loaded
        key = {
            "bundle": loaded.bundle.sha256,
            "weight_format": loaded.weight_format,
            "device": loaded.backend.name,
            "backend": loaded.backend.runtime,
            "threads": loaded.backend.threads,
            "machine": machine_name(),
            "edgevtc": __version__,
        }
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        self._explicit = folder is not None
        self.path = Path(folder or cache_dir()) / "latency" / f"{name}.json"
        self._content: dict[str, Any] = {"key": key, "seconds": read_seconds(self.path)}

    @property
    def encode_s(self) -> float:
        """Seconds the encoder takes over a clip of T frames."""
        return self._time("encode", lambda: encoder_seconds(self._loaded))

    def answer_s(self, method: MethodEntry) -> float:
        """Seconds from the encoder's features to the first token: compressor and prefill."""
        return self._time(method_key(method.name, method.budget), lambda: first_token_seconds(self._loaded, method))

    def largest(self, methods: Sequence[MethodEntry], limit_s: float, spent_s: float | None = None) -> MethodEntry:
        """The largest budget whose first token comes in time. Beyond the first that does not, none is measured.

        Args:
            methods: By rising budget.
            limit_s: Seconds from opening the video to the first token.
            spent_s: Seconds that reading and encoding the video took; where None, what the encoder takes is
                counted, as reading runs beside it.

        Raises:
            ConfigError: None does; the message names the smallest time that is in reach.
        """
        before_s = self.encode_s if spent_s is None else spent_s
        fitting = None
        for method in methods:
            if before_s + self.answer_s(method) > limit_s:
                break
            fitting = method
        if fitting is None:
            least = methods[0]
            in_reach = seconds(before_s + self.answer_s(least))
            spent, otherwise = "reading and encoding this video took", ""
            if spent_s is None:
                spent = "encoding a video takes"
                otherwise = f", or, if this machine was busy when it was measured, delete {self.path}"
            raise ConfigError(
                f"no first token within {seconds(limit_s)} here: {least.name} takes at least {in_reach}, "
                f"with {least.budget} tokens ({spent} {seconds(before_s)}): "
                f"allow more, use another method or bundle{otherwise}"
            )
        return fitting

    def _time(self, stage: str, measure: Callable[[], float]) -> float:
        known = self._content["seconds"]
        if stage not in known:
            known[stage] = measure()
            self._write()
        return float(known[stage])

    def _write(self) -> None:
        """Keep what was measured; without a writable cache the next process measures again."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self.path, json.dumps(self._content, indent=1) + "\n")
        except OSError as error:
            if self._explicit:
                raise ConfigError(
                    f"{self.path.parent} cannot be written to ({error.strerror}): choose another --cache-dir"
                ) from None


def seconds(value: float) -> str:
    """A time to three digits."""
    return f"{value:.0f} s" if value >= 100 else f"{value:.3g} s"


def read_seconds(path: Path) -> dict[str, float]:
    """Stage → seconds measured before; nothing where the file is missing or damaged."""
    try:
        stages = json.loads(path.read_text(encoding="utf-8"))["seconds"]
        return {str(stage): float(value) for stage, value in stages.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return {}


def encoder_seconds(loaded: LoadedBundle) -> float:
    """The encoder over T blank frames: its first call counts once, its second as often as it takes for the rest."""
    vision = loaded.bundle.manifest.vision
    session = loaded.vision.session(vision.encoder)
    shape = (vision.frames_per_call, vision.image_height, vision.image_width, 3)
    session.bind("frames", loaded.backend.tensor(np.zeros(shape, np.uint8)))
    calls = []
    for _ in range(2):
        start = time.perf_counter()
        session.run()
        for name in session.outputs:
            session.output(name).numpy()
        calls.append(time.perf_counter() - start)
    return calls[0] + (vision.num_frames // vision.frames_per_call - 1) * calls[1]


def first_token_seconds(loaded: LoadedBundle, method: MethodEntry) -> float:
    """Compressor and prefill at one budget over random features, with one of the bundle's example questions."""
    manifest = loaded.bundle.manifest
    inputs = loaded.vision.session(method.compressor).inputs
    rng = np.random.default_rng(0)
    features = {
        name: rng.standard_normal([int(size) for size in inputs[name].shape]).astype(inputs[name].dtype)
        for name in method.needs
    }
    encoded = EncodedVideo(features, np.zeros(manifest.vision.num_frames), 0.0, 0.0)
    question = (*manifest.prompt.examples, DEFAULT_QUESTION)[0]
    turns = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]}]
    times = []
    for _ in range(2):
        start = time.perf_counter()
        visual = loaded.vision.compress(encoded, method)
        span = visual_span(method, visual, manifest.tokens_total, loaded.newline)
        loaded.generator.prefill(loaded.rows(turns, span), loaded.max_tokens)
        times.append(time.perf_counter() - start)
    return max(times)
