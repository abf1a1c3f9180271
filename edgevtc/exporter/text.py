"""The text files of a bundle: tokenizer, chat template, generation and preprocessor config."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgevtc.errors import ExportError, one_line
from edgevtc.extras import require
from edgevtc.models import Preprocessing
from edgevtc.models.checkpoint import read_json

__all__ = ["TOKENIZER", "text_files"]

#: Name of the tokenizer's file.
TOKENIZER = "tokenizer.json"


def text_files(folder: Path, text_config: dict[str, Any], preprocessing: Preprocessing) -> dict[str, bytes]:
    """Name and content of each text file of a checkpoint's bundle.

    Raises:
        ExportError: The checkpoint has no tokenizer or no chat template, or does not say what ends an answer.
    """
    return {
        TOKENIZER: tokenizer_json(folder),
        "chat_template.jinja": chat_template(folder),
        "generation_config.json": generation_config(folder, text_config),
        "preprocessor_config.json": preprocessor_config(preprocessing),
    }


def tokenizer_json(folder: Path) -> bytes:
    """The checkpoint's fast tokenizer, converted by transformers where the checkpoint has another form."""
    if (path := folder / "tokenizer.json").is_file():
        return path.read_bytes()
    transformers = require("transformers", "reading a checkpoint's tokenizer")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True, local_files_only=True)
        return tokenizer.backend_tokenizer.to_str().encode()
    except Exception as error:  # any of transformers', tokenizers' and the file system's
        raise ExportError(
            f"{folder} has no tokenizer that can be read ({one_line(error)}): add its tokenizer.json"
        ) from None


def chat_template(folder: Path) -> bytes:
    """The checkpoint's chat template, from whichever of the three places transformers writes it to."""
    if (path := folder / "chat_template.jinja").is_file():
        return path.read_bytes()
    for name in ("chat_template.json", "tokenizer_config.json"):
        if (path := folder / name).is_file() and isinstance(template := read_json(path).get("chat_template"), str):
            return template.encode()
    raise ExportError(f"{folder} has no chat template: add its chat_template.jinja")


def generation_config(folder: Path, text_config: dict[str, Any]) -> bytes:
    """What the runner needs of generation_config.json, with the stop ids filled in from the text config."""
    path = folder / "generation_config.json"
    found = read_json(path) if path.is_file() else {}
    kept = {key: found[key] for key in ("eos_token_id", "max_new_tokens") if found.get(key) is not None}
    if "eos_token_id" not in kept:
        if text_config.get("eos_token_id") is None:
            raise ExportError(f"{folder} names no eos_token_id: add it to its generation_config.json")
        kept["eos_token_id"] = text_config["eos_token_id"]
    return as_json(kept)


def preprocessor_config(preprocessing: Preprocessing) -> bytes:
    """The processor's facts in its own file format. Resizing is the host's part, the rest is in the graph."""
    return as_json(
        {
            "size": {"height": preprocessing.height, "width": preprocessing.width},
            "resample": preprocessing.resample,
            "image_mean": preprocessing.mean,
            "image_std": preprocessing.std,
        }
    )


def as_json(value: dict[str, Any]) -> bytes:
    """UTF-8 JSON, indented."""
    return (json.dumps(value, indent=1) + "\n").encode()
