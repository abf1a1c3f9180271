import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import video_formats
from PIL import Image
from video_clips import Encoding, has_encoder, number_shown, numbered_picture, repeat_clip, write_clip
from video_formats import DOCUMENT, FORMATS, check_format, decode_everything, table

from edgevtc.errors import ConfigError
from edgevtc.video import RESAMPLE_FILTERS, FrameSampler, iter_frames, probe, reader
from edgevtc.video.libav import VideoFile


def numbers(path: Path, wanted: int, **options) -> list[int]:
    return [number_shown(frame.image) for frame in iter_frames(path, wanted, **options)]


@pytest.mark.parametrize("fmt", FORMATS, ids=lambda fmt: f"{fmt.container}-{fmt.codec}-{fmt.note}".replace(" ", "_"))
def test_sampling_equals_decoding_everything(fmt, clips):
    if not has_encoder(fmt.encoding.encoder):
        pytest.skip(f"this build of PyAV cannot write {fmt.codec}")
    assert check_format(fmt, clips) is None


def test_the_table_of_formats_is_up_to_date():
    assert table() in DOCUMENT.read_text(encoding="utf-8")


def test_a_table_with_unchecked_rows_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(video_formats, "has_encoder", lambda _: False)
    monkeypatch.setattr(video_formats, "DOCUMENT", tmp_path / "none.md")
    monkeypatch.setattr("sys.argv", ["video_formats.py", "--write"])
    with pytest.raises(SystemExit, match=r"^\d+ formats were not checked"):
        video_formats.main()


@pytest.mark.parametrize("name", ["a.mp4", "b.mp4", "a.mkv", "b.ts", "c.ts", "b.webm"])
def test_seeking_to_every_frame_is_exact(name, clips, monkeypatch):
    fmt = next(fmt for fmt in FORMATS if fmt.file_name == name)
    path = write_clip(clips / f"every_{name}", 50, fmt.encoding)
    monkeypatch.setattr(reader, "SHORTEST_SEEK_S", -1)
    monkeypatch.setattr(reader, "MAX_FUTILE_SEEKS", 10**6)
    for frame, expected in zip(iter_frames(path, 50), decode_everything(path), strict=True):
        np.testing.assert_array_equal(frame.image, expected)


def test_varying_frame_rate_is_sampled_in_time(clips):
    # Twenty frames in the first two seconds, then one a second.
    times_ms = [*range(0, 2000, 100), *range(2000, 12000, 1000)]
    for name in ("vfr.mp4", "vfr.mkv"):
        path = write_clip(clips / name, 30, times_ms=times_ms)
        info = probe(path)
        with FrameSampler(path, 12) as sampler:
            for frame, index in zip(sampler, sampler.indices, strict=True):
                slot_ms = 1000 * (index + 0.5) / info.fps
                on_show = max(number for number, time in enumerate(times_ms) if time <= slot_ms)
                assert number_shown(frame.image) == on_show
                assert frame.time_s == pytest.approx(times_ms[on_show] / 1000, abs=0.002)


@pytest.mark.parametrize("name", ["late.mkv", "late.ts", "late.mp4"])
def test_a_clip_that_does_not_start_at_zero(name, clips):
    path = write_clip(clips / name, 50, times_ms=[5000 + 100 * i for i in range(50)], rate=10)
    info = probe(path)
    assert (info.num_frames, info.fps) == (50, pytest.approx(10, abs=0.01))
    assert info.duration_s == pytest.approx(5.0, abs=0.01)
    assert numbers(path, 5) == [0, 12, 24, 36, 49]
    assert [frame.time_s for frame in iter_frames(path, 3)] == pytest.approx([0, 2.4, 4.9], abs=0.002)
    with FrameSampler(path, 2, start_s=1.0, end_s=2.0) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [10, 19]
        assert sampler.warnings == []


def test_longer_sound_does_not_stretch_the_clip(clips):
    assert probe(write_with_sound(clips / "sound.mkv", num_frames=60, sound_s=5.0)).num_frames == 60
    with FrameSampler(clips / "sound.mkv", 4) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 19, 39, 59]
        assert sampler.info.has_audio
        assert sampler.warnings == []


def write_with_sound(path: Path, num_frames: int, sound_s: float) -> Path:
    import av

    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30) if num_frames else None
        sound = container.add_stream("aac", rate=8000)
        if video:
            video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
            for number in range(num_frames):
                container.mux(video.encode(av.VideoFrame.from_ndarray(numbered_picture(number), format="rgb24")))
            container.mux(video.encode())
        for start in range(0, int(8000 * sound_s), 1024):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, start
            container.mux(sound.encode(samples))
        container.mux(sound.encode())
    return path


def test_cost_is_in_proportion_to_the_frames_not_the_clip(clips, monkeypatch):
    path = repeat_clip(write_clip(clips / "short.mp4", 60, rate=10), clips / "long.mp4", times=100)
    decoded = 0
    frames = VideoFile.frames

    def counted(self, from_keyframe):
        nonlocal decoded
        for frame in frames(self, from_keyframe):
            decoded += 1
            yield frame

    monkeypatch.setattr(VideoFile, "frames", counted)
    assert probe(path).num_frames == 6000
    assert decoded <= 1
    for wanted in (4, 16, 64):
        decoded = 0
        with FrameSampler(path, wanted) as sampler:
            assert [number_shown(frame.image) for frame in sampler] == [index % 60 for index in sampler.indices]
        # At most a group of pictures (12), the frame after, and once the first.
        assert decoded <= 14 * wanted


