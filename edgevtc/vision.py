"""The vision side at run time: frames → encoder features → exactly B tokens."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from edgevtc.backends import Backend, Session
from edgevtc.bundle import Bundle, MethodEntry
from edgevtc.decoder.prompt import VisualSpan
from edgevtc.errors import ConfigError
from edgevtc.video import Frame

__all__ = ["EncodedVideo", "VisionPipeline", "VisualTokens", "visual_span"]


@dataclass(frozen=True)
class EncodedVideo:
    """What the encoder made of a clip; any method at any budget can be applied to it.

    Attributes:
        features: Encoder output → array over all T frames (`frame_tokens` [T, N, D], …).
        times_s: [T] seconds, where in the clip each frame stands.
        frames_s: Seconds spent reading, decoding and resizing frames, beside the encoder.
        encode_s: Seconds spent in the encoder.
        frames_sha256: Hash of the frames, [T, H, W, 3] uint8.
    """

    features: dict[str, np.ndarray]
    times_s: np.ndarray
    frames_s: float
    encode_s: float
    frames_sha256: str = ""


@dataclass(frozen=True)
class VisualTokens:
    """A compressor's output.

    Attributes:
        tokens: [B, D].
        positions: [B] int32 raster indices t·N+n, ascending.
        counts: [B] int32 inputs folded into each slot.
        assignment: [T, N] int32 slot of each input, −1 where dropped.
        compress_s: Seconds it took.
        segments: [T] int32 index of the segment each frame belongs to; None where the graph does not say, as of
            methods that do not divide the clip and of bundles made before graphs did.
    """

    tokens: np.ndarray
    positions: np.ndarray
    counts: np.ndarray
    assignment: np.ndarray
    compress_s: float
    segments: np.ndarray | None = None


@dataclass
class VisionPipeline:
    """Runs a bundle's encoder and compressors; graphs are loaded when first used.

    Args:
        backend: Where they run.
        bundle: Where they come from.
        sessions: Those loaded so far, by file of the bundle.
    """

    backend: Backend
    bundle: Bundle
    sessions: dict[str, Session] = field(default_factory=dict)

    def session(self, graph: str) -> Session:
        """The loaded graph of a file of the bundle."""
        if graph not in self.sessions:
            self.sessions[graph] = self.backend.load(self.bundle.path, self.bundle.file(graph))
        return self.sessions[graph]

    def encode(self, frames: Iterable[Frame]) -> EncodedVideo:
        """Encode exactly T frames, C a call, while the next ones are read.

        Raises:
            ConfigError: More or fewer than T frames came.
        """
        vision = self.bundle.manifest.vision
        session = self.session(vision.encoder)
        features: dict[str, np.ndarray] = {}
        batch = np.empty((vision.frames_per_call, vision.image_height, vision.image_width, 3), np.uint8)
        times, encode_s, content = [], 0.0, hashlib.sha256()
        reader = ReadAhead(frames, 2 * vision.frames_per_call)
        with reader:
            for index, frame in enumerate(reader):
                if index >= vision.num_frames:
                    raise ConfigError(f"this bundle takes {vision.num_frames} frames, more were given")
                batch[index % len(batch)] = frame.image
                times.append(frame.time_s)
                if (index + 1) % len(batch):
                    continue
                content.update(batch.data)
                start = time.perf_counter()
                session.bind("frames", self.backend.tensor(batch))
                session.run()
                for name in session.outputs:
                    part = session.output(name).numpy()
                    whole = features.setdefault(name, np.empty((vision.num_frames, *part.shape[1:]), part.dtype))
                    whole[index + 1 - len(batch) : index + 1] = part
                encode_s += time.perf_counter() - start
        if len(times) != vision.num_frames:
            raise ConfigError(f"this bundle takes {vision.num_frames} frames, {len(times)} were given")
        return EncodedVideo(features, np.array(times), reader.busy_s, encode_s, content.hexdigest())

    def compress(self, video: EncodedVideo, method: MethodEntry) -> VisualTokens:
        """Keep exactly `method.budget` tokens of an encoded video."""
        session = self.session(method.compressor)
        start = time.perf_counter()
        for name in method.needs:
            session.bind(name, self.backend.tensor(video.features[name]))
        session.run()
        outputs = {name: session.output(name).numpy() for name in session.outputs}
        return VisualTokens(**outputs, compress_s=time.perf_counter() - start)


def visual_span(method: MethodEntry, visual: VisualTokens, tokens_total: int, newline: np.ndarray | None) -> VisualSpan:
    """The kept tokens, and the closing newline embedding, at the positions the method's mode gives them."""
    original = method.positions == "original"
    offsets = visual.positions if original else np.arange(len(visual.positions))
    length = tokens_total if original else len(visual.positions)
    embeddings = visual.tokens
    if newline is not None:
        embeddings = np.concatenate([embeddings, newline.reshape(1, -1).astype(embeddings.dtype)])
        offsets, length = np.append(offsets, length), length + 1
    return VisualSpan(object(), embeddings, offsets.astype(np.int64), length)


class ReadAhead:
    """Iterates over a source in a thread of its own, a few items ahead; an error comes out where its item would.

    Attributes:
        busy_s: Seconds the source took.
    """

    _END = object()

    def __init__(self, source: Iterable[Frame], depth: int) -> None:
        self._source = source
        self._queue: queue.Queue[object] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="edgevtc-frames", daemon=True)
        self.busy_s = 0.0

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get(timeout=0.05)  # a reader blocked on a full queue must see the stop
            except queue.Empty:
                continue
        self._thread.join()

    def __iter__(self) -> Iterator[Frame]:
        while (item := self._queue.get()) is not self._END:
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def _read(self) -> None:
        items: Iterator[Frame] = iter(())
        try:
            items = iter(self._source)
            while not self._stop.is_set():
                start = time.perf_counter()
                item: object = next(items, self._END)
                self.busy_s += time.perf_counter() - start
                self._queue.put(item)
                if item is self._END:
                    break
        except BaseException as error:
            self._queue.put(error)
        finally:
            if hasattr(items, "close"):
                items.close()  # in this thread: a generator cannot be closed from another while it runs
