"""The language model's side of a bundle: its graph in each weight format, and the embeddings the host gathers."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from edgevtc.bundle import DecoderEntry, FolderWriter, TensorEntry
from edgevtc.errors import ExportError
from edgevtc.exporter.decoder import build_decoder
from edgevtc.exporter.making import Making
from edgevtc.exporter.options import DECODER_BLIND, without
from edgevtc.exporter.store import write_graph
from edgevtc.records import read_record

__all__ = ["make_decoder"]


def make_decoder(making: Making) -> DecoderEntry:
    """Declare, quantize and write the decoder in each weight format, and its embeddings, into the bundle."""
    prepared, writer = making.prepared, making.writer
    options, config = prepared.options, prepared.config
    depends = {**making.source, "config": asdict(config), "options": without(options, DECODER_BLIND)}
    for weight_format in options.weight_formats:
        own = {**depends, "weight_format": weight_format}
        making.parts.take(f"decoder/{weight_format}", own, partial(write_decoder, making, weight_format)).into(writer)
    stored = making.parts.take("embeddings", depends, partial(write_embeddings, making)).into(writer).record
    return DecoderEntry(
        graphs={weight_format: f"decoder/{weight_format}.onnx" for weight_format in options.weight_formats},
        kv_update="in_place",
        num_layers=config.num_layers,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        hidden_size=config.hidden_size,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        embeddings=tensor_entry(stored["embeddings"]),
        special_embeddings={name: tensor_entry(record) for name, record in stored["special_embeddings"].items()},
    )


def write_decoder(making: Making, weight_format: str, part: FolderWriter) -> None:
    """Declare and write the decoder in one weight format."""
    making.progress(f"writing the decoder in {weight_format}")
    graph = build_decoder(making.prepared.config, making.prepared.model.decoder_weights(), weight_format)
    write_graph(part, f"decoder/{weight_format}.onnx", graph)


def write_embeddings(making: Making, part: FolderWriter) -> dict[str, Any]:
    """Write the token embeddings and those that stand for no token; returns the entries of both."""
    making.progress("writing the embeddings")
    model = making.prepared.model
    tokens = model.decoder_weights()["embed_tokens.weight"].astype(np.float16)
    special = model.special_embeddings().items()
    return {
        "embeddings": asdict(part.tensor(tokens)),
        "special_embeddings": {name: asdict(part.tensor(value.astype(np.float32))) for name, value in special},
    }


def tensor_entry(record: dict[str, Any]) -> TensorEntry:
    """A stored entry of a tensor."""
    return read_record(TensorEntry, record, "embeddings", ExportError)
