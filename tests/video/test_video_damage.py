import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from test_video_reading import write_with_sound
from video_clips import Encoding, number_shown, write_clip

from edgevtc.errors import VideoError
from edgevtc.video import FrameSampler, bounded, libav, probe, reader, timeline

FAST_START = Encoding(muxer={"movflags": "faststart"})


def empty(folder: Path) -> Path:
    (folder / "empty.mp4").touch()
    return folder / "empty.mp4"


def text(folder: Path) -> Path:
    (folder / "text.mp4").write_text("this is no video\n" * 1000)
    return folder / "text.mp4"


def named_as_a_picture(folder: Path) -> Path:
    (folder / "notes.png").write_text("this is no picture\n" * 1000)
    return folder / "notes.png"


def playlist(folder: Path) -> Path:
    clip = write_clip(folder / "listed.ts", 10)
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{clip}\n#EXT-X-ENDLIST\n")
    return folder / "list.m3u8"


def concat_list(folder: Path) -> Path:
    clip = write_clip(folder / "listed.ts", 10)
    (folder / "list.mp4").write_text(f"ffconcat version 1.0\nfile {clip}\n")
    return folder / "list.mp4"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def no_index(folder: Path) -> Path:
    path = write_clip(folder / "no_index.mp4", 30)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def only_header(folder: Path) -> Path:
    path = write_clip(folder / "header.mkv", 30)
    path.write_bytes(path.read_bytes()[:700])
    return path


def decoder_that_does_not_open(folder: Path) -> Path:
    # FFV1's configuration has a checksum. PyAV 19 raises a ValueError, or dies, when it is asked about such a decoder.
    path = write_clip(folder / "closed.mkv", 10, Encoding("ffv1"))
    head, codec, rest = path.read_bytes().partition(b"\x63\xa2")
    assert codec
    path.write_bytes(head + codec + rest[:8] + bytes(8) + rest[16:])
    return path


def sixty_thousand_pixels(folder: Path) -> Path:
    # The sizes in the header of the file and in that of its pictures.
    path = write_clip(folder / "huge.avi", 3, Encoding("mjpeg", pixel_format="yuvj420p"), size=(64, 48))
    data = path.read_bytes().replace(struct.pack("<II", 48, 64), struct.pack("<II", 60_000, 60_000))
    path.write_bytes(data.replace(struct.pack(">HH", 64, 48), struct.pack(">HH", 60_000, 60_000)))
    return path


def index_bomb(folder: Path) -> Path:
    # One size for all samples, and four thousand million of them, in twenty bytes.
    path = write_clip(folder / "bomb.mp4", 5)
    data = bytearray(path.read_bytes())
    at = data.index(b"stsz") + 8
    data[at : at + 8] = struct.pack(">II", 100, 2**32 - 1)
    path.write_bytes(data)
    return path


def fragment_bomb(folder: Path) -> Path:
    path = write_clip(folder / "fragments.mp4", 5, Encoding(muxer={"movflags": "frag_keyframe+empty_moov"}))
    data = bytearray(path.read_bytes())
    at = data.index(b"trun") + 8
    data[at : at + 4] = struct.pack(">I", 100_000_000)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: folder / "none.mp4", "does not exist: give a video file"),
        (
            lambda _: "https://example.com/a.mp4",
            "https://example.com/a.mp4 is a URL, and only files are read: download",
        ),
        (named_as_a_picture, "notes.png cannot be read as a picture or a video"),
        (
            lambda folder: write_with_sound(folder / "sound.mp4", num_frames=0, sound_s=1.0),
            "holds only sound: give a file with",
        ),
        (empty, "empty.mp4 is empty: was it copied"),
        (text, "cannot be read as a video"),
        (playlist, "cannot be read as a video"),
        (concat_list, "cannot be read as a video"),
        (pipe, "is not a file"),
        (no_index, "cannot be read as a video"),
        (only_header, "header.mkv"),
        (decoder_that_does_not_open, "no frame of its ffv1 video can be decoded"),
        (sixty_thousand_pixels, "Mi pixels"),
        (index_bomb, "claims 4294967295 samples in"),
        (fragment_bomb, "claims 100000000 samples in"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_cannot_be_read_says_so_in_one_line(make, message, tmp_path):
    source = make(tmp_path)
    for use in (probe, lambda path: list(FrameSampler(path, 4))):
        with pytest.raises(VideoError) as caught:
            use(source)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_file_that_must_not_be_read(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "secret.mp4", 5)

    def forbidden(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", forbidden)  # the user of a test may be root, whom no mode stops
    with pytest.raises(VideoError, match=r"secret\.mp4 cannot be read: permission denied"):
        probe(path)


@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("cut.mp4", FAST_START),
        ("cut.mkv", Encoding()),
        ("cut.webm", Encoding("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"})),
        ("cut.avi", Encoding("mjpeg", pixel_format="yuvj420p")),
    ],
)
def test_of_a_cut_file_the_rest_is_used_and_told(name, encoding, tmp_path):
    path = write_clip(tmp_path / name, 100, encoding)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 6 // 10])
    with FrameSampler(path, 8) as sampler:
        shown = [number_shown(frame.image) for frame in sampler]
        assert sampler.warnings[0].startswith(f"{name} ends early: ")
        assert len(shown) == 8
        assert shown == sorted(shown)
        assert shown[0] == 0
        assert 20 < shown[-1] < 95
        assert abs(shown[-1] - sampler.indices[-1]) <= 3  # what is reported is what can be decoded


