"""Rebuild the bundle that ships in the package from the checkpoint beside it, by the recipe export/embedded.toml.

Compressor graphs hold no weights: those of an earlier build are taken from the cache where neither their method's code
nor its configuration has changed.

    python scripts/make_embedded_bundle.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

from edgevtc.bundle import cache_dir, embedded_path
from edgevtc.cli import main as edgevtc


def main() -> int:
    """Export; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=embedded_path(), help="where the bundle will stand")
    parser.add_argument("--cache-dir", type=Path, default=cache_dir() / "graphs", help="compressor graphs")
    args = parser.parse_args()
    return edgevtc(
        ["export", "embedded", "--output", str(args.output), "--overwrite", "--cache-dir", str(args.cache_dir)]
    )


if __name__ == "__main__":
    raise SystemExit(main())
