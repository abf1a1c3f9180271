"""An interrupted export goes on where it was, and ends in the very bundle it would have been."""

from __future__ import annotations

import importlib
import threading
from dataclasses import replace

import pytest
import torch
from tiny_checkpoint import build_model, write_checkpoint, write_texts
from tiny_export import TINY_OPTIONS

from edgevtc.compressors import create
from edgevtc.errors import ConfigError
from edgevtc.exporter import vision_parts
from edgevtc.exporter.export import export_bundle
from edgevtc.exporter.fingerprint import program_sha256, sources_of

pytestmark = pytest.mark.export

OPTIONS = replace(TINY_OPTIONS, methods=("uniform", "none"), weight_formats=("w8a8",))

#: Steps of an export in which something is made.
MAKING = ("tracing", "fusing", "writing the", "computing")


class Steps(list):
    """Progress of an export, which ends at the first step that starts with `until`."""

    def __init__(self, until: str = "nowhere") -> None:
        super().__init__()
        self.until = until
        self.counts: list[tuple[int, int]] = []

    def __call__(self, step: str) -> None:
        if step.startswith(self.until):
            raise KeyboardInterrupt
        self.append(step)

    def count(self, done: int, total: int) -> None:
        self.counts.append((done, total))

    def parts(self) -> int:
        """Number of parts, each of which was counted when it was done."""
        total = len(self.counts) - 1
        assert self.counts == [(done, total) for done in range(total + 1)]
        return total

    def made(self) -> list[str]:
        return [step for step in self if step.startswith(MAKING)]

    def said(self, start: str) -> list[str]:
        return [step.removeprefix(start).split(" as it ")[0].strip() for step in self if step.startswith(start)]


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def exported():
    """What `whole` has made once."""
    return []


@pytest.fixture
def whole(exported, tiny_folder, traced_once, tmp_path_factory):
    """The steps and the bundle of an export that nothing interrupts."""
    if not exported:
        folder, steps = tmp_path_factory.mktemp("whole") / "out", Steps()
        export_bundle(tiny_folder, folder, OPTIONS, progress=steps)
        exported += steps, contents(folder)
    return exported


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory):
    """The same checkpoint but for one weight, which is not of the graphs that are traced once for all tests."""
    model = build_model()
    with torch.no_grad():
        model.model.language_model.norm.weight.mul_(1.5)
    return write_texts(write_checkpoint(tmp_path_factory.mktemp("other") / "checkpoint", model))


def interrupted(checkpoint, output, until, options=OPTIONS):
    with pytest.raises(KeyboardInterrupt):
        export_bundle(checkpoint, output, options, progress=Steps(until))
    assert not output.exists()


@pytest.mark.parametrize(
    ("until", "taken"),
    [
        ("tracing uniform", ["encoder"]),
        ("fusing none", ["encoder", "compressors/uniform-b4", "vision/uniform-b4", "compressors/none-b8"]),
        ("verifying an answer", ["encoder", "compressors/uniform-b4", "vision/uniform-b4", "compressors/none-b8",
                                 "vision/none-b8", "decoder/w8a8", "embeddings", "references"]),
    ],
)  # fmt: skip
def test_what_was_finished_is_taken_over(tiny_folder, traced_once, whole, tmp_path, until, taken):
    interrupted(tiny_folder, tmp_path / "out", until)
    steps = Steps()
    export_bundle(tiny_folder, tmp_path / "out", OPTIONS, progress=steps)
    uninterrupted, bundle = whole
    assert steps.said("taking ") == taken
    # Besides the encoder of the whole clip, which is in memory alone, nothing is made twice.
    made = [step for step in uninterrupted.made() if "whole clip" not in step]
    started = next((index for index, step in enumerate(made) if step.startswith(until)), len(made))
    assert [step for step in steps.made() if "whole clip" not in step] == made[started:]
    assert contents(tmp_path / "out") == bundle
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_does_not_match_is_made_anew_with_a_word(tiny_folder, traced_once, whole, tmp_path):
    output = tmp_path / "out"
    interrupted(tiny_folder, output, "verifying", replace(OPTIONS, max_positions=64, parameters={}))
    steps = Steps()
    export_bundle(tiny_folder, output, OPTIONS, progress=steps)
    assert steps.said("leaving out ") == ["decoder/w8a8", "embeddings"] and "encoder" in steps.said("taking ")
    assert contents(output) == whole[1]


def test_other_weights_make_all_anew_but_the_compressors(tiny_folder, other_folder, traced_once, tmp_path):
    steps = Steps()
    interrupted(tiny_folder, tmp_path / "out", "verifying")
    export_bundle(other_folder, tmp_path / "out", OPTIONS, progress=steps)
    assert steps.said("taking ") == ["compressors/uniform-b4", "compressors/none-b8"]
    assert "encoder" in steps.said("leaving out ") and "references" in steps.said("leaving out ")


def test_what_was_damaged_is_made_anew(tiny_folder, traced_once, whole, tmp_path):
    output, steps = tmp_path / "out", Steps()
    interrupted(tiny_folder, output, "verifying")
    (left,) = tmp_path.iterdir()
    encoder = next(left.glob("encoder.*")) / "encoder.onnx"
    encoder.write_bytes(encoder.read_bytes()[:-1] + b"\0")
    next(left.glob("embeddings.*/part.json")).unlink()
    export_bundle(tiny_folder, output, OPTIONS, progress=steps)
    assert steps.said("leaving out ") == ["encoder", "embeddings"] and contents(output) == whole[1]


