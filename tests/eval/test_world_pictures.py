"""Pictures, dense labels and files of the synthetic world."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edgevtc.errors import ConfigError
from edgevtc.eval.world import World
from edgevtc.eval.world_labels import CELL, CELL_CLASSES, FRAME_CLASSES, scene_labels
from edgevtc.eval.world_render import RGB
from edgevtc.eval.world_scene import Scene
from edgevtc.eval.world_video import frame_ticks, write_mp4


@pytest.fixture(scope="module")
def world() -> World:
    return World("dev", 11, textures=4)


def quiet_scene(world: World, **wanted: object) -> Scene:
    """A scene with little noise and the wanted number of things, flashes and so on."""
    while True:
        scene = world.scene()
        if scene.noise == 0 and all(len(getattr(scene, name)) >= least for name, least in wanted.items()):
            return scene


def test_frames_and_labels_have_their_shapes(world: World):
    for kind, ticks in (("video", 16), ("clip", 4), ("image", 1)):
        sample = world.sample(kind)
        assert sample.frames.shape == (ticks, 96, 96, 3)
        assert sample.frames.dtype == np.uint8
        labels = sample.labels
        for name, classes in CELL_CLASSES.items():
            assert labels[name].shape == (ticks, 6, 6)
            assert -1 <= labels[name].min() <= labels[name].max() < classes
        for name, classes in FRAME_CLASSES.items():
            assert labels[name].shape == (ticks,)
            assert 0 <= labels[name].min() <= labels[name].max() < classes
        assert labels["seen"].shape == (ticks, 16)


def test_a_filled_thing_has_its_colour_where_the_labels_say(world: World):
    checked = 0
    while checked < 40:
        scene = quiet_scene(world)
        frames = world.renderer.frames(scene).astype(float) / scene.brightness
        labels = scene_labels(scene)
        for thing in scene.things:
            if thing.shape == 4 or scene.flashes:  # a ring is hollow; a star may hide it
                continue
            for tick in range(thing.enters, thing.leaves):
                x, y = thing.at(np.array([tick]))[0]
                label = labels["color"][tick, int(y) // CELL, int(x) // CELL]
                if label <= 0 or label - 1 not in (thing.color, thing.last_color):
                    continue  # two centres share a cell
                pixel = frames[tick, round(float(y)), round(float(x))]
                expected = np.minimum(RGB[label - 1], 255 / scene.brightness)
                assert np.abs(pixel - expected).max() < 40
                checked += 1


def test_a_longer_video_shows_the_same_sixteen_states(world: World):
    now = np.arange(16.0)
    for frames in (16, 32, 33, 47, 100, 901):
        for _ in range(10):
            scene = world.scene()
            shown = frame_ticks(scene, frames)[np.linspace(0, frames - 1, 16).astype(int)]
            assert np.abs(shown - now).max() < 0.5
            for thing in scene.things:
                np.testing.assert_array_equal(thing.visible(shown), thing.visible(now))
                np.testing.assert_array_equal(thing.changed(shown), thing.changed(now))
                assert np.abs(thing.at(shown) - thing.at(now)).max() <= 0.5 * thing.speed


def test_a_panned_background_moves_and_a_static_one_does_not(world: World):
    moved = {True: [], False: []}
    while min(map(len, moved.values())) < 3:
        scene = quiet_scene(world)
        empty = Scene(**{**vars(scene), "things": (), "flashes": (), "signs": ()})
        frames = world.renderer.frames(empty).astype(float)
        moved[scene.panned].append(np.abs(frames[8] - frames[0]).mean())
    assert max(moved[False]) < 2 < min(moved[True]) or np.median(moved[True]) > 2 * np.median(moved[False])


@pytest.mark.parametrize(
    ("size", "fps", "seconds"), [((320, 180), 8, 6), ((160, 160), 4, 4), ((256, 192), 25, 4)], ids=str
)
def test_a_written_file_reads_back_as_the_same_scene(
    world: World, tmp_path: Path, size: tuple[int, int], fps: int, seconds: int
):
    scene = quiet_scene(world, flashes=1, things=2)
    path = write_mp4(tmp_path / "clip.mp4", scene, world.renderer, size=size, fps=fps, seconds=seconds, crf=20)
    assert [file.name for file in tmp_path.iterdir()] == ["clip.mp4"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height) == size
        assert stream.average_rate == fps
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == fps * seconds
    chosen = [decoded[index] for index in np.linspace(0, len(decoded) - 1, 16).astype(int)]
    small = [np.asarray(Image.fromarray(frame).resize((96, 96), Image.Resampling.BOX)) for frame in chosen]
    difference = np.abs(np.stack(small).astype(float) - world.renderer.frames(scene))
    assert difference.mean() < 6
    assert difference.mean((1, 2, 3)).max() < 10


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": (321, 180)}, "even numbers"), ({"fps": 2, "seconds": 9}, "at least 32")],
)
def test_what_cannot_be_written_is_refused_before_anything_is(
    world: World, tmp_path: Path, options: dict, message: str
):
    with pytest.raises(ConfigError, match=message):
        write_mp4(tmp_path / "clip.mp4", world.scene(), world.renderer, **options)
    assert not list(tmp_path.iterdir())
