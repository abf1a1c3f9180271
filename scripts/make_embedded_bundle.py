"""Rebuild the bundle that ships in the package from the checkpoint beside it, by the recipe export/embedded.toml.

Compressor graphs hold no weights: those of an earlier build are taken from the cache where neither their method's code
nor its configuration has changed.

    python scripts/make_embedded_bundle.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from edgevtc.bundle import cache_dir, embedded_path
from edgevtc.cli import main as edgevtc


def main() -> int:
    """Export; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=embedded_path(), help="where the bundle will stand")
    parser.add_argument("--cache-dir", type=Path, default=cache_dir() / "graphs", help="compressor graphs")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes that trace compressors")
    args = parser.parse_args()
    words = ["--output", args.output, "--overwrite", "--cache-dir", args.cache_dir, "--jobs", args.jobs]
    return edgevtc(["export", "embedded", *map(str, words)])


if __name__ == "__main__":
    raise SystemExit(main())
