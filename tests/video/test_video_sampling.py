import numpy as np
import pytest

from edgevtc.errors import ConfigError, VideoError
from edgevtc.video import VideoInfo, sample_indices, sample_timestamps


def clip(num_frames: int, fps: float = 30.0) -> VideoInfo:
    return VideoInfo(640, 360, num_frames / fps, fps, num_frames, "h264", "mp4")


@pytest.mark.parametrize("num_frames", [1, 2, 7, 32, 33, 1800])
@pytest.mark.parametrize("wanted", [1, 2, 8, 32, 64])
def test_even_choice_is_llavas(num_frames, wanted):
    expected = np.linspace(0, num_frames - 1, wanted, dtype=int)
    assert sample_indices(clip(num_frames), wanted).tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("num_frames", "rate", "wanted", "fps", "expected"),
    [
        (100, 10.0, 10, 1.0, list(range(0, 100, 10))),  # as many as asked for
        (100, 10.0, 4, 1.0, [0, 33, 66, 99]),  # more than the cap: LLaVA chooses evenly over the whole clip
        (30, 10.0, 6, 1.0, [0, 0, 0, 10, 10, 20]),  # fewer: some are repeated
        (9, 3.0, 9, 30.0, list(range(9))),  # a rate above the clip's own takes every frame
        (90, 29.97, 3, 1.0, [0, 30, 60]),  # the step is rounded, as LLaVA's
    ],
)
def test_fps_gives_a_grid_with_a_cap(num_frames, rate, wanted, fps, expected):
    assert sample_indices(clip(num_frames, rate), wanted, fps=fps).tolist() == expected


@pytest.mark.parametrize(
    ("start_s", "end_s", "expected"),
    [
        (None, None, [0, 49, 99]),
        (5.0, None, [50, 74, 99]),
        (None, 5.0, [0, 24, 49]),
        (2.0, 4.0, [20, 29, 39]),
        (0.3, 0.6, [3, 4, 5]),  # 0.3·10 is not 3 in binary
        (2.0, 99.0, [20, 59, 99]),  # an end past the clip's is the clip's
        (2.0, 2.01, [20, 20, 20]),  # less than a frame
        (9.999, None, [99, 99, 99]),
    ],
)
def test_interval(start_s, end_s, expected):
    assert sample_indices(clip(100, 10.0), 3, start_s=start_s, end_s=end_s).tolist() == expected


def test_timestamps_are_where_frames_begin():
    assert sample_timestamps(clip(100, 25.0), 3).tolist() == [0.0, 49 / 25, 99 / 25]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_frames": 0}, ConfigError, "num_frames is 0"),
        ({"num_frames": 8, "fps": 0.0}, ConfigError, "fps is 0.0"),
        ({"num_frames": 8, "fps": float("nan")}, ConfigError, "fps is nan"),
        ({"num_frames": 8, "start_s": -1.0}, ConfigError, "the start is -1.0 s"),
        ({"num_frames": 8, "start_s": 3.0, "end_s": 3.0}, ConfigError, "the end is 3.0 s: it must be above"),
        ({"num_frames": 8, "start_s": 10.0}, VideoError, "past the clip's end: it lasts 10.000 s"),
    ],
)
def test_wrong_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        sample_indices(clip(100, 10.0), **arguments)


def test_absurd_clips_cost_nothing():
    indices = sample_indices(clip(10**15, 1e4), 5, fps=0.001)
    assert indices.tolist() == [0, 249999999999999, 499999999999999, 749999999999999, 999999999999999]
