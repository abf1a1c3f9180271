"""What this machine has and what an installation lacks: one check a fact, each with the command that mends it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import edgevtc
from edgevtc.errors import BundleError, one_line
from edgevtc.extras import EXTRA_OF

__all__ = ["MISSING", "OK", "PROBLEM", "Check", "can_run", "check_all", "cpu_features", "cpu_limit", "machine_name"]

OK, MISSING, PROBLEM = "ok", "missing", "problem"

#: Distribution → the module it is imported as: what every command needs.
CORE = {
    "numpy": "numpy",
    "av": "av",
    "tokenizers": "tokenizers",
    "jinja2": "jinja2",
    "rich": "rich",
    "pillow": "PIL",
    **({} if sys.version_info >= (3, 11) else {"tomli": "tomli"}),
}

#: Instruction sets that ONNX Runtime's kernels choose by, as /proc/cpuinfo writes them.
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx_vnni": "AVX VNNI",
    "amx_int8": "AMX",
    "asimd": "NEON",
    "asimddp": "NEON dot product",
    "i8mm": "int8 matrix multiply",
    "sve": "SVE",
}

NVIDIA_SMI_TIMEOUT_S = 10.0
NVIDIA_SMI_FIELDS = ("name", "compute_cap", "memory.total", "driver_version")


@dataclass(frozen=True)
class Check:
    """One fact.

    Attributes:
        name: What was looked at.
        status: ``ok``, ``missing`` (optional, and not there) or ``problem``.
        detail: What was found.
        remedy: Command that mends it, or "" where there is nothing to mend.
    """

    name: str
    status: str
    detail: str
    remedy: str = ""


def check_all() -> list[Check]:
    """Every check. What needs a broken package is left out: mending the package comes first."""
    packages = check_packages()
    checks = [*packages, *check_machine(), check_gpu()]
    if any(check.status == PROBLEM for check in packages):
        return checks
    return [*checks, *check_backends(), check_export(), check_bundle()]


def can_run(checks: list[Check]) -> bool:
    """Whether any bundle can run here: the packages are sound and a backend serves a device."""
    status = {check.name: check.status for check in checks}
    return status.get("onnxruntime") == OK


def check_packages() -> list[Check]:
    """Python, this package, and what every command imports."""
    checks = [
        Check("python", OK, f"{platform.python_version()} ({sys.executable})"),
        Check("edgevtc", OK, f"{edgevtc.__version__} ({Path(edgevtc.__file__).parent})"),
    ]
    for distribution, module in CORE.items():
        try:
            imported = importlib.import_module(module)
        except ImportError as error:
            remedy = f"pip install --force-reinstall {distribution}"
            checks.append(Check(distribution, PROBLEM, f"cannot be imported: {one_line(error)}", remedy))
            continue
        libraries = f", FFmpeg {imported.ffmpeg_version_info}" if module == "av" else ""
        checks.append(Check(distribution, OK, version(distribution) + libraries))
    return checks


def check_backends() -> list[Check]:
    """What can run graphs: ONNX Runtime, which runs a bundle as it is, and the libraries that run engines."""
    from edgevtc.backends.onnxruntime import installed_distributions

    checks = [check_onnxruntime()]
    if len(found := installed_distributions()) > 1:
        detail = f"{' and '.join(found)} are both installed and overwrite each other's files"
        remedy = f"pip uninstall -y {' '.join(found)} && pip install 'edgevtc[gpu]' (or 'edgevtc[cpu]')"
        checks.append(Check("onnxruntime conflict", PROBLEM, detail, remedy))
    for module in ("tensorrt", "tensorrt_rtx"):
        extra = EXTRA_OF[module]
        if importlib.util.find_spec(module) is None:
            checks.append(Check(extra, MISSING, "needed to build and run engines", f"pip install 'edgevtc[{extra}]'"))
        else:
            checks.append(Check(extra, OK, version(module)))
    return checks


def check_onnxruntime() -> Check:
    """ONNX Runtime and the devices its execution providers serve."""
    from edgevtc.backends.onnxruntime import PROVIDERS

    try:
        runtime = importlib.import_module("onnxruntime")
        offered = runtime.get_available_providers()
    except ModuleNotFoundError:
        remedy = "pip install 'edgevtc[cpu]' (or 'edgevtc[gpu]' for an NVIDIA GPU)"
        return Check("onnxruntime", MISSING, "no bundle can run without a backend", remedy)
    except (ImportError, AttributeError) as error:  # AttributeError: what an interrupted install leaves is empty
        remedy = "pip uninstall -y onnxruntime onnxruntime-gpu && pip install 'edgevtc[cpu]'"
        return Check("onnxruntime", PROBLEM, f"cannot be imported: {one_line(error)}", remedy)
    devices = [device for device, provider in PROVIDERS.items() if provider.name in offered]
    detail = f"{runtime.__version__}, {', '.join(offered)}"
    if not devices:
        return Check("onnxruntime", PROBLEM, f"{detail}: serves no device", "pip install 'edgevtc[cpu]'")
    return Check("onnxruntime", OK, f"{detail}: --device {', '.join(devices)}")


def check_export() -> Check:
    """The libraries of the export extra, found without importing them."""
    names = [module for module, extra in EXTRA_OF.items() if extra == "export"]
    lacking = [name for name in names if importlib.util.find_spec(name) is None]
    if lacking:
        detail = f"needed to export checkpoints; lacks {', '.join(lacking)}"
        return Check("export extra", MISSING, detail, "pip install 'edgevtc[export]'")
    return Check("export extra", OK, ", ".join(f"{name} {version(name)}" for name in names))


def check_machine() -> list[Check]:
    """Processor, threads and memory."""
    cpuinfo = read(Path("/proc/cpuinfo"))
    model, features = cpu_features(cpuinfo)
    threads, limit = len(os.sched_getaffinity(0)), cpu_limit(read(Path("/sys/fs/cgroup/cpu.max")))
    checks = [Check("cpu", OK, f"{model or platform.machine()}: {', '.join(features) or 'no known vector extension'}")]
    if limit is not None and limit < threads:
        detail = f"{threads} threads would share {limit:g} processors, the limit of this container"
        checks.append(Check("threads", PROBLEM, detail, f"add --threads {max(1, int(limit))}"))
    else:
        checks.append(Check("threads", OK, f"{threads} of {os.cpu_count()}"))
    memory = dict(line.split(":", 1) for line in read(Path("/proc/meminfo")).splitlines() if ":" in line)
    if {"MemTotal", "MemAvailable"} <= memory.keys():
        total, free = (int(memory[name].split()[0]) * 1024 / 1e9 for name in ("MemTotal", "MemAvailable"))
        checks.append(Check("memory", OK, f"{free:.1f} of {total:.1f} GB available"))
    return checks


def check_gpu() -> Check:
    """NVIDIA GPUs, as the driver's own program tells them."""
    if (program := shutil.which("nvidia-smi")) is None:
        return Check("gpu", MISSING, "no nvidia-smi, so no NVIDIA driver; --device cpu needs none")
    command = [program, f"--query-gpu={','.join(NVIDIA_SMI_FIELDS)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=NVIDIA_SMI_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        detail = f"nvidia-smi gave no answer within {NVIDIA_SMI_TIMEOUT_S:g} s"
        return Check("gpu", PROBLEM, detail, "restart the machine, or reinstall the NVIDIA driver")
    except OSError as error:
        return Check("gpu", PROBLEM, f"nvidia-smi cannot be run: {one_line(error)}", "reinstall the NVIDIA driver")
    if done.returncode:
        detail = f"nvidia-smi failed: {' '.join((done.stderr or done.stdout).split()) or done.returncode}"
        return Check("gpu", PROBLEM, detail, "restart the machine, or reinstall the NVIDIA driver")
    return Check("gpu", OK, "; ".join(describe_gpu(line) for line in done.stdout.splitlines() if line.strip()))


def describe_gpu(line: str) -> str:
    """One line of nvidia-smi's CSV in words."""
    values = [value.strip() for value in line.split(",")]
    if len(values) != len(NVIDIA_SMI_FIELDS):
        return line.strip()
    name, capability, memory, driver = values
    return f"{name}, compute capability {capability}, {memory}, driver {driver}"


def check_bundle() -> Check:
    """The embedded bundle opens, and every file has its hash."""
    from edgevtc.bundle import Bundle

    try:
        bundle = Bundle()
    except BundleError as error:
        return Check("embedded bundle", PROBLEM, str(error), "pip install --force-reinstall --no-deps edgevtc")
    files = bundle.manifest.files
    size = sum(entry.size for entry in files.values())
    return Check(
        "embedded bundle", OK, f"{bundle.manifest.model.name}, {len(files)} files verified, {size / 1e6:.1f} MB"
    )


def cpu_features(cpuinfo: str) -> tuple[str, list[str]]:
    """Model name and vector extensions from the text of /proc/cpuinfo, on x86 and Arm."""
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    flags = set(fields.get("flags", fields.get("features", "")).split())
    return fields.get("model name", ""), [label for flag, label in FEATURES.items() if flag in flags]


def cpu_limit(cpu_max: str) -> float | None:
    """Processors a cgroup may use, from the text of cpu.max (quota and period in µs); None without a limit."""
    parts = cpu_max.split()
    return int(parts[0]) / int(parts[1]) if len(parts) == 2 and all(part.isdigit() for part in parts) else None


def machine_name() -> str:
    """Host, architecture and processor: what measured times hold for."""
    model, _ = cpu_features(read(Path("/proc/cpuinfo")))
    return ", ".join(part for part in (platform.node(), platform.machine(), model) if part)


def version(distribution: str) -> str:
    """Version of an installed distribution."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "version not stated"


def read(path: Path) -> str:
    """A file's text; empty where this system has no such file."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