def test_widely_spaced_keyframes_are_not_decoded_again_and_again(clips, monkeypatch):
    path = write_clip(clips / "one_keyframe.mp4", 400, Encoding(gop=10_000), rate=5)
    decoded = 0
    frames = VideoFile.frames

    def counted(self, from_keyframe):
        nonlocal decoded
        for frame in frames(self, from_keyframe):
            decoded += 1
            yield frame

    monkeypatch.setattr(VideoFile, "frames", counted)
    assert numbers(path, 20) == np.linspace(0, 399, 20, dtype=int).tolist()
    assert decoded <= 2 * 400


MEMORY_PROGRAM = """
import sys
from edgevtc.video import iter_frames
for frame in iter_frames(sys.argv[1], 32, size=(64, 64)):
    pass
print(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
"""


def test_memory_does_not_grow_with_the_clip(clips):
    short = write_clip(clips / "s.mp4", 60, rate=10, size=(360, 640))
    long = repeat_clip(short, clips / "l.mp4", times=60)
    short_kib, long_kib = (
        int(subprocess.run([sys.executable, "-c", MEMORY_PROGRAM, path], capture_output=True, check=True).stdout)
        for path in (short, long)
    )
    assert long_kib - short_kib < 24 * 1024


@pytest.mark.parametrize("resample", RESAMPLE_FILTERS)
@pytest.mark.parametrize("size", [(24, 40), (200, 130)])
def test_resize_is_pillows(resample, size, clips):
    path = write_clip(clips / "r.mp4", 3) if not (clips / "r.mp4").exists() else clips / "r.mp4"
    for frame, full in zip(iter_frames(path, 3, size, resample=resample), decode_everything(path), strict=True):
        expected = Image.fromarray(full).resize((size[1], size[0]), getattr(Image.Resampling, resample.upper()))
        assert frame.image.dtype == np.uint8
        assert np.abs(frame.image.astype(int) - np.asarray(expected).astype(int)).max() <= 1


def turned_matrix(name: str) -> bytes:
    """Display matrices (a, b, u, c, d, v, x, y, w), big-endian, as they stand in MP4's track header."""
    one = 0x10000
    a, b, c, d = {
        "0": (one, 0, 0, one),
        "90": (0, one, -one, 0),
        "180": (-one, 0, 0, -one),
        "270": (0, -one, one, 0),
        "mirrored": (-one, 0, 0, one),
        "mirrored, 90": (0, -one, -one, 0),
    }[name]
    return b"".join(value.to_bytes(4, "big", signed=True) for value in (a, b, 0, c, d, 0, 0, 0, 0x40000000))


@pytest.mark.parametrize(
    ("matrix", "stored_from_upright", "rotation"),
    [
        ("90", lambda upright: np.rot90(upright, 1), 90),
        ("180", lambda upright: np.rot90(upright, 2), 180),
        ("270", lambda upright: np.rot90(upright, 3), 270),
        ("mirrored", lambda upright: upright[:, ::-1], 0),
        ("mirrored, 90", lambda upright: np.rot90(upright, 1)[:, ::-1], 90),
    ],
)
def test_display_matrix_is_obeyed(matrix, stored_from_upright, rotation, clips):
    stored = [np.ascontiguousarray(stored_from_upright(numbered_picture(number))) for number in range(5, 11)]
    path = write_clip(clips / f"turned {matrix}.mp4", 6, size=stored[0].shape[:2], pictures=iter(stored))
    data = path.read_bytes()
    assert data.count(turned_matrix("0")) >= 1
    track = data.index(b"tkhd")
    path.write_bytes(data[:track] + data[track:].replace(turned_matrix("0"), turned_matrix(matrix), 1))
    info = probe(path)
    assert (info.height, info.width, info.rotation) == (96, 128, rotation)
    assert numbers(path, 6) == [5, 6, 7, 8, 9, 10]
    assert next(iter_frames(path, 1)).image.shape == (96, 128, 3)


def test_odd_sizes(clips):
    path = write_clip(clips / "odd.mov", 4, Encoding("mjpeg", pixel_format="yuvj420p"), size=(97, 131))
    assert [frame.image.shape for frame in iter_frames(path, 2)] == [(97, 131, 3)] * 2
    assert numbers(path, 4, size=(51, 77)) == [0, 1, 2, 3]


def test_frames_carry_their_place_and_repeats_share_an_image(clips):
    path = write_clip(clips / "three.mp4", 3)
    frames = list(iter_frames(path, 6, size=(32, 32)))
    assert [frame.index for frame in frames] == list(range(6))
    assert [number_shown(frame.image) for frame in frames] == [0, 0, 0, 1, 1, 2]
    assert frames[0].image is frames[2].image
    assert frames[3].time_s == pytest.approx(1 / 30)


def test_a_sampler_can_be_iterated_again(clips):
    path = write_clip(clips / "again.mp4", 40)
    with FrameSampler(path, 4) as sampler:
        first = [number_shown(frame.image) for frame in sampler]
        next(iter(sampler))
        assert [number_shown(frame.image) for frame in sampler] == first == [0, 13, 26, 39]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resample": "cubic"}, "unknown resample filter 'cubic': one of: nearest, box, bilinear"),
        ({"size": (0, 10)}, "size is"),
        ({"size": (100_000, 100_000)}, "size is"),
        ({"size": (10,)}, "size is"),
    ],
)
def test_wrong_arguments(options, message, clips):
    with pytest.raises(ConfigError, match=message):
        FrameSampler(clips / "none.mp4", 4, **options)
