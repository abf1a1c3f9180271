from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny_bundle as tiny

from edgevtc.bundle import Bundle
from edgevtc.cli import main


def test_json_holds_everything(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_bundle.path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(tiny_bundle.path)
    assert found["sha256"] == tiny_bundle.sha256
    assert found["files_verified"] == len(found["files"]) == len(tiny_bundle.manifest.files)
    assert found["tokens_total"] == tiny.TOKENS_TOTAL == 36
    manifest = json.loads((tiny_bundle.path / "manifest.json").read_text(encoding="utf-8"))
    for key in ("model", "vision", "methods", "decoder", "prompt", "producer", "flops_convention", "schema_version"):
        assert found[key] == manifest[key]


def test_the_parts_add_up_to_what_is_on_disk(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    engines = tiny_bundle.path / "engines" / "0123"
    engines.mkdir(parents=True)
    (engines / "encoder.engine").write_bytes(bytes(1000))
    main(["inspect", str(tiny_bundle.path), "--json"])
    found = json.loads(capsys.readouterr().out)
    on_disk = sum(path.stat().st_size for path in tiny_bundle.path.rglob("*") if path.is_file())
    assert found["size_bytes"] == sum(found["part_bytes"].values()) == on_disk
    assert found["part_bytes"]["engines"] == 1000
    assert found["part_bytes"]["weights"] == 16 * 8 * 4 + 8 * 4
    assert found["part_bytes"]["decoder_graphs"] == len("int8") + len("fp32")


def test_the_tables_show_model_methods_and_sizes(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tiny_bundle.path)]) == 0
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["none", "36", "100", "%", "original", "0.5", "streamed,", "fused"] in rows
    assert ["uniform", "9", "25", "%", "original", "0.125", "streamed,", "fused"] in rows
    assert ["infomerge", "5", "13.9", "%", "contiguous", "0.0625", "streamed"] in rows
    assert ["infomerge", "5", "penalty=12.0"] in rows
    assert f"prefill GFLOPs: {tiny.FLOPS_CONVENTION}" in out
    for words in (
        "tiny (llava_onevision), revision r1",
        "Apache-2.0",
        "4 of 48×48 pixels, 2 a call, resized bicubic",
        "36: 3×3 a frame, width 8, float32",
        "2 layers",
        "int8, fp32",
        "edgevtc 0.1.0",
        "made for a test",
        f"size and hash of {len(tiny_bundle.manifest.files)} files",
        "544 bytes",
    ):
        assert words in out


def test_the_embedded_bundle_is_meant_where_none_is_given(
    tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgevtc.bundle.reader.embedded_path", lambda: tiny_bundle.path)
    assert main(["inspect", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"]["name"] == "tiny"


@pytest.mark.parametrize("harm", ["altered", "cut", "missing", "manifest"])
def test_a_harmed_bundle_is_refused(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str], harm: str) -> None:
    file = tiny_bundle.path / "encoder.onnx"
    if harm == "altered":
        file.write_bytes(b"ENCODER")
    elif harm == "cut":
        file.write_bytes(b"enc")
    elif harm == "missing":
        file.unlink()
    else:
        manifest = tiny_bundle.path / "manifest.json"
        manifest.write_text(manifest.read_text(encoding="utf-8").replace("tiny", "huge"), encoding="utf-8")
    assert main(["inspect", str(tiny_bundle.path)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert ("manifest.json" if harm == "manifest" else "encoder.onnx") in err
    assert err.startswith("edgevtc: error: ") and err.count("\n") == 1


def test_what_is_no_bundle_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(tmp_path)]) == 1
    assert "is not a bundle" in capsys.readouterr().err
