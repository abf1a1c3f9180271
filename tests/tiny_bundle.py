"""A bundle of a few kilobytes whose graphs are dummy bytes: for what reads bundles and runs nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgevtc.bundle import (
    Bundle,
    BundleWriter,
    DecoderEntry,
    FileEntry,
    Manifest,
    MethodEntry,
    ModelEntry,
    PromptEntry,
    VisionEntry,
)

NUM_FRAMES, GRID = 4, 3
TOKENS_TOTAL = NUM_FRAMES * GRID * GRID
FLOPS_CONVENTION = "multiply-accumulates of a pretended decoder"


def write_tiny_bundle(path: Path) -> Bundle:
    """Write the bundle and open it."""
    with BundleWriter(path) as writer:
        embeddings = writer.tensor(np.zeros((16, 8), np.float32))
        newline = writer.tensor(np.ones(8, np.float32))
        encoder = writer.file("encoder.onnx", b"encoder")
        decoder = {form: writer.file(f"decoder/{form}.onnx", form.encode()) for form in ("int8", "fp32")}
        methods = tuple(method_entry(writer, *row) for row in METHODS)
        for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
            writer.file(name, b"{}")

        def manifest(files: dict[str, FileEntry]) -> Manifest:
            return Manifest(
                model=ModelEntry("tiny", "llava_onevision", "r1", "Apache-2.0", ("made for a test",)),
                vision=VisionEntry(
                    encoder=encoder,
                    num_frames=NUM_FRAMES,
                    tokens_per_frame=GRID * GRID,
                    grid_height=GRID,
                    grid_width=GRID,
                    hidden_size=8,
                    image_height=48,
                    image_width=48,
                    frames_per_call=2,
                    resample="bicubic",
                    saliency="siglip_head",
                    frame_features="mean",
                    dtype="float32",
                ),
                methods=methods,
                decoder=DecoderEntry(
                    graphs=decoder,
                    kv_update="in_place",
                    num_layers=2,
                    num_kv_heads=1,
                    head_dim=4,
                    hidden_size=8,
                    vocab_size=16,
                    max_positions=128,
                    embeddings=embeddings,
                    special_embeddings={"image_newline": newline},
                ),
                prompt=PromptEntry("<video>", True, ("what changed",)),
                files=files,
                producer={"edgevtc": "0.1.0"},
                flops_convention=FLOPS_CONVENTION,
            )

        return writer.finish(manifest)


#: Method, budget, needs, positions, configuration, whether it has a fused graph, prefill GFLOPs.
METHODS = (
    ("none", 36, ("frame_tokens",), "original", {}, True, 0.5),
    ("uniform", 9, ("frame_tokens",), "original", {}, True, 0.125),
    ("infomerge", 5, ("frame_tokens", "saliency"), "contiguous", {"penalty": 12.0}, False, 0.0625),
)


def method_entry(
    writer: BundleWriter,
    name: str,
    budget: int,
    needs: tuple[str, ...],
    positions: str,
    config: dict[str, float],
    fused: bool,
    prefill_gflops: float,
) -> MethodEntry:
    """One method with its graph files."""
    graph = f"{name}-b{budget}.onnx"
    return MethodEntry(
        name=name,
        budget=budget,
        retention_ratio=budget / TOKENS_TOTAL,
        needs=needs,
        positions=positions,
        config=config,
        compressor=writer.file(f"compressors/{graph}", graph.encode()),
        fused=writer.file(f"vision/{graph}", graph.encode()) if fused else "",
        prefill_gflops=prefill_gflops,
    )
