"""Killed at any moment, an export leaves the bundle that was there or the one that is new, whole; never half of one.

And whatever the killed ones had finished goes into the next, which ends as if nothing had happened.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from tiny_export import SHORTEST_OPTIONS

from edgevtc.bundle import Bundle
from edgevtc.exporter.export import export_bundle

pytestmark = pytest.mark.export

TESTS = Path(__file__).parent.parent

#: Kills of exports that reuse traced graphs, and so pass through all that is written; and of whole ones.
KILLS, TRACED_KILLS = 46, 4

#: Exports among which so many have to be hit: some end before their kill.
ATTEMPTS = 2 * (KILLS + TRACED_KILLS)


class Worker:
    """Starts exports in a process of its own, see `export_worker`."""

    def __init__(self, *arguments: Path) -> None:
        command = [sys.executable, str(TESTS / "export_worker.py"), *map(str, arguments)]
        path = os.pathsep.join([str(TESTS.parent), str(TESTS)])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    def export(self, kind: str, kill_after_s: float | None) -> tuple[int, float]:
        """Exit status as `os.waitpid` gives it, and how long it took."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(kind + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        start = time.monotonic()
        if kill_after_s is not None:
            ended, _, _ = select.select([self.process.stdout], [], [], kill_after_s)
            with contextlib.suppress(ProcessLookupError):  # it ended at that very moment
                if not ended:
                    os.kill(child, signal.SIGKILL)
        return int(self.process.stdout.readline()), time.monotonic() - start


def graphs_of(bundle: Path, file: Path) -> None:
    """The encoder and the compressor of a bundle as the exporter traced them: with their weights inside."""
    graphs = {}
    for name, graph in (("encoder", "encoder.onnx"), ("compressor", "compressors/uniform-b4.onnx")):
        model = ir.load(bundle / graph)
        for value in model.graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                tensor = ir.ExternalTensor(
                    value.const_value.location,
                    0,
                    value.const_value.length,
                    value.const_value.dtype,
                    shape=value.const_value.shape,
                    name=value.name,
                    base_dir=bundle,
                )
                value.const_value = ir.tensor(tensor.numpy(), name=value.name)
        graphs[name] = np.frombuffer(ir.to_proto(model).SerializeToString(), np.uint8)
    np.savez(file, **graphs)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a bundle."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tiny_folder, traced_once, tmp_path):
    """Where bundles are exported to, with one there already."""
    folder = tmp_path / "bundles"
    export_bundle(tiny_folder, folder / "out", SHORTEST_OPTIONS)
    graphs_of(folder / "out", tmp_path / "graphs.npz")
    return folder


def test_fifty_kills_leave_no_half_bundle(tiny_folder, place, tmp_path):
    rng = random.Random(0)
    output = place / "out"
    whole = sorted(Bundle(output).manifest.files)
    uninterrupted = contents(output)
    worker = Worker(tiny_folder, output, tmp_path / "graphs.npz")
    try:
        status, duration = worker.export("reused", None)
        assert status == 0
        killed = attempts = interrupted = resumable = 0
        while killed < KILLS + TRACED_KILLS:
            assert attempts < ATTEMPTS, f"only {killed} of {attempts} exports were hit: the others ended before"
            attempts += 1
            if attempts % 2 == 0:
                shutil.rmtree(output, ignore_errors=True)
            was_there = output.exists()
            kind = "reused" if killed < KILLS else "traced"
            delay = rng.uniform(0, 1.1 * duration) if kind == "reused" else rng.uniform(0.1, 1.5)
            status, took = worker.export(kind, delay)
            assert status in (0, signal.SIGKILL)
            # Resumed exports are shorter, and on a busy machine all are longer: the next takes about as long as this.
            duration = took if status == 0 else max(took, duration)
            killed += status == signal.SIGKILL
            leftovers = [path.name for path in place.iterdir() if path != output]
            interrupted += bool(leftovers)
            resumable += any(".parts-" in name for name in leftovers)
            if output.exists():
                manifest = Bundle(output, rehash=True).manifest
                assert sorted(manifest.files) == whole and manifest.verification.differences
            elif was_there:  # killed between the two renames: the next export puts it back
                assert any(name.endswith("-old") for name in leftovers)
        assert interrupted >= KILLS // 2 and resumable >= KILLS // 2
        status, _ = worker.export("reused", None)
        assert status == 0
    finally:
        worker.process.stdin.close()
        worker.process.wait(timeout=60)
    assert [path.name for path in place.iterdir()] == ["out"]
    assert contents(output) == uninterrupted