@pytest.mark.parametrize(("fused", "graphs"), [(True, 7), (False, 5)])
def test_every_part_is_counted_however_it_comes(tiny_folder, traced_once, tmp_path, fused, graphs):
    options, output = replace(OPTIONS, fused=fused, weight_formats=("fp32", "w8a8")), tmp_path / "out"
    broken, resumed, cached = Steps("verifying an answer"), Steps(), Steps()
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_folder, output, options, progress=broken, count=broken.count)
    export_bundle(tiny_folder, output, options, cache_dir=tmp_path / "cache", progress=resumed, count=resumed.count)
    arguments = {"overwrite": True, "cache_dir": tmp_path / "cache", "jobs": 2}
    export_bundle(tiny_folder, output, options, progress=cached, count=cached.count, **arguments)
    assert broken.counts == resumed.counts[:-1] and "encoder" in resumed.said("taking ")
    assert cached.said("taking ") == ["compressors/uniform-b4", "compressors/none-b8"]
    # Graphs are made and verified; embeddings and references made; prompt, embeddings and an answer verified.
    assert resumed.parts() == cached.parts() == 2 * graphs + 2 + 3


def test_on_request_nothing_is_taken_over(tiny_folder, traced_once, tmp_path):
    interrupted(tiny_folder, tmp_path / "out", "verifying")
    steps = Steps()
    export_bundle(tiny_folder, tmp_path / "out", OPTIONS, restart=True, progress=steps)
    assert not steps.said("taking ") and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_exports_take_compressors_from_a_cache(tiny_folder, other_folder, traced_once, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    runs = [Steps() for _ in range(3)]
    export_bundle(tiny_folder, tmp_path / "one", OPTIONS, cache_dir=cache, progress=runs[0])
    export_bundle(other_folder, tmp_path / "two", OPTIONS, cache_dir=cache, progress=runs[1])
    # A program that has changed is another; the graph of the old one stays for who has it.
    monkeypatch.setattr(vision_parts, "program_sha256", lambda program: f"{program.__name__} as of tomorrow")
    export_bundle(other_folder, tmp_path / "three", OPTIONS, cache_dir=cache, progress=runs[2])
    assert [run.said("taking ") for run in runs] == [[], ["compressors/uniform-b4", "compressors/none-b8"], []]
    assert len(list(cache.iterdir())) == 4 and not runs[2].said("leaving out ")
    bundles = [tmp_path / name for name in ("one", "two", "three")]
    assert len({(bundle / "compressors" / "uniform-b4.onnx").read_bytes() for bundle in bundles}) == 1
    # Nothing ties a bundle to the cache, and onnx reads no file of two names.
    assert all(path.stat().st_nlink == 1 for bundle in bundles for path in bundle.rglob("*") if path.is_file())


def test_several_processes_trace_the_same_graphs(tiny_folder, traced_once, whole, tmp_path):
    steps = Steps()
    export_bundle(tiny_folder, tmp_path / "out", OPTIONS, jobs=2, progress=steps, count=steps.count)
    assert steps.parts()  # those that other processes made, too
    assert not steps.said("taking ")  # none had been finished before
    assert steps.said("tracing ")[1] == "2 compressors in 2 processes" and contents(tmp_path / "out") == whole[1]
    # What shares a tensor's memory serves it from a thread, which speaks up when a process goes away.
    assert not [thread for thread in threading.enumerate() if "_serve" in thread.name]
    with pytest.raises(ConfigError, match="0 jobs are not valid"):
        export_bundle(tiny_folder, tmp_path / "none", OPTIONS, jobs=0)


def test_a_methods_code_is_all_it_imports_and_no_other_methods():
    holitom, uniform = (sources_of(type(create(name, 4, 16, 8))) for name in ("holitom", "uniform"))
    assert {"edgevtc.compressors.holitom", "edgevtc.compressors.base", "edgevtc.exporter.vision"} <= set(holitom)
    assert "edgevtc.compressors.blocks.ranking" in holitom
    assert not {"edgevtc.compressors.infomerge", "edgevtc.compressors.holitom"} & set(uniform)


def test_a_change_anywhere_in_a_plugins_code_shows(tmp_path, monkeypatch):
    package = tmp_path / "edgevtc_example"
    (package / "deep").mkdir(parents=True)
    (package / "__init__.py").write_text("from .program import Example\n")
    (package / "program.py").write_text(
        "from edgevtc.compressors import Compressor\nfrom . import helper\nfrom .deep.more import value\n"
        "class Example(Compressor):\n    pass\n"
    )
    (package / "helper.py").write_text("import json\n")
    (package / "deep" / "__init__.py").write_text("")
    (package / "deep" / "more.py").write_text("from ..other import value\n")
    (package / "other.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    program = importlib.import_module("edgevtc_example").Example
    hashes = set()
    for file in ("", "program.py", "helper.py", "deep/more.py", "other.py"):
        if file:
            (package / file).write_text((package / file).read_text() + "# changed\n")
        program_sha256.cache_clear()
        hashes.add(program_sha256(program))
    assert len(hashes) == 5 and "json" not in sources_of(program)
