import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from video_clips import Encoding, number_shown, numbered_picture, write_clip

from edgevtc.video import FrameSampler, probe


def trim(path: Path, first: int, num_frames: int, rate: int = 30) -> None:
    """Make an MP4's edit list show so many frames from one on."""
    data = bytearray(path.read_bytes())
    movie, media = (struct.unpack_from(">I", data, data.index(box) + 16)[0] for box in (b"mvhd", b"mdhd"))
    at = data.index(b"elst") + 12
    _, begin = struct.unpack_from(">Ii", data, at)
    struct.pack_into(">Ii", data, at, num_frames * movie // rate, begin + first * media // rate)
    path.write_bytes(data)


@pytest.mark.parametrize(("first", "num_frames"), [(0, 30), (17, 73), (40, 30), (13, 31)])
def test_what_an_edit_list_hides_is_not_counted(first, num_frames, clips):
    path = write_clip(clips / f"trimmed_{first}_{num_frames}.mp4", 90, Encoding(gop=30))
    trim(path, first, num_frames)
    with FrameSampler(path, 7) as sampler:
        assert (sampler.info.num_frames, sampler.info.fps) == (num_frames, 30)
        expected = first + np.linspace(0, num_frames - 1, 7, dtype=int)
        assert [number_shown(frame.image) for frame in sampler] == expected.tolist()
        assert sampler.warnings == []


def test_a_varying_rate_in_flv_is_not_taken_for_a_cut(clips):
    path = write_clip(clips / "screen.flv", 7, times_ms=[0, 40, 9000, 9040, 25_000, 25_040, 60_000])
    with FrameSampler(path, 3) as sampler:
        assert number_shown(list(sampler)[-1].image) == 6
        assert sampler.warnings == []


def test_a_frame_in_five_seconds_is_not_taken_for_a_cut(clips):
    path = write_clip(clips / "slow.mkv", 60, rate=Fraction(1, 5))
    with FrameSampler(path, 3) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 29, 59]
        assert sampler.warnings == []


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(60_000, 1001)])
def test_the_rate_of_counted_frames_is_their_mean(rate, clips):
    # ASF tells its rate in whole milliseconds a frame.
    path = write_clip(clips / f"{rate.numerator}.wmv", 140, Encoding(format="asf"), rate=rate)
    assert probe(path).fps == pytest.approx(float(rate), rel=1e-3)


def test_a_thousand_frames_a_second_in_a_transport_stream(clips):
    path = write_clip(clips / "fast.ts", 100, rate=1000)
    with FrameSampler(path, 5) as sampler:
        assert (sampler.info.num_frames, sampler.info.fps) == (100, 1000)
        assert [number_shown(frame.image) for frame in sampler] == [0, 24, 49, 74, 99]


def test_the_rate_of_a_varying_transport_stream_is_its_mean(clips):
    times_ms = np.cumsum(np.random.default_rng(5).integers(5, 200, 100)).tolist()
    info = probe(write_clip(clips / "varying.ts", 100, times_ms=times_ms))
    assert info.num_frames == 100
    assert info.fps == pytest.approx(1000 * 99 / (times_ms[-1] - times_ms[0]), rel=0.01)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("joined.mp4", Encoding()),
        ("joined.flv", Encoding()),
        ("joined.wmv", Encoding("wmv2")),
        ("joined.png", Encoding("apng", pixel_format="rgb24", format="apng")),
    ],
)
def test_a_second_file_that_is_passed_over_is_told(name, encoding, tmp_path):
    path = write_clip(tmp_path / name, 30, encoding)
    first = path.read_bytes()
    with FrameSampler(path, 3) as sampler:
        assert sampler.warnings == []
    second = write_clip(path, 40, encoding, pictures=(numbered_picture(1000 + number) for number in range(40)))
    path.write_bytes(first + second.read_bytes())
    with FrameSampler(path, 3) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 14, 29]
        assert sampler.warnings == [f"{name}: of the files that were joined in it only the first is read"]