def test_of_a_cut_transport_stream_the_rest_is_used(tmp_path):
    path = write_clip(tmp_path / "cut.ts", 100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with FrameSampler(path, 6) as sampler:
        shown = [number_shown(frame.image) for frame in sampler]
        assert any("ends in the middle of a packet" in warning for warning in sampler.warnings)
    assert shown == sorted(shown)
    assert 20 < shown[-1] < 80


def test_a_transport_stream_cut_between_packets_is_read_without_a_word(tmp_path):
    path = write_clip(tmp_path / "cut.ts", 100)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 // 188 * 188])
    with FrameSampler(path, 6) as sampler:
        assert not any("packet: it is cut" in warning for warning in sampler.warnings)


@pytest.mark.parametrize("parts", [(60, 60), (200, 200), (60, 200), (90, 60, 200), (60, 60, 60), (15, 60), (200, 10)])
def test_joined_recordings_of_any_lengths_are_counted(parts, tmp_path):
    pieces = {length: write_clip(tmp_path / f"{length}.ts", length).read_bytes() for length in parts}
    path = tmp_path / "joined.ts"
    path.write_bytes(b"".join(pieces[length] for length in parts))
    expected = [number for length in parts for number in range(length)]
    with FrameSampler(path, 12) as sampler:
        seams = len(parts) - 1  # each may cost the packet that it cuts, and a frame that refers to it
        assert len(expected) - seams <= sampler.info.num_frames <= len(expected)
        for frame, index in zip(sampler, sampler.indices, strict=True):
            assert number_shown(frame.image) in expected[index : index + 2 * seams + 1]


def test_a_stream_whose_clock_overflows_is_not_taken_for_joined(tmp_path):
    # The clock of a transport stream has 33 bits, and begins anew after 26.5 hours.
    path = write_clip(tmp_path / "late.ts", 90, times_ms=[95_442_000 + 33 * number for number in range(90)])
    file = libav.VideoFile(path)
    assert not file.time_goes_back()
    file.close()
    with FrameSampler(path, 5) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 22, 44, 66, 89]


def test_damage_in_the_middle_is_passed_over_and_told(tmp_path):
    path = write_clip(tmp_path / "holes.ts", 60)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 3000] = bytes(3000)
    path.write_bytes(data)
    with FrameSampler(path, 60) as sampler:
        shown = [number_shown(frame.image) for frame in sampler]
        assert any("damaged" in warning for warning in sampler.warnings)
    assert shown[:20] == list(range(20))
    assert shown[-10:] == list(range(50, 60))


def test_joined_recordings_are_one_clip(tmp_path):
    # Time starts again in the middle, and the second part brings a stream of sound that the first has not.
    first = write_clip(tmp_path / "first.ts", 200)
    second = write_with_sound(tmp_path / "second.ts", num_frames=60, sound_s=3.0)
    (tmp_path / "joined.ts").write_bytes(first.read_bytes() + second.read_bytes())
    with FrameSampler(tmp_path / "joined.ts", 8) as sampler:
        assert sampler.info.num_frames in (259, 260)  # the packet at the seam is damaged
        shown = [number_shown(frame.image) for frame in sampler]
    assert all(abs(number - index % 200) <= 1 for number, index in zip(shown, sampler.indices, strict=True))


