"""Cut files: each is told to be one, and no whole file is."""

import struct
from pathlib import Path

import numpy as np
import pytest
from test_video_reading import write_with_sound
from video_boxes import box
from video_clips import Encoding, number_shown, write_clip

from edgevtc.video import FrameSampler, ending

VP8 = Encoding("libvpx", {"deadline": "realtime", "cpu-used": "8"})
NUM_FRAMES = 100


def fragmented(flags: str) -> Encoding:
    return Encoding(muxer={"movflags": f"{flags}+empty_moov+default_base_moof"})


def killed(path: Path) -> Path:
    """An MKV as a recorder leaves it that was killed: neither its length nor its duration was filled in."""
    data = bytearray(path.read_bytes())
    length = data.index(ending.SEGMENT) + 4
    data[length : length + 8] = b"\1" + b"\xff" * 7
    duration = data.index(b"\x44\x89\x88")
    data[duration : duration + 11] = b"\xec\x89" + bytes(9)
    path.write_bytes(data)
    return path


def write(folder: Path, name: str, encoding: Encoding) -> Path:
    path = write_clip(folder / name, NUM_FRAMES, encoding, size=(48, 64))
    return killed(path) if name == "killed.mkv" else path


def sample(path: Path) -> tuple[list[int], list[str]]:
    with FrameSampler(path, 6) as sampler:
        return [number_shown(frame.image) for frame in sampler], sampler.warnings


CUT = [
    ("killed.mkv", Encoding()),
    ("live.mkv", Encoding(muxer={"live": "1"})),
    ("known.mkv", Encoding()),
    ("a.webm", VP8),
    ("a.ogv", Encoding(VP8.encoder, VP8.options, format="ogg")),
    ("a.avi", Encoding()),
    ("b.avi", Encoding("mjpeg", pixel_format="yuvj420p")),
    ("a.mxf", Encoding("mpeg2video", {"bf": "2"})),
    ("b.mxf", Encoding()),
    ("a.wmv", Encoding("wmv2")),
    ("b.wmv", Encoding()),
    ("keyframes.mp4", fragmented("frag_keyframe")),
    ("frames.mp4", fragmented("frag_every_frame")),
]


@pytest.mark.parametrize(("name", "encoding"), CUT, ids=[name for name, _ in CUT])
def test_a_cut_file_is_used_and_told_wherever_it_is_cut(name, encoding, tmp_path):
    path = write(tmp_path, name, encoding)
    assert sample(path)[1] == []
    data = path.read_bytes()
    for share in np.linspace(0.6, 0.93, 7):
        path.write_bytes(data[: int(len(data) * share)])
        shown, warnings = sample(path)
        assert "ends early: " in warnings[0] or "ends in the middle of a" in warnings[0] or "of its data" in warnings[0]
        assert sum("ends" in warning for warning in warnings) == 1
        assert shown == sorted(shown)
        assert 20 < shown[-1] < NUM_FRAMES


def top_boxes(data: bytes) -> list[tuple[int, bytes]]:
    at, found = 0, []
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        found.append((at, kind))
        at += length
    return found


def test_fragments_before_a_cut_one_are_used(tmp_path):
    path = write(tmp_path, "a.mp4", fragmented("frag_every_frame"))
    data = path.read_bytes()
    boxes = top_boxes(data)
    at = [at for at, kind in boxes if kind == b"moof"][60]
    contents = next(start for start, kind in boxes if start > at and kind == b"mdat")
    for cut in (at + 3, at + 8, at + 50, contents - 1, contents, contents + 4):
        path.write_bytes(data[:cut])
        shown, warnings = sample(path)
        assert warnings[0] == "a.mp4 ends in the middle of a fragment: it is cut short, by how much is not known"
        assert 55 <= shown[-1] <= 60
    path.write_bytes(data[:at])  # between two fragments: as a shorter recording would be
    assert sample(path)[1] == []


def test_boxes_after_the_fragments_are_no_cut(tmp_path):
    path = write(tmp_path, "a.mp4", fragmented("frag_keyframe"))
    data = path.read_bytes()
    for rest in (bytes(100), box(b"free", bytes(50)), b"\0\0\1\0junk and no box"):
        path.write_bytes(data + rest)
        shown, warnings = sample(path)
        assert (shown[-1], warnings) == (NUM_FRAMES - 1, [])


@pytest.mark.parametrize("name", ["killed.mkv", "known.mkv", "a.avi", "a.wmv"])
def test_zeros_after_the_end_are_no_cut(name, tmp_path):
    path = write(tmp_path, name, Encoding("wmv2") if name == "a.wmv" else Encoding())
    path.write_bytes(path.read_bytes() + bytes(1000))
    assert not any("ends" in warning for warning in sample(path)[1])


def test_a_cluster_too_large_to_be_searched_for_is_walked_to(tmp_path, monkeypatch):
    monkeypatch.setattr(ending, "SEARCHED_BYTES", 100)
    path = write(tmp_path, "killed.mkv", Encoding())
    assert sample(path)[1] == []
    path.write_bytes(path.read_bytes()[:-700])
    assert "in the middle of an element" in sample(path)[1][0]


def test_empty_slots_at_the_end_of_an_avi_are_not_missing(tmp_path):
    path = write(tmp_path, "a.avi", Encoding("mjpeg", pixel_format="yuvj420p"))
    data = bytearray(path.read_bytes())
    for header, at in ((b"avih", 24), (b"strh", 40)):
        count = data.index(header) + at
        assert data[count : count + 4] == struct.pack("<I", NUM_FRAMES)
        data[count : count + 4] = struct.pack("<I", NUM_FRAMES + 30)
    path.write_bytes(data)
    assert sample(path)[1] == []


@pytest.mark.parametrize("name", ["long.mkv", "long.avi", "long.wmv", "long.mp4"])
def test_sound_that_goes_on_is_no_cut(name, tmp_path):
    path = write_with_sound(tmp_path / name, num_frames=60, sound_s=5.0)
    assert sample(path)[1] == []
