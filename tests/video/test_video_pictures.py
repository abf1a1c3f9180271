import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile
from video_clips import Encoding, number_shown, numbered_picture, write_clip

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


@pytest.mark.parametrize("name", ["phone.jpg", "phone.png", "phone.webp", "phone.tif"])
def test_exif_orientation_is_obeyed(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying on its left side
    Image.fromarray(np.rot90(numbered_picture(33))).save(tmp_path / name, exif=exif)
    assert (probe(tmp_path / name).width, probe(tmp_path / name).height) == (128, 96)
    (frame,) = iter_frames(tmp_path / name, 1)
    assert (number_shown(frame.image), frame.image.shape) == (33, (96, 128, 3))


@pytest.mark.parametrize("name", ["several.webp", "several.tif", "several.jpg"])
def test_of_several_pictures_the_first_is_used_and_told(name, tmp_path):
    first, *others = [Image.fromarray(numbered_picture(number)) for number in range(7, 12)]
    if name.endswith("jpg"):
        for picture in (first, *others):
            picture.save(tmp_path / "one.jpg")
            with (tmp_path / name).open("ab") as file:
                file.write((tmp_path / "one.jpg").read_bytes())
    else:
        first.save(tmp_path / name, save_all=True, append_images=others)
    with FrameSampler(tmp_path / name, 3) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [7, 7, 7]
        assert sampler.warnings == [f"{name} holds several pictures: only the first is used"]


def test_the_preview_of_a_camera_is_no_second_picture(tmp_path):
    preview = Image.fromarray(numbered_picture(7)).resize((32, 24))
    Image.fromarray(numbered_picture(7)).save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[preview])
    with FrameSampler(tmp_path / "a.jpg", 1) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [7]
        assert sampler.warnings == []


@pytest.mark.parametrize("name", ["clip.mjpeg", "clip"])
def test_joined_jpegs_are_a_video(name, tmp_path):
    path = write_clip(tmp_path / name, 40, Encoding("mjpeg", pixel_format="yuvj420p", format="mjpeg"))
    assert probe(path).num_frames == 40
    assert [number_shown(frame.image) for frame in iter_frames(path, 3)] == [0, 19, 39]


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_video_named_as_a_picture_is_read(name, tmp_path):
    write_clip(tmp_path / "a.mp4", 20).rename(tmp_path / name)
    assert [number_shown(frame.image) for frame in iter_frames(tmp_path / name, 2)] == [0, 19]


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize(
    ("head", "endless"),
    [
        (b"P6\n", b" "),
        (b"P6\n", b"#c\n"),
        (b"\xff\xd8\xff", b"\xff"),
        (b"\xff\xd8", b"\xff\xfe\0\4ab"),
        (
            b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)),
            png_chunk(b"tEXt", b"k\0v"),
        ),
    ],
    ids=["spaces", "comments", "fill", "JPEG comments", "PNG texts"],
)
@pytest.mark.parametrize("name", ["endless.jpg", "endless.mp4"])
def test_endless_headers_are_refused(head, endless, name, tmp_path):
    (tmp_path / name).write_bytes(head + endless * (2_000_000 // len(endless)))
    start = time.process_time()
    with pytest.raises(VideoError, match=r"its header has more than 65536 fields") as caught:
        probe(tmp_path / name)
    assert time.process_time() - start < 4
    assert "\n" not in str(caught.value)


def test_comments_among_the_pixels_of_a_text_ppm_end_in_time(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P3\n1000 1000\n255\n" + b"#c\n" * 150_000)
    start = time.process_time()
    with pytest.raises(VideoError, match="cannot be read as a picture"):
        list(iter_frames(tmp_path / "a.ppm", 1))
    assert time.process_time() - start < 4


def test_the_size_is_learnt_without_decoding(tmp_path, monkeypatch):
    Image.fromarray(numbered_picture(3)).save(tmp_path / "a.png")
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert probe(tmp_path / "a.png").width == 128


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


@pytest.mark.parametrize(("name", "share"), [("cut.png", 0.2), ("cut.jpg", 0.2), ("cut.webp", 0.5), ("cut.tif", 0.005)])
def test_errors_name_no_classes(name, share, tmp_path):
    Image.fromarray(numbered_picture(3)).save(tmp_path / name)
    cut(tmp_path / name, share)
    with pytest.raises(VideoError, match="is it damaged") as caught:
        list(iter_frames(tmp_path / name, 1))
    assert "Error" not in str(caught.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "progressive.jpg", "a.tif", "a.bmp", "a.ppm"])
def test_what_can_be_decoded_of_a_cut_picture_is_used_and_told(name, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (12, 16, 3), np.uint8).repeat(32, 0).repeat(32, 1)
    Image.fromarray(picture).save(tmp_path / name, **({"progressive": True} if "progressive" in name else {}))
    whole = next(iter_frames(tmp_path / name, 1)).image
    cut(tmp_path / name, 0.5)
    with FrameSampler(tmp_path / name, 1) as sampler:
        (frame,) = sampler
        assert sampler.warnings == [f"{name} is damaged (image file is truncated): what can be decoded of it is used"]
    part = slice(-32, None) if name == "a.bmp" else slice(0, 32)  # BMP begins at the bottom.
    assert np.abs(frame.image[part].astype(int) - whole[part]).mean() < 30
    assert (frame.image != whole).any()
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_hidden_files_are_no_pictures_and_others_are_told(tmp_path):
    for number in range(3):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"f{number}.png")
    (tmp_path / "._f0.png").write_bytes(b"\0\5\x16\7" + bytes(100))
    with FrameSampler(tmp_path, 3) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 1, 2]
        assert sampler.warnings == []
    Image.fromarray(numbered_picture(3)).save(tmp_path / "f3.gif")
    with FrameSampler(tmp_path, 3) as sampler:
        assert [number_shown(frame.image) for frame in sampler] == [0, 1, 2]
        (warning,) = sampler.warnings
    assert warning.startswith(
        f"{tmp_path.name}: 1 of 4 files are passed over; names of pictures end in one of: .bmp, .jp"
    )


@pytest.mark.parametrize("use", [probe, lambda source: FrameSampler(source, 4)])
def test_an_empty_path_is_not_the_current_folder(use, tmp_path, monkeypatch):
    Image.fromarray(numbered_picture(1)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError, match="the path is empty: give a video file"):
        use("")


def test_no_picture_in_the_folder(tmp_path):
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(VideoError, match=r"no picture is in this folder; .* Of videos, give one file"):
        probe(tmp_path)


def test_a_damaged_picture_in_a_folder_is_named(tmp_path):
    for number in range(3):
        Image.fromarray(numbered_picture(number)).save(tmp_path / f"{number}.png")
    whole = (tmp_path / "1.png").read_bytes()
    cut(tmp_path / "1.png", 0.5)
    with FrameSampler(tmp_path, 3) as sampler:
        frames = list(sampler)
        assert [number_shown(frames[at].image) for at in (0, 2)] == [0, 2]
        assert [warning.partition(" ")[0] for warning in sampler.warnings] == ["1.png"]
    (tmp_path / "1.png").write_bytes(whole[:60])
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
