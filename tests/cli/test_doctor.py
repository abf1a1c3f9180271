from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgevtc import environment
from edgevtc.backends import onnxruntime as ort_backend
from edgevtc.bundle import Bundle
from edgevtc.cli import main
from edgevtc.environment import cpu_features, cpu_limit


@pytest.fixture(autouse=True)
def embedded(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A small bundle in place of the embedded one, no GPU, and one distribution of ONNX Runtime."""
    monkeypatch.setattr("edgevtc.bundle.reader.embedded_path", lambda: tiny_bundle.path)
    monkeypatch.setattr(ort_backend, "installed_distributions", lambda: ["onnxruntime"])
    monkeypatch.setenv("PATH", "")
    return tiny_bundle


def doctor(capsys: pytest.CaptureFixture[str], code: int = 0) -> dict[str, dict]:
    assert main(["doctor", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["can_run"] is (code == 0)
    checks = {check["name"]: check for check in report["checks"]}
    assert len(checks) == len(report["checks"])
    for check in checks.values():
        assert check["status"] in ("ok", "missing", "problem") and check["detail"]
        assert check["status"] != "problem" or check["remedy"]
        assert check["status"] != "ok" or not check["remedy"]
    return checks


def test_a_sound_installation(capsys: pytest.CaptureFixture[str], embedded: Bundle) -> None:
    checks = doctor(capsys)
    for name in ("python", "edgevtc", "numpy", "tokenizers", "onnxruntime", "cpu", "embedded bundle"):
        assert checks[name]["status"] == "ok"
    assert "FFmpeg" in checks["av"]["detail"]
    assert "CPUExecutionProvider" in checks["onnxruntime"]["detail"]
    assert f"{len(embedded.manifest.files)} files verified" in checks["embedded bundle"]["detail"]
    assert checks["gpu"]["status"] == "missing"


def test_the_lines_name_what_mends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    assert main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    index = next(i for i, line in enumerate(lines) if line.startswith("missing  tensorrt "))
    assert lines[index + 1].strip() == "mend: pip install 'edgevtc[tensorrt]'"
    assert lines[-1] == "bundles can run here"


def test_a_base_install_without_a_backend_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    check = doctor(capsys, code=1)["onnxruntime"]
    assert check["status"] == "missing" and "edgevtc[cpu]" in check["remedy"]
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.endswith("no bundle can run here\n")


def test_both_distributions_of_onnxruntime_are_a_problem_that_stops_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "onnxruntime conflict" not in doctor(capsys)
    monkeypatch.setattr(ort_backend, "installed_distributions", lambda: ["onnxruntime", "onnxruntime-gpu"])
    check = doctor(capsys)["onnxruntime conflict"]
    assert check["status"] == "problem"
    assert check["remedy"].startswith("pip uninstall -y onnxruntime onnxruntime-gpu && pip install")


@pytest.mark.parametrize(
    "remains",
    [
        SimpleNamespace(),  # an empty folder, as pip leaves it when one distribution is removed beside the other
        SimpleNamespace(__version__="1.30.0", get_available_providers=lambda: ["AzureExecutionProvider"]),
    ],
)
def test_an_onnxruntime_that_serves_nothing_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, remains: SimpleNamespace
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", remains)
    assert doctor(capsys, code=1)["onnxruntime"]["status"] == "problem"


def test_a_broken_package_comes_first(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    checks = doctor(capsys, code=1)
    assert checks["tokenizers"]["status"] == "problem"
    assert checks["tokenizers"]["remedy"] == "pip install --force-reinstall tokenizers"


def test_missing_parts_of_the_export_extra_are_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("torch", "onnxscript"):
        monkeypatch.setitem(sys.modules, module, None)
    check = doctor(capsys)["export extra"]
    assert check["status"] == "missing" and check["remedy"] == "pip install 'edgevtc[export]'"
    assert "torch" in check["detail"] and "onnxscript" in check["detail"]


def test_a_harmed_embedded_bundle_is_a_problem(capsys: pytest.CaptureFixture[str], embedded: Bundle) -> None:
    (embedded.path / "encoder.onnx").write_bytes(b"ENCODER")
    check = doctor(capsys)["embedded bundle"]
    assert check["status"] == "problem" and "encoder.onnx was altered" in check["detail"]


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ("echo 'NVIDIA GeForce RTX 4060, 8.9, 8188 MiB, 580.65'", "ok", "RTX 4060, compute capability 8.9, 8188 MiB"),
        ("echo 'A, 8.9, 1 MiB, 1'; echo 'B, 8.6, 2 MiB, 1'", "ok", "; B, compute capability 8.6"),
        ("echo 'driver mismatch' >&2; exit 9", "problem", "driver mismatch"),
        ("sleep 20", "problem", "no answer within 0.5 s"),
    ],
)
def test_the_gpu_is_what_nvidia_smi_says(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    status: str,
    words: str,
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{script.replace('sleep', 'exec sleep')}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(environment, "NVIDIA_SMI_TIMEOUT_S", 0.5)
    check = doctor(capsys)["gpu"]
    assert check["status"] == status and words in check["detail"]


@pytest.mark.parametrize(
    ("cpuinfo", "model", "features"),
    [
        (
            "processor\t: 0\nmodel name\t: Some x86\nflags\t\t: fpu sse2 avx2 avx512f avx512_vnni\n",
            "Some x86",
            ["AVX2", "AVX-512", "AVX-512 VNNI"],
        ),
        (
            "processor\t: 0\nBogoMIPS\t: 62.50\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd42\n",
            "",
            ["NEON", "NEON dot product"],
        ),
        ("", "", []),
    ],
)
def test_cpu_features(cpuinfo: str, model: str, features: list[str]) -> None:
    assert cpu_features(cpuinfo) == (model, features)


@pytest.mark.parametrize(
    ("cpu_max", "limit"), [("max 100000\n", None), ("150000 100000\n", 1.5), ("800000 100000", 8.0), ("", None)]
)
def test_cpu_limit(cpu_max: str, limit: float | None) -> None:
    assert cpu_limit(cpu_max) == limit


def test_a_container_with_fewer_processors_than_threads_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr(environment, "cpu_limit", lambda _: 2.0)
    check = doctor(capsys)["threads"]
    assert (check["status"], check["remedy"]) == ("problem", "add --threads 2")