def test_ten_thousand_frames_a_second(tmp_path):
    path = write_clip(tmp_path / "fast.mp4", 600, Encoding(options={"qp": "20"}, gop=5000), rate=10_000, size=(48, 96))
    with FrameSampler(path, 5) as sampler:
        assert sampler.info.fps == 10_000
        assert [number_shown(frame.image) for frame in sampler] == [0, 149, 299, 449, 599]


def test_a_header_that_promises_an_hour(tmp_path):
    # The duration of an MKV is a float in its header; the file goes on for two seconds.
    path = write_clip(tmp_path / "promise.mkv", 60)
    data = bytearray(path.read_bytes())
    at = data.index(b"\x44\x89\x88") + 3
    data[at : at + 8] = struct.pack(">d", 3_600_000.0)
    path.write_bytes(data)
    with FrameSampler(path, 3) as sampler:
        assert sampler.info.num_frames == 60
        assert [number_shown(frame.image) for frame in sampler] == [0, 29, 59]
        assert sampler.warnings == ["promise.mkv ends early: 3598.0 s of 3600.0 s are missing"]


def test_a_clip_without_keyframes_is_given_up_in_the_end(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "one_keyframe.mp4", 60, Encoding(gop=10_000))
    monkeypatch.setattr(reader, "MAX_FRAMES_TO_REACH_ONE", 20)
    with pytest.raises(VideoError, match="no keyframe in 20 frames"):
        list(FrameSampler(path, 2))


def test_large_pictures_without_keyframes_are_given_up_sooner(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "one_keyframe.mp4", 60, Encoding(gop=10_000))
    monkeypatch.setattr(reader, "MAX_DECODED_PIXELS", 20 * 96 * 128)
    assert len(list(FrameSampler(path, 4, end_s=0.3))) == 4
    with pytest.raises(VideoError, match="would have to be decoded: encode it anew"):
        list(FrameSampler(path, 2))


@pytest.mark.parametrize(
    ("name", "encoding"), [("hole.h264", Encoding()), ("hole.mpg", Encoding("mpeg2video")), ("hole.ts", Encoding())]
)
def test_zeros_without_end_are_given_up(name, encoding, tmp_path, monkeypatch):
    # A sparse file: what was to be read of it is told by how far the file was read.
    path = write_clip(tmp_path / name, 60, encoding)
    os.truncate(path, 2**34)
    monkeypatch.setattr(libav, "MAX_BYTES_A_PACKET", 2**24)
    with FrameSampler(path, 4) as sampler:
        shown = [number_shown(frame.image) for frame in sampler]
        assert any("damaged" in warning for warning in sampler.warnings)
    assert shown[0] == 0
    assert shown == sorted(shown)
    assert shown[-1] >= 57


def test_looking_through_has_a_time_limit(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "raw.h264", 60)
    monkeypatch.setattr(reader, "LEARN_TIMEOUT_S", -1.0)
    with pytest.raises(VideoError, match="takes too long to look through: put it into a container"):
        probe(path)


def test_endless_packets_are_given_up_in_the_end(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "raw.h264", 60)
    monkeypatch.setattr(timeline, "MAX_SCANNED_PACKETS", 20)
    with pytest.raises(VideoError, match="more than 20 packets"):
        probe(path)


def test_a_tag_that_is_no_utf8_is_no_reason_to_refuse_a_file(clips):
    path = write_clip(clips / "tagged.mp4", 10)
    content, muxer = path.read_bytes(), b"Lavf"
    assert content.count(muxer) == 1
    path.write_bytes(content.replace(muxer, b"\xe9" * len(muxer)))
    with FrameSampler(path, 2) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 9]
        assert sampler.warnings == []


def test_frame_threads_that_wait_for_a_missing_frame_do_not_hang():
    """H.265 as the fuzzer damaged it: with frame threads libav never came back from it."""
    read = "import sys; from edgevtc.video import iter_frames; print(len(list(iter_frames(sys.argv[1], 8))))"
    path = Path(__file__).parents[1] / "data" / "video" / "frames_missing.mkv"
    done = subprocess.run([sys.executable, "-c", read, str(path)], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.returncode) == ("8\n", 0)


