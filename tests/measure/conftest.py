"""What the tests of measuring share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from measure_bundle import BUDGET, METHOD, QUESTION, reference, sign

from edgevtc import Runner
from edgevtc.bundle import Bundle, FileEntry, VerificationEntry, embedded_path
from edgevtc.bundle.reader import file_sha256
from edgevtc.measure.verify import greedy_answer


@pytest.fixture(scope="session")
def pristine(tmp_path_factory, samples) -> Path:
    folder = tmp_path_factory.mktemp("verify") / "bundle"
    shutil.copytree(embedded_path(), folder)

    def one_method(body):
        held = [entry for entry in body["methods"] if (entry["name"], entry["budget"]) == (METHOD, BUDGET)]
        body["methods"] = [{**entry, "fused": ""} for entry in held]

    sign(folder, one_method)
    content = reference(folder, samples / "corridor.mp4")
    manifest = Bundle(folder).manifest
    _, answer = greedy_answer(Runner(folder), content.frames, QUESTION)
    (folder / "references.npz").write_bytes(content.to_bytes())
    graphs = [manifest.vision.encoder, manifest.methods[0].compressor]
    differences = dict.fromkeys([*graphs, *manifest.decoder.graphs.values()], 1e-6)
    entry = VerificationEntry("references.npz", "corridor.mp4", QUESTION, answer, 0.5, differences)

    def carry(body):
        body["verification"] = vars(entry)
        body["files"]["references.npz"] = vars(
            FileEntry(file_sha256(folder / "references.npz"), (folder / "references.npz").stat().st_size)
        )

    sign(folder, carry)
    return folder


@pytest.fixture
def bundle_copy(pristine, tmp_path, monkeypatch) -> Path:
    """A private copy, and a private cache of what was verified."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Path(shutil.copytree(pristine, tmp_path / "bundle"))
