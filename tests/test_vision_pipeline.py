"""Frames are encoded while the next ones are read; whatever the reader does comes out, and nothing hangs."""

import threading
import time

import numpy as np
import pytest

from edgevtc.backends import create_backend
from edgevtc.bundle import Bundle
from edgevtc.errors import ConfigError, VideoError
from edgevtc.video import Frame
from edgevtc.vision import ReadAhead, VisionPipeline


@pytest.fixture(scope="module")
def pipeline():
    return VisionPipeline(create_backend("cpu", 1), Bundle())


def frames(count, seed=0):
    rng = np.random.default_rng(seed)
    for index in range(count):
        yield Frame(index, index / 8, rng.integers(0, 256, (96, 96, 3), np.uint8))


def test_every_frame_is_encoded_in_its_place(pipeline):
    features = pipeline.encode(frames(16)).features["frame_tokens"]
    shuffled = list(frames(16))
    order = np.random.default_rng(1).permutation(16)
    again = pipeline.encode(Frame(i, 0.0, shuffled[j].image) for i, j in enumerate(order)).features["frame_tokens"]
    assert np.abs(again - features[order]).max() < 1e-4


@pytest.mark.parametrize("count", [0, 1, 15, 17])
def test_another_number_of_frames_is_refused(pipeline, count):
    with pytest.raises(ConfigError, match="takes 16 frames"):
        pipeline.encode(frames(count))


def test_an_error_of_the_reader_comes_out_and_the_thread_ends(pipeline):
    def broken():
        yield from frames(5)
        raise VideoError("the file ends here")

    with pytest.raises(VideoError, match="ends here"):
        pipeline.encode(broken())
    assert not [t for t in threading.enumerate() if t.name == "edgevtc-frames"]


def test_a_reader_that_is_left_early_is_closed():
    closed = threading.Event()

    def endless():
        try:
            yield from frames(10_000)
        finally:
            closed.set()

    with ReadAhead(endless(), 4) as reader:
        next(iter(reader))
    assert closed.is_set()
    assert not [t for t in threading.enumerate() if t.name == "edgevtc-frames"]


def test_reading_runs_beside_its_use():
    read = threading.Semaphore(0)

    def slow():
        for frame in frames(8):
            time.sleep(0.03)
            read.release()
            yield frame

    with ReadAhead(slow(), 4) as reader:
        for number, _ in enumerate(reader):
            if number == 0:  # while the first is in use, the next four are read
                assert all(read.acquire(timeout=20) for _ in range(5))
    assert reader.busy_s >= 8 * 0.03
