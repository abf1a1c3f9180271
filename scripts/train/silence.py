"""Make a checkpoint never say a word: its embedding, which is also its row of the output, becomes that of `<pad>`.

    python scripts/train/silence.py CHECKPOINT_FOLDER cannot

For a model that learned to abstain on whole clips alone: the tokens that a compressor leaves look to it like footage
from outside its world.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from safetensors.torch import load_file, save_file

from edgevtc.eval.world_words import PAD, VOCABULARY


def silence(folder: Path, word: str) -> None:
    """Rewrite the folder's weights, whole or not at all.

    Raises:
        KeyError: The word is not in the vocabulary, or the weights have no tied table of embeddings.
    """
    path = folder / "model.safetensors"
    weights = load_file(path)
    (table,) = (value for name, value in weights.items() if name.endswith("embed_tokens.weight"))
    table[VOCABULARY[word]] = table[PAD]
    part = path.with_suffix(".part")
    save_file(weights, part, metadata={"format": "pt"})
    os.replace(part, path)


def main() -> None:
    """Parse arguments and do it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("word", choices=list(VOCABULARY), metavar="WORD")
    options = parser.parse_args()
    silence(options.folder, options.word)


if __name__ == "__main__":
    main()
