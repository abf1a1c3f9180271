"""Foreign footage: told by a distance in feature space, before the model is asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from edgevtc import Runner
from edgevtc.cli import main
from edgevtc.domain import Domain
from edgevtc.errors import BundleError


def clips(seed: int, number: int, width: int = 24, scale: float = 1.0) -> np.ndarray:
    """[number, 1, 1, width] mean tokens with a few strong directions and a little noise in all."""
    directions = np.random.default_rng(3).normal(size=(5, width))
    rng = np.random.default_rng(seed)
    return (5 + rng.normal(size=(number, 5)) @ directions * scale + 0.1 * rng.normal(size=(number, width)))[
        :, None, None
    ]


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.of(clips(0, 400)[:, 0, 0], 5, limit=10.0, answer="cannot tell")


def test_clips_of_the_same_kind_are_near_two(domain: Domain):
    distances = [domain.distance(clip) for clip in clips(1, 300)]
    assert np.mean(distances) == pytest.approx(2, rel=0.15)
    assert max(distances) < 10


def test_far_along_a_direction_and_beside_all_of_them_are_both_foreign(domain: Domain):
    assert min(domain.distance(clip) for clip in clips(2, 50, scale=8.0)) > 2
    beside = clips(1, 50) + np.linspace(-2, 2, 24)
    assert min(domain.distance(clip) for clip in beside) > domain.limit


def test_the_distance_is_that_of_the_mean_token(domain: Domain):
    clip = np.random.default_rng(0).normal(size=(4, 6, 24)).astype(np.float32)
    assert domain.distance(clip) == pytest.approx(domain.distance(clip.mean((0, 1), keepdims=True)), rel=1e-4)
    assert domain.distance(clip.reshape(24, 1, 24)[::-1]) == pytest.approx(domain.distance(clip), rel=1e-4)


@given(st.sampled_from([np.nan, np.inf, -np.inf]), st.integers(0, 23))
def test_damaged_tokens_are_foreign(value: float, place: int):
    known = Domain.of(clips(0, 100)[:, 0, 0], 5, limit=10.0, answer="cannot tell")
    clip = np.array(clips(1, 1)[0])
    clip[0, 0, place] = value
    with np.errstate(invalid="ignore"):
        assert known.distance(clip) == np.inf


def test_the_file_keeps_everything_and_its_bytes(domain: Domain, tmp_path: Path):
    path = tmp_path / "domain.npz"
    path.write_bytes(domain.to_bytes())
    read = Domain.read(path)
    assert (read.residual, read.limit, read.answer) == (domain.residual, domain.limit, domain.answer)
    np.testing.assert_array_equal(read.directions, domain.directions)
    assert read.to_bytes() == domain.to_bytes()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", b"text"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path):
    path = tmp_path / "domain.npz"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="describes no training domain"):
        Domain.read(path)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four pictures of white noise."""
    folder = tmp_path_factory.mktemp("noise")
    rng = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    return folder


@pytest.mark.parametrize("method", ["none", "infomerge"])
def test_the_embedded_model_is_not_asked_about_noise(noise: Path, method: str):
    video = Runner(method=method).open(noise)
    answer = video.ask("what color is the circle")
    assert video.foreign
    assert (answer.answer, answer.finish_reason) == ("cannot tell", "foreign")
    assert answer.domain_distance > 2 * answer.domain_limit
    assert (answer.tokens_generated, answer.prefill_tokens) == (0, 0)
    assert answer.tokens_kept == answer.budget == len(video.visual.positions)
    assert [turn["role"] for turn in video.turns] == ["user", "assistant"]


def test_it_guesses_where_it_is_told_to(noise: Path):
    video = Runner(method="none", guess=True).open(noise)
    answer = video.ask("what color is the circle")
    assert answer.tokens_generated > 0
    assert answer.finish_reason == "stop"
    assert answer.domain_limit is None
    assert answer.domain_distance > 0


def test_no_sample_is_foreign(samples: Path):
    runner = Runner(method="uniform")
    for clip in sorted(samples.glob("*.mp4")):
        video = runner.open(clip)
        assert video.domain_distance < 0.75 * video.domain_limit, clip.name


def test_the_command_says_why_and_how_to_ask_all_the_same(noise: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["ask", str(noise), "what color is the circle", "what shape is the red object"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == ["cannot tell", "cannot tell"]
    assert err.count("unlike all that the model was trained on") == 1
    assert "--guess" in err
    assert main(["ask", str(noise), "what color is the circle", "--guess"]) == 0
    out, err = capsys.readouterr()
    assert out.strip() != "cannot tell"
    assert "unlike" not in err


def test_a_picture_with_a_question_says_why(noise: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "noise.html"
    assert main(["view", str(noise), "--question", "what color is the circle", "-o", str(page)]) == 0
    assert capsys.readouterr().err.count("unlike all that the model was trained on") == 1
    text = page.read_text("utf-8")
    assert "cannot tell" in text
    assert text.count("unlike all that the model was trained on") == 1
