"""Rebuild the bundle that ships in the package from the checkpoint beside it, by the recipe export/embedded.toml."""

from pathlib import Path

import edgevtc
from edgevtc.cli import main

if __name__ == "__main__":
    folder = Path(edgevtc.__file__).parent / "embedded" / "bundle"
    raise SystemExit(main(["export", "embedded", "--output", str(folder), "--overwrite"]))