def units_ahead(data: bytes, unit: bytes) -> bytes:
    return unit * 100_000 + data


def units_in_the_middle(data: bytes, unit: bytes) -> bytes:
    at = data.index(b"\0\0\1", len(data) // 2)
    at -= data[at - 1] == 0
    return data[:at] + unit * 100_000 + data[at:]


@pytest.mark.parametrize("place", [units_ahead, units_in_the_middle])
@pytest.mark.parametrize(
    ("name", "encoding", "unit"),
    [
        ("units.h264", Encoding(), b"\0\0\1\x09\xf0"),
        ("units.hevc", Encoding("libx265", {"x265-params": "log-level=none"}), b"\0\0\1\x46\1\x50"),
    ],
)
def test_units_without_number_are_not_taken_apart(place, name, encoding, unit, tmp_path):
    # libav takes 4 KiB for each, and that several times over: the peak of a process of its own tells.
    path = write_clip(tmp_path / name, 30, encoding)
    path.write_bytes(place(path.read_bytes(), unit))
    assert extra_mebibytes(path) < 300


def extra_mebibytes(path: Path) -> float:
    """What reading a file adds to the peak of a process's memory."""
    code = """if True:
        import sys
        from edgevtc.errors import VideoError
        from edgevtc.video import iter_frames

        def peak():
            return int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0]) / 1024

        before = peak()
        try:
            list(iter_frames(sys.argv[1], 4))
        except VideoError:
            pass
        print(peak() - before)
    """
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60)
    return float(done.stdout)


def test_pictures_of_many_slices_are_read(tmp_path):
    # As many as an 8K picture has rows of blocks.
    encoding = Encoding(options={"x264-params": "slices=270:slice-min-mbs=1:threads=1"})
    path = write_clip(tmp_path / "slices.h264", 4, encoding, size=(4320, 64))
    assert path.read_bytes().count(b"\0\0\1") > 1000
    with FrameSampler(path, 4) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 1, 2, 3]
        assert sampler.warnings == []


@pytest.mark.parametrize("call", ["read", "seek"])
def test_an_interrupt_that_reaches_libav_is_not_lost(call, tmp_path, monkeypatch):
    path = write_clip(tmp_path / "slow.mp4", 30)
    original = getattr(bounded.BoundedFile, call)

    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(bounded.BoundedFile, call, interrupted)
    with pytest.raises(KeyboardInterrupt):
        probe(path)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_that_raises_nothing_does_not_end_the_reading(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "slow.mp4", 30)
    original, seen = bounded.BoundedFile.seek, []

    def interrupted(self, *arguments):
        os.kill(os.getpid(), signal.SIGINT)
        return original(self, *arguments)

    monkeypatch.setattr(bounded.BoundedFile, "seek", interrupted)
    before = signal.signal(signal.SIGINT, lambda *_: seen.append(1))
    try:
        assert probe(path).num_frames == 30
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen


def test_only_what_may_be_too_large_is_said_to_be(tmp_path):
    path = write_clip(tmp_path / "damaged.mkv", 3, Encoding("ffv1"))
    data = bytearray(path.read_bytes())
    first = data.index(b"\x1f\x43\xb6\x75") + 40  # the first cluster's pictures
    data[first:] = bytes(len(data) - first)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"can be decoded: it is damaged$"):
        probe(path)


@pytest.mark.parametrize(("width", "height", "allowed"), [(8192, 4320, True), (8192, 8192, False)])
def test_a_video_may_be_8k_and_no_square_of_that_width(width, height, allowed, tmp_path):
    path = write_clip(tmp_path / "large.avi", 1, Encoding("mjpeg", pixel_format="yuvj420p"), size=(64, 48))
    data = path.read_bytes().replace(struct.pack("<II", 48, 64), struct.pack("<II", width, height))
    path.write_bytes(data.replace(struct.pack(">HH", 64, 48), struct.pack(">HH", height, width)))
    if allowed:
        libav.VideoFile(path).close()
    else:
        with pytest.raises(VideoError, match="8192x8192 pixels, above the limit of 36 Mi pixels: scale it down"):
            libav.VideoFile(path)
