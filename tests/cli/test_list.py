from __future__ import annotations

import json
import re
from importlib.metadata import EntryPoint

import pytest

from edgevtc import methods
from edgevtc.catalogue import device_names, model_names
from edgevtc.cli import main
from edgevtc.methods import MethodSpec, Parameter, builtin_methods
from edgevtc.methods.costs import COST_SIZE, _figures


def listed(capsys: pytest.CaptureFixture[str], what: str) -> list[dict]:
    assert main(["list", what, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_methods_are_listed_with_all_they_declare(capsys: pytest.CaptureFixture[str]) -> None:
    rows = listed(capsys, "methods")
    assert [row["name"] for row in rows] == list(builtin_methods())
    for row in rows:
        spec = builtin_methods()[row["name"]]
        assert (row["summary"], row["paper"], row["positions"]) == (spec.summary, spec.paper, spec.positions)
        assert row["needs"] == list(spec.needs)
        assert {name: value["default"] for name, value in row["parameters"].items()} == {
            name: parameter.default for name, parameter in spec.parameters.items()
        }
        assert (row["source"], row["error"]) == ("built-in", None)
        if row["name"] in ("none", "uniform", "holitom"):
            assert row["cost"]["nodes"] > 0 and row["cost"]["gmac"] > 0 and row["cost"]["peak_mb"] > 0
        assert row["cost"] is None or 0 < row["cost"]["encoder_share"] < 0.1


def test_every_method_with_figures_fits_beside_the_largest_encoder() -> None:
    """The goals of docs/compressors.md at 64×169×3584: a tenth of the encoder's time, and 1.5 GB."""
    figures = _figures()
    sizes = {name: found["64x169x3584"] for name, found in figures["methods"].items() if "64x169x3584" in found}
    assert {"none", "infomerge", "holitom", "flashvid", "scissor"} <= set(sizes)
    encoder_s = 64 * figures["encoder_s_per_frame"]
    assert {name: cost["peak_mb"] for name, cost in sizes.items() if not 0 < cost["peak_mb"] < 1500} == {}
    shares = {name: cost["cpu_s"] / encoder_s for name, cost in sizes.items()}
    assert {name: share for name, share in shares.items() if not 0 < share < 0.1} == {}


def test_models_and_devices_are_those_of_the_catalogues(capsys: pytest.CaptureFixture[str]) -> None:
    models = listed(capsys, "models")
    assert [row["name"] for row in models] == model_names()
    assert models[0]["num_frames"] == 16 and models[0]["prompt"]["examples"]
    devices = {row["name"]: row for row in listed(capsys, "devices")}
    assert list(devices) == device_names()
    assert devices["rtx-4060"]["compute_capability"] == "8.9"
    assert devices["cpu"]["memory_gb"] is None


class Plugin:
    spec = MethodSpec("nearest", "keeps the nearest", parameters={"reach": Parameter(3, "how far")})


def register(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [EntryPoint(name, value, methods.ENTRY_POINT_GROUP) for name, value in values.items()]
    monkeypatch.setattr(methods, "entry_points", lambda group: points)


def test_a_plugins_method_is_listed_with_its_origin(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, nearest=f"{__name__}:Plugin")
    row = listed(capsys, "methods")[-1]
    assert (row["name"], row["summary"], row["source"]) == ("nearest", "keeps the nearest", f"{__name__}:Plugin")
    assert row["parameters"]["reach"]["default"] == 3 and row["cost"] is None


def test_a_plugin_that_cannot_be_loaded_is_listed_by_name(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    register(monkeypatch, needy="library_that_is_not_there.compressor:Needy", nearest=f"{__name__}:Plugin")
    *_, nearest, needy = sorted(listed(capsys, "methods"), key=lambda row: row["name"] == "needy")
    assert (needy["name"], needy["parameters"]) == ("needy", None)
    assert "library_that_is_not_there" in needy["error"]
    assert nearest["name"] == "nearest" and nearest["error"] is None
    assert main(["list", "methods"]) == 0
    assert "cannot be loaded" in capsys.readouterr().out


@pytest.mark.parametrize("what", ["methods", "models", "devices"])
def test_a_pipe_gets_one_whole_row_a_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    rows = listed(capsys, what)
    assert main(["list", what]) == 0
    table, _, parameters = capsys.readouterr().out.partition("\n\n")
    heading, *lines = table.splitlines()
    assert heading.startswith("name ")
    assert [line.split()[0] for line in lines] == [row["name"] for row in rows]
    assert "\x1b" not in table and "…" not in table
    for row, line in zip(rows, lines, strict=True):
        assert row.get("summary", row.get("description", row["source"])) in line
    if what == "methods":
        assert "anchor_interval" in parameters and "τ_seg: neighbours of a lower cosine are cut" in parameters


def test_a_terminal_gets_lines_that_fit(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "90")
    assert main(["list", "models"]) == 0
    assert max(map(len, capsys.readouterr().out.replace("\x1b[1m", "").replace("\x1b[0m", "").splitlines())) <= 90


def test_no_word_of_the_methods_is_cut_on_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "methods"]) == 0
    words = capsys.readouterr().out.split()
    for spec in builtin_methods().values():
        assert {*spec.summary.split(), *spec.paper.split(), spec.positions} <= set(words)


def test_the_size_that_costs_are_measured_at_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "methods"]) == 0
    (note,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("ms, GMAC: ")]
    assert re.findall(r"[\d.]+", note) == [*COST_SIZE.split("x"), "0.15"] and len(note) < 80
    for what in ("models", "devices"):
        assert main(["list", what]) == 0
        assert "GMAC" not in capsys.readouterr().out


def test_what_can_be_listed_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["list", "engines"])
    assert "'methods', 'models', 'devices'" in capsys.readouterr().err
