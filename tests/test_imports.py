"""The house's order: who may import whom, that a device needs no torch, and that the command line starts at once."""

from __future__ import annotations

import ast
import graphlib
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgevtc.cli import COMMANDS

PACKAGE = Path(__file__).parents[1] / "edgevtc"

#: Parts of the package from top to bottom. A part imports what stands below it, never what stands above.
ORDER = (
    "__main__",
    "cli",
    "exporter",
    "models",
    "compressors",
    "eval",
    "view",
    "measure",
    "planner",
    "runner",
    "latency",
    "loaded",
    "answer",
    "adaptive",
    "domain",
    "vision",
    "decoder",
    "video",
    "environment",
    "build",
    "backends",
    "catalogue",
    "bundle",
    "methods",
    "workers",
    "files",
    "records",
    "extras",
    "errors",
    "embedded",
)

#: The workstation's side. Nothing but the command line may import it: the rest runs on a device.
TORCH_PARTS = ("exporter", "models", "compressors")
TORCH_LIBRARIES = (
    "torch",
    "transformers",
    "optimum",
    "onnx",
    "onnxscript",
    "onnx_ir",
    "safetensors",
    "huggingface_hub",
)

#: Parts that must not know what stands beside them, though the order would let them.
CONFINED = {
    "compressors": {"methods", "errors"},
    "video": {"errors", "extras"},
    "backends": {"errors", "extras"},
}

HELP_LIMIT_S = 0.3


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def part(module: str) -> str:
    """The part of the package a module belongs to; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules of this package that a syntax tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "edgevtc")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgevtc":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else str(node.module)


def parse(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"))


def at_import_time(tree: ast.Module) -> ast.Module:
    """The tree without functions and without `if TYPE_CHECKING` blocks: what runs when the module is imported."""

    class Strip(ast.NodeTransformer):
        def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
            return None

        def visit_If(self, node: ast.If) -> ast.AST | None:
            return None if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" else node

    return Strip().visit(tree)


def test_every_part_has_its_place_in_the_order() -> None:
    assert {part(module) for module in MODULES} - {""} <= set(ORDER)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_downward(module: str) -> None:
    here = part(module)
    for target in imports(parse(module)):
        there = part(target)
        # The package itself holds the version; it imports the runner lazily, for `from edgevtc import Runner`.
        if here in ("", there) or there == "":
            continue
        assert ORDER.index(here) < ORDER.index(there), f"{module} imports {target}, which stands above it"
        if here in CONFINED:
            assert there in CONFINED[here], f"{module} imports {target}: {here} knows only {CONFINED[here]}"


@pytest.mark.parametrize("module", sorted(name for name in MODULES if part(name) not in (*TORCH_PARTS, "cli")))
def test_only_the_command_line_reaches_the_torch_side(module: str) -> None:
    assert not {part(target) for target in imports(parse(module))} & set(TORCH_PARTS)


def test_there_are_no_import_cycles() -> None:
    graph = {module: set(imports(at_import_time(parse(module)))) - {module} for module in MODULES}
    graphlib.TopologicalSorter(graph).prepare()


def test_there_are_no_relative_imports() -> None:
    found = [(module, node) for module in MODULES for node in ast.walk(parse(module))]
    relative = [module for module, node in found if isinstance(node, ast.ImportFrom) and node.level]
    assert relative == []


def test_every_run_time_module_imports_without_the_export_extra() -> None:
    names = sorted(name for name in MODULES if part(name) not in (*TORCH_PARTS, "__main__"))
    program = f"""
import importlib, importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {TORCH_LIBRARIES!r}:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)
sys.meta_path.insert(0, Blocked())
try:
    import torch
except ModuleNotFoundError:
    pass
else:
    raise SystemExit("the block does not hold")
for name in {names!r}:
    importlib.import_module(name)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(names) > 30


def run_help() -> tuple[float, str]:
    """Processor time and output: unlike wall time, it does not depend on what else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-m", "edgevtc", "--help"], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def test_help_comes_at_once() -> None:
    assert min(run_help()[0] for _ in range(3)) < HELP_LIMIT_S


def test_help_names_every_command() -> None:
    overview = run_help()[1]
    assert all(f"\n    {name} " in overview for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import json, sys\nfrom edgevtc.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        "print('\\n' + json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert not loaded & {"numpy", "av", "rich", "jinja2", "tokenizers", "onnxruntime", "PIL", *TORCH_LIBRARIES}


def test_the_runtime_does_not_report_home(tmp_path) -> None:
    """Its wheels keep a number of this machine and a queue of events in the user's cache, unless told not to."""
    program = (
        "import edgevtc\n"
        "from edgevtc.backends import create_backend\n"
        "from edgevtc.bundle import Bundle\n"
        "from edgevtc.vision import VisionPipeline\n"
        "vision = VisionPipeline(create_backend('cpu', 1), Bundle())\n"
        "vision.session(vision.bundle.manifest.vision.encoder)\n"
    )
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | home
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
    assert [path.name for path in tmp_path.rglob("*") if "icrosoft" in str(path) or "onnxruntime" in path.name] == []
    kept = "import os, edgevtc; assert os.environ['ORT_DISABLE_TELEMETRY'] == '0'"
    subprocess.run([sys.executable, "-c", kept], env={**environment, "ORT_DISABLE_TELEMETRY": "0"}, check=True)
