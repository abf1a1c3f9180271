"""Frames are resized as the model's own processor, transformers', resizes them."""

import numpy as np
import pytest
from PIL import Image
from transformers import SiglipImageProcessorPil
from video_clips import Encoding, has_encoder, write_clip

from edgevtc.bundle import embedded_path
from edgevtc.models.preprocessing import read_preprocessing
from edgevtc.video import RESAMPLE_FILTERS, iter_frames

pytestmark = pytest.mark.export

CHECKPOINT = embedded_path().parent / "checkpoint"

#: Height and width of a clip: smaller than what the processor makes of it, larger, and one of each.
CLIPS = {"up": (37, 53), "down": (241, 333), "both": (51, 301)}


def textured(height: int, width: int) -> np.ndarray:
    """A picture [height, width, 3] uint8 of a gradient, noise and hard edges, on which every filter overshoots."""
    rng = np.random.default_rng(height)
    picture = np.linspace(0, 255, width)[:, None] + rng.normal(0, 40, (height, width, 3))
    picture[height // 3 : height // 2, width // 4 : width // 2] = (0, 255, 128)
    return np.clip(picture, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def processor():
    """The embedded checkpoint's, without what the graph does itself; that of videos would need torchvision."""
    return SiglipImageProcessorPil.from_pretrained(CHECKPOINT, do_rescale=False, do_normalize=False)


def assert_alike(frames, processor, **options):
    pixels = processor([textured(*options.pop("shape"))], return_tensors="np", **options)["pixel_values"]
    ((expected),) = pixels.transpose(0, 2, 3, 1)
    assert len(frames) == 2
    for frame in frames:
        assert frame.image.shape == expected.shape
        assert np.abs(frame.image.astype(float) - expected).max() <= 1


@pytest.mark.skipif(not has_encoder("ffv1"), reason="this libav cannot write lossless video")
@pytest.mark.parametrize("shape", CLIPS.values(), ids=CLIPS)
def test_a_clip_is_resized_as_the_processor_does(shape, processor, clips):
    path = clips / "odd{}x{}.mkv".format(*shape)
    lossless = Encoding("ffv1", pixel_format="bgr0")
    write_clip(path, 2, lossless, size=shape, pictures=iter([textured(*shape)] * 2))
    asked = read_preprocessing(CHECKPOINT, 96)
    frames = list(iter_frames(path, 2, (asked.height, asked.width), resample=asked.resample))
    assert_alike(frames, processor, shape=shape)


@pytest.mark.parametrize("resample", RESAMPLE_FILTERS)
def test_a_picture_is_resized_as_the_processor_does(resample, processor, tmp_path):
    Image.fromarray(textured(*CLIPS["both"])).save(tmp_path / "odd.png")
    frames = list(iter_frames(tmp_path / "odd.png", 2, (63, 384), resample=resample))
    size = {"height": 63, "width": 384}
    assert_alike(frames, processor, shape=CLIPS["both"], size=size, resample=RESAMPLE_FILTERS[resample])
