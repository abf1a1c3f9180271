"""Indexes of MP4 that claim more than a file holds: refused before libav sets anything aside for them."""

import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_boxes import box, edit_boxes
from video_clips import Encoding, number_shown, write_clip

from edgevtc.errors import VideoError
from edgevtc.video import FrameSampler, boxes

SAMPLES = 60_000_000
FRAGMENTED = Encoding(muxer={"movflags": "frag_every_frame+empty_moov"})


@pytest.fixture(scope="module")
def clip(clips) -> bytes:
    """An MP4 whose index stands last."""
    return write_clip(clips / "index.mp4", 30, Encoding("mjpeg", pixel_format="yuvj420p"), size=(48, 64)).read_bytes()


@pytest.fixture(scope="module")
def sound(clips) -> bytes:
    """A MOV of a second of uncompressed sound beside its pictures."""
    path = clips / "sound.mov"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mjpeg", rate=30)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        audio = container.add_stream("pcm_s16le", rate=8000)
        for number in range(30):
            frame = av.VideoFrame(64, 48, "yuvj420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(video.encode(frame))
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), format="s16", layout="mono")
        samples.sample_rate, samples.pts = 8000, 0
        container.mux(audio.encode(samples))
        for stream in (video, audio):
            container.mux(stream.encode())
    return path.read_bytes()


def replace(data: bytes, **contents: bytes) -> bytes:
    """Give boxes other contents."""
    return edit_boxes(data, lambda kind, content: box(kind, contents.get(kind.decode("latin-1"), content)))


def claim(data: bytes, samples: int) -> bytes:
    return replace(data, stsz=struct.pack(">III", 0, 1, samples), stts=struct.pack(">IIII", 0, 1, samples, 1))


def split(data: bytes) -> tuple[bytes, bytes]:
    """What is before the index, and the index."""
    at = data.index(b"moov") - 4
    return data[:at], data[at:]


def no_length(data: bytes) -> bytes:
    before, index = split(claim(data, SAMPLES))
    return before + bytes(4) + index[4:]


def behind_many_boxes(data: bytes) -> bytes:
    before, index = split(claim(data, SAMPLES))
    return before + box(b"free") * 3000 + index


def compressed(data: bytes) -> bytes:
    before, index = split(claim(data, SAMPLES))
    packed = box(b"cmvd", struct.pack(">I", len(index)) + zlib.compress(index))
    return before + box(b"moov", box(b"cmov", box(b"dcom", b"zlib") + packed))


def named_otherwise(data: bytes) -> bytes:
    return claim(data, SAMPLES).replace(b"moov", b"hoov")


def set_free(data: bytes) -> bytes:
    return claim(data, SAMPLES).replace(b"moov", b"free")


def deeper_down(data: bytes) -> bytes:
    return edit_boxes(
        claim(data, SAMPLES), lambda kind, content: box(kind, box(b"udta", content) if kind == b"stbl" else content)
    )


def among_metadata(data: bytes) -> bytes:
    table = box(b"stsz", struct.pack(">III", 0, 1, SAMPLES))
    meta = box(b"meta", bytes(4) + box(b"hdlr", bytes(25)) + table)
    return edit_boxes(data, lambda kind, content: box(kind, content + meta if kind == b"minf" else content))


def in_a_description(data: bytes) -> bytes:
    table = box(b"stsz", struct.pack(">III", 0, 1, SAMPLES))

    def edit(kind: bytes, content: bytes) -> bytes:
        if kind != b"stsd":
            return box(kind, content)
        length = int.from_bytes(content[8:12], "big") + len(table)
        return box(kind, content[:8] + struct.pack(">I", length) + content[12:] + table)

    return edit_boxes(data, edit)


def behind_junk(data: bytes) -> bytes:
    return edit_boxes(claim(data, SAMPLES), lambda kind, content: box(b"udta", b"\0\0\0\2junk") + box(kind, content))


def edits_times_samples(data: bytes) -> bytes:
    edits = struct.pack(">II", 0, 500) + struct.pack(">IiI", 1000, 0, 2**16) * 500
    return replace(claim(data, 200_000), elst=edits) + box(b"free", bytes(200_000))


def many_edits(data: bytes) -> bytes:
    return replace(data, elst=struct.pack(">II", 0, 1001) + struct.pack(">IiI", 1000, 0, 2**16) * 1001)


def chunks_of_sound(data: bytes) -> bytes:
    # Forty places of two thousand million samples each, in 160 bytes: libav takes 2 GB.
    return replace(data, stsc=struct.pack(">IIIII", 0, 1, 1, 2**31 - 1, 1), stco=struct.pack(">II", 0, 40) + bytes(160))


def groups_of_samples(data: bytes) -> bytes:
    tables = box(b"sgpd", bytes(16)) + box(b"ctts", struct.pack(">IIII", 0, 1, 2**31 - 1, 0))
    return edit_boxes(data, lambda kind, content: box(kind, content + tables if kind == b"stbl" else content))


@pytest.mark.parametrize(
    ("bomb", "message"),
    [
        (no_length, "claims 60000000 samples in"),
        (behind_many_boxes, "has more than 2000 boxes"),
        (compressed, "has a compressed index"),
        (named_otherwise, "claims 60000000 samples in"),
        (set_free, "claims 60000000 samples in"),
        (deeper_down, "claims 60000000 samples in"),
        (among_metadata, "claims 60000030 samples in"),
        (in_a_description, "hides its index"),
        (behind_junk, "claims 60000000 samples in"),
        (edits_times_samples, "claims an index of 100000000 entries"),
        (many_edits, "has 1001 edits on one track"),
        (groups_of_samples, "claims an index of 2147483677 entries"),
    ],
)
def test_an_index_that_claims_too_much_is_refused_unbuilt(bomb, message, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "MAX_BOXES", 2000)
    refuses(bomb(clip), message, tmp_path)


def test_sound_that_claims_too_much_is_refused_unbuilt(sound, tmp_path):
    refuses(chunks_of_sound(sound), "claims an index of", tmp_path)


def refuses(data: bytes, message: str, folder: Path) -> None:
    path = folder / "bomb.mp4"
    path.write_bytes(data)
    with pytest.raises(VideoError) as caught:
        boxes.check_index(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_uncompressed_sound_is_counted_by_the_piece(sound, tmp_path, monkeypatch):
    # 8,000 samples, of which libav makes 8 entries; an hour of ordinary sound has 170 million.
    monkeypatch.setattr(boxes, "MAX_ENTRIES", 200)
    path = tmp_path / "sound.mov"
    path.write_bytes(sound)
    boxes.check_index(path)


def test_edits_of_an_ordinary_file_are_followed(clip, tmp_path, monkeypatch):
    # An empty edit, as of a track that begins late, costs nothing.
    monkeypatch.setattr(boxes, "MAX_ENTRIES", 70)
    edits = [(500, -1), (500, 0), (500, 0)]
    path = tmp_path / "edits.mp4"
    rows = b"".join(struct.pack(">IiI", *edit, 2**16) for edit in edits)
    path.write_bytes(replace(clip, elst=struct.pack(">II", 0, len(edits)) + rows))
    boxes.check_index(path)


def test_a_fragment_a_frame_is_read(tmp_path):
    path = write_clip(tmp_path / "fragments.mp4", 60, FRAGMENTED)
    with FrameSampler(path, 4) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 19, 39, 59]
