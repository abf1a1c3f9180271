"""What parts of an export depend on, as short hashes: options, checkpoints and code."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import edgevtc
from edgevtc.bundle.reader import file_sha256

__all__ = ["fingerprint", "folder_sha256", "package_sha256", "program_sha256", "sources_of"]

#: What is read of a checkpoint.
CHECKPOINT_FILES = (".json", ".jinja", ".safetensors")

#: Programs of compressors are of these, or of a plugin's own package.
PROGRAMS = "edgevtc.compressors"

#: What makes a graph of a program, and what it imports of its package.
TRACERS = "edgevtc.exporter"
TRACING = tuple(f"{TRACERS}.{module}" for module in ("contract", "precision", "store", "vision"))


def fingerprint(depends: Any) -> str:
    """Twenty hex digits of the content of what is JSON, but for paths, which stand for what is there."""
    text = json.dumps(depends, sort_keys=True, default=content)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def content(value: object) -> str:
    """Hash of the files at a path."""
    if not isinstance(value, Path):
        raise TypeError(f"{value!r} is neither JSON nor a path")
    return folder_sha256(value) if value.is_dir() else file_sha256(value)


def folder_sha256(folder: Path) -> str:
    """Hash of a checkpoint: of its weights and of what says how they are used."""
    files = sorted(path for path in folder.iterdir() if path.suffix in CHECKPOINT_FILES)
    return digest({path.name: file_sha256(path) for path in files})


@cache
def package_sha256() -> str:
    """Hash of this package's code."""
    root = Path(edgevtc.__file__).parent
    return digest({str(path.relative_to(root)): file_sha256(path) for path in root.rglob("*.py")})


@cache
def program_sha256(program: type) -> str:
    """Hash of the code that a compressor's graph comes from: its module, all that imports, and what traces it.

    So a change to one method leaves the others' graphs as good as they were.
    """
    return digest({module: file_sha256(path) for module, path in sources_of(program).items()})


def sources_of(program: type) -> dict[str, Path]:
    """Module → file of the code that a compressor's graph comes from."""
    package = program.__module__.partition(".")[0]
    within = (PROGRAMS, TRACERS, *([package] if package != "edgevtc" else []))
    sources: dict[str, Path] = {}
    waiting = [*(cls.__module__ for cls in program.__mro__), *TRACING]
    while waiting:
        module = waiting.pop()
        inside = any(module == name or module.startswith(f"{name}.") for name in within)
        if not inside or module in sources or (path := source_of(module)) is None:
            continue
        sources[module] = path
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    waiting += [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom):
                    origin = "." * node.level + (node.module or "")
                    waiting += imported(module, path, origin, [alias.name for alias in node.names])
    return sources


def imported(module: str, path: Path, origin: str, names: list[str]) -> list[str]:
    """Modules that `from origin import names` may mean."""
    if level := len(origin) - len(origin.lstrip(".")):
        parents = module.split(".")[: None if path.name == "__init__.py" else -1]
        base = ".".join([*parents[: len(parents) - level + 1], *filter(None, [origin.lstrip(".")])])
    else:
        base = origin
    # Of a package whose programs are loaded by name, the names alone are meant, not the package.
    return [*([base] if base != PROGRAMS else []), *(f"{base}.{name}" for name in names)]


def source_of(module: str) -> Path | None:
    """File of a module; None where there is no such module, as where a name is a function's."""
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin not in (None, "built-in", "frozen") else None


def digest(names: dict[str, str]) -> str:
    """Hash of names with hashes."""
    return hashlib.sha256(json.dumps(names, sort_keys=True).encode()).hexdigest()
