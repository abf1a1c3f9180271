"""What an export takes is said beforehand, from headers alone, and is true."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tiny_checkpoint import build_model, write_checkpoint, write_texts
from tiny_export import TINY_OPTIONS

from edgevtc.cli import main
from edgevtc.errors import ExportError
from edgevtc.exporter import plan
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.prepare import plan_bundle
from edgevtc.models.checkpoint import Checkpoint

pytestmark = pytest.mark.export


@pytest.fixture(scope="module")
def wider_folder(tmp_path_factory):
    """One with a wider vision tower, head included."""
    return write_checkpoint(tmp_path_factory.mktemp("wider") / "checkpoint", build_model(vision_hidden=64))


@pytest.mark.parametrize("formats", [("fp32",), ("w8a8", "int8", "int4"), ("int8", "fp32")])
def test_the_plan_is_what_the_export_writes(tiny_folder, traced_once, tmp_path, formats):
    options = replace(TINY_OPTIONS, weight_formats=formats)
    expected = plan_bundle(tiny_folder, options).disk_bytes
    bundle = export_bundle(tiny_folder, tmp_path / "out", options)
    files = bundle.manifest.files
    weights = sum(entry.size for name, entry in files.items() if name.startswith("weights/"))
    planned = expected["vision"] + expected["decoder"] + expected["token_embeddings"]
    # In a model this small, what graphs keep inside them and what the tower precomputes show.
    assert 0.75 * planned < weights < 1.05 * planned
    assert files["references.npz"].size < 1.2 * expected["references"] + 4000


def test_no_matrix_is_read_and_nothing_written(tiny_folder, tmp_path, monkeypatch):
    read = []
    tensor = Checkpoint.tensor
    monkeypatch.setattr(
        Checkpoint, "tensor", lambda self, name, *shape: read.append(tensor(self, name, *shape)) or read[-1]
    )
    plan_bundle(tiny_folder, TINY_OPTIONS)
    assert all(value.ndim == 1 for value in read)
    assert main(["export", str(tiny_folder), "--dry-run", "-o", str(tmp_path / "out")]) == 0
    assert not any(tmp_path.iterdir())


def test_a_deeper_tower_than_is_used_does_not_count(tmp_path):
    deep, shallow = (
        write_texts(write_checkpoint(tmp_path / name, build_model(vision_layers=layers, feature_layer=layer)))
        for name, layers, layer in (("deep", 4, -3), ("shallow", 2, -1))
    )
    assert plan_bundle(deep, TINY_OPTIONS) == plan_bundle(shallow, TINY_OPTIONS)


def test_a_deeper_decoder_takes_disk_and_no_more_memory_than_its_cache(tmp_path):
    plans = {}
    for layers in (2, 8):
        folder = write_texts(write_checkpoint(tmp_path / str(layers), build_model(layers=layers)))
        plans[layers] = plan_bundle(folder, TINY_OPTIONS)
    shallow, deep = plans[2], plans[8]
    assert deep.disk_bytes["decoder"] > 2.5 * shallow.disk_bytes["decoder"]
    config = build_model().config.text_config
    rows = 4 + plan.TEXT_ROWS
    row = 2 * 4 * config.num_key_value_heads * config.hidden_size // config.num_attention_heads
    more = {step: size - shallow.memory_bytes[step] for step, size in deep.memory_bytes.items()}
    cache = plan.HELD * 6 * row * rows
    none = dict.fromkeys(("writing", "reference", "verifying_vision"), 0)
    assert more == pytest.approx({**none, "verifying_decoder": cache, "verifying_an_answer": cache}, abs=1)


def test_the_command_says_it(tiny_folder, tmp_path, capsys):
    command = ["export", str(tiny_folder), "--dry-run", "-o", str(tmp_path / "out"), "--num-frames", "2"]
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["disk_bytes"] == sum(found["part_bytes"].values())
    assert found["peak_memory_bytes"] == max(found["step_memory_bytes"].values())
    assert main(command) == 0
    assert "Nothing was written" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("disk", "memory", "message"),
    [
        (100, 10**9, r"the bundle takes \d+\.\d kB, .* has 100 bytes free"),
        (10**12, 1, r"of memory, .* available: close"),
    ],
)
def test_what_does_not_fit_is_said_before_the_work(tiny_folder, tmp_path, monkeypatch, disk, memory, message):
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal: 1 kB\nMemAvailable:  {memory} kB\nSwapFree:  0 kB\n")
    monkeypatch.setattr(plan, "MEMINFO", meminfo)
    monkeypatch.setattr(plan.shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))
    with pytest.raises(ExportError, match=message):
        export_bundle(tiny_folder, tmp_path / "there" / "out", TINY_OPTIONS)
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (TINY_OPTIONS, "a larger machine, leave out weight formats or leave out the graphs .* with --no-fused$"),
        (replace(TINY_OPTIONS, fused=False, weight_formats=("w8a8",)), "close other programs or use a larger machine$"),
        (replace(TINY_OPTIONS, fused=False, max_positions=100), "weight formats or give fewer --max-positions$"),
    ],
)
def test_only_what_could_be_left_out_is_advised(tiny_folder, tmp_path, monkeypatch, options, said):
    monkeypatch.setattr(plan, "available_memory", lambda: 1)
    with pytest.raises(ExportError, match=said):
        export_bundle(tiny_folder, tmp_path / "out", options)


def test_a_long_rotary_table_is_planned(tiny_folder):
    few, many = (plan_bundle(tiny_folder, replace(TINY_OPTIONS, max_positions=n)) for n in (3000, 3_000_000))
    table = many.disk_bytes["decoder"] - few.disk_bytes["decoder"]
    assert table == 2 * 4 * 4 * (3_000_000 - 3000)  # cosines and sines of half a head
    assert many.memory_bytes["writing"] > table  # of one at a time, computed and as bytes


NO_HEAD = "has no SigLIP pooling head to take saliency from: give the tower's own"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--jobs", "0"], "0 jobs are not valid"),
        (["-o", "{tmp}/there"], "there exists already"),
        (["-o", "{tmp}/text/out"], "text is no folder"),
        (["--cache-dir", "{tmp}/text"], "text is no folder"),
        (["--cache-dir", "{tmp}/text/cache"], "text is no folder"),
        (["--method", "visionzip", "--saliency", "siglip_head"], NO_HEAD),
        (["--siglip-head", "{tmp}/there"], "neither model.safetensors nor"),
        (["--siglip-head", "{tmp}/text"], "is not a safetensors file"),
        (["--siglip-head", "{headless}"], "has no SigLIP pooling head (head.probe)"),
        (["--siglip-head", "{wider}"], "has width 64, the vision tower 32"),
        (["--encoder-format", "w8a8", "--calibrate", "{tmp}/text"], "text"),
        (["--num-frames", "1000000000"], "at most 2147483647 can be numbered: give fewer frames"),
        (["--num-frames", "100000", "--method", "infomerge"], "give fewer frames"),
    ],
)
def test_a_dry_run_refuses_what_the_export_does_before_any_work(
    headless_folder, wider_folder, tmp_path, monkeypatch, capsys, words, message
):
    monkeypatch.setattr("edgevtc.exporter.export.make_vision", lambda making: pytest.fail("work was begun"))
    (tmp_path / "text").write_text("no video, no weights")
    (tmp_path / "there").mkdir()
    places = {"tmp": tmp_path, "headless": headless_folder, "wider": wider_folder}
    given = [word.format(**places) for word in words]
    for dry in ([], ["--dry-run"]):
        assert main(["export", str(headless_folder), "-o", str(tmp_path / "out"), *given, *dry]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text", "there"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tokenizer.json", "has no tokenizer that can be read"),
        ("chat_template.jinja", "has no chat template: add its chat_template.jinja"),
    ],
)
def test_texts_that_lack_are_said_before_the_work(tiny_folder, tmp_path, capsys, name, message):
    folder = tmp_path / "checkpoint"
    shutil.copytree(tiny_folder, folder)
    for config in folder.glob("*_config.json"):
        config.unlink()
    (folder / name).unlink()
    assert main(["export", str(folder), "--dry-run", "-o", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
