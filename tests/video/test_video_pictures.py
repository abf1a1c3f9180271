import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from video_clips import number_shown, numbered_picture

from edgevtc.errors import VideoError
from edgevtc.video import FrameSampler, iter_frames, pictures, probe


def test_a_folder_is_taken_in_natural_order(tmp_path):
    for number in (1, 2, 10, 9, 100):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"frame{number}.png")
    (tmp_path / "notes.txt").write_text("not a picture")
    (tmp_path / "folder.png").mkdir()
    info = probe(tmp_path)
    assert (info.num_frames, info.fps, info.container, info.width, info.height) == (5, 1.0, "folder", 128, 96)
    frames = list(iter_frames(tmp_path, 5))
    assert [number_shown(frame.image) for frame in frames] == [1, 2, 9, 10, 100]
    assert [frame.time_s for frame in frames] == [0, 1, 2, 3, 4]
    assert [number_shown(frame.image) for frame in iter_frames(tmp_path, 3, start_s=1)] == [2, 9, 100]


def test_one_picture_is_repeated(tmp_path):
    Image.fromarray(numbered_picture(77)).save(tmp_path / "one.png")
    frames = list(iter_frames(tmp_path / "one.png", 4, size=(48, 48)))
    assert [number_shown(frame.image) for frame in frames] == [77] * 4
    assert all(frame.image is frames[0].image for frame in frames)


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "a.jpg"), ("L", "b.png"), ("RGBA", "c.webp"), ("P", "d.png"), ("1", "e.tif"), ("CMYK", "f.jpg")],
)
def test_modes_become_rgb(mode, name, tmp_path):
    Image.fromarray(numbered_picture(99)).convert(mode).save(tmp_path / name)
    (frame,) = iter_frames(tmp_path / name, 1)
    assert (frame.image.shape, frame.image.dtype) == ((96, 128, 3), np.uint8)
    assert number_shown(frame.image) == 99


def test_sixteen_bits_keep_their_brightness(tmp_path):
    grey = numbered_picture(99)[..., 0].astype(np.uint16) * 257
    Image.fromarray(grey).save(tmp_path / "deep.png")
    (frame,) = iter_frames(tmp_path / "deep.png", 1)
    np.testing.assert_array_equal(frame.image, np.repeat(numbered_picture(99)[..., :1], 3, axis=2))


def test_a_picture_without_a_telling_name_is_recognised(tmp_path):
    Image.fromarray(numbered_picture(5)).save(tmp_path / "photo", format="JPEG")
    assert number_shown(next(iter_frames(tmp_path / "photo", 1)).image) == 5


def test_exif_orientation_is_obeyed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(np.rot90(numbered_picture(33))).save(tmp_path / "phone.jpg", exif=exif)
    assert number_shown(next(iter_frames(tmp_path / "phone.jpg", 1)).image) == 33


def test_no_picture_in_the_folder(tmp_path):
    with pytest.raises(VideoError, match="no picture is in this folder"):
        probe(tmp_path)


def test_a_damaged_picture_in_a_folder_is_named(tmp_path):
    for number in range(3):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"{number}.png")
    data = (tmp_path / "1.png").read_bytes()
    (tmp_path / "1.png").write_bytes(data[: len(data) // 2])
    with FrameSampler(tmp_path, 3) as sampler:
        frames = iter(sampler)
        assert number_shown(next(frames).image) == 0
        with pytest.raises(VideoError, match=r"^1\.png cannot be read as a picture"):
            next(frames)


def test_huge_pictures_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    Image.fromarray(numbered_picture(1)).save(tmp_path / "big.png")
    monkeypatch.setattr(pictures, "MAX_PIXELS", 1000)
    with pytest.raises(VideoError, match="128x96 pixels, above the limit"):
        probe(tmp_path / "big.png")


def test_a_decompression_bomb_is_refused(tmp_path):
    # Sixty thousand pixels square by its header, which has its own checksum.
    Image.fromarray(numbered_picture(1)).save(tmp_path / "bomb.png")
    data = bytearray((tmp_path / "bomb.png").read_bytes())
    data[16:24] = struct.pack(">II", 60_000, 60_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    (tmp_path / "bomb.png").write_bytes(data)
    with pytest.raises(VideoError, match=r"above the limit of 64 Mi pixels"):
        probe(tmp_path / "bomb.png")
