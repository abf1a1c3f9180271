"""``edgevtc inspect``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgevtc.cli.command import Command, add_json_argument, print_json

if TYPE_CHECKING:
    from edgevtc.bundle import Bundle, Manifest

__all__ = ["Inspect"]

#: Folder or file of a bundle → the part its size counts for; the rest is text and configuration.
PARTS = {
    "encoder.onnx": "encoder_graph",
    "vision": "fused_vision_graphs",
    "compressors": "compressor_graphs",
    "decoder": "decoder_graphs",
    "weights": "weights",
    "references.npz": "references",
}
TEXT = "texts_and_manifest"
ENGINES = "engines"


class Inspect(Command):
    """Show what a bundle holds.

    The model and where it comes from, the frames it takes, its methods and budgets, its decoder, and the size of
    its parts on disk. Opening verifies the manifest and every file's size and hash. No graph is loaded.
    """

    name = "inspect"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="bundle folder (default: the embedded one)")
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Open the bundle and print it."""
        from edgevtc.bundle import Bundle

        bundle = Bundle(args.bundle)
        manifest, sizes = bundle.manifest, part_sizes(bundle)
        if args.json:
            where = {"path": str(bundle.path), "sha256": bundle.sha256, "files_verified": len(manifest.files)}
            computed = {"tokens_total": manifest.tokens_total, "size_bytes": sum(sizes.values()), "part_bytes": sizes}
            print_json({**where, **computed, **asdict(manifest)})
            return 0
        from rich.filesize import decimal

        from edgevtc.cli.tables import print_facts, print_table

        print_facts(facts(bundle))
        print()
        print_table(
            ("method", "tokens", "retention", "positions", "prefill GFLOPs", "graphs"),
            method_rows(manifest),
            right=("tokens", "retention", "prefill GFLOPs"),
        )
        print(f"prefill GFLOPs: {manifest.flops_convention}")
        print()
        if parameters := parameter_facts(manifest):
            print_facts(parameters)
            print()
        rows = [(part.replace("_", " "), decimal(size)) for part, size in sizes.items()]
        print_table(("part", "size"), [*rows, ("all", decimal(sum(sizes.values())))], right=("size",))
        return 0


def facts(bundle: Bundle) -> dict[str, str]:
    """What there is one of."""
    manifest = bundle.manifest
    model, vision, decoder, prompt = manifest.model, manifest.vision, manifest.decoder, manifest.prompt
    found = {
        "bundle": str(bundle.path),
        "verified": f"manifest {bundle.sha256[:16]}…, size and hash of {len(manifest.files)} files",
        "schema": str(manifest.schema_version),
        "model": f"{model.name} ({model.family}), revision {model.revision or 'not stated'}",
        "licence": model.licence or "not stated",
        "frames": f"{vision.num_frames} of {vision.image_height}×{vision.image_width} pixels, "
        f"{vision.frames_per_call} a call, resized {vision.resample}",
        "tokens": f"{manifest.tokens_total}: {vision.grid_height}×{vision.grid_width} a frame, "
        f"width {vision.hidden_size}, {vision.dtype}",
        "saliency": vision.saliency or "none",
        "frame features": vision.frame_features or "none",
        "decoder": f"{decoder.num_layers} layers, width {decoder.hidden_size}, {decoder.num_kv_heads} KV heads of "
        f"{decoder.head_dim}, vocabulary {decoder.vocab_size}, {decoder.max_positions} positions, "
        f"KV cache {decoder.kv_update}",
        "weight formats": ", ".join(decoder.graphs),
        "producer": ", ".join(f"{name} {version}" for name, version in manifest.producer.items()),
    }
    if prompt.examples:
        found["can be asked"] = "; ".join(prompt.examples)
    for number, note in enumerate(model.notes, 1):
        found[f"note {number}"] = note
    return found


def method_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """One row a method and budget."""
    return [
        (
            entry.name,
            str(entry.budget),
            f"{100 * entry.retention_ratio:.3g} %",
            entry.positions,
            f"{entry.prefill_gflops:.3g}",
            "streamed, fused" if entry.fused else "streamed",
        )
        for entry in manifest.methods
    ]


def parameter_facts(manifest: Manifest) -> dict[str, str]:
    """Method and budget → hyper-parameters, for the methods that have any."""
    return {
        f"{entry.name} {entry.budget}": ", ".join(f"{name}={value}" for name, value in entry.config.items())
        for entry in manifest.methods
        if entry.config
    }


def part_sizes(bundle: Bundle) -> dict[str, int]:
    """Part → bytes on disk; engines built on this machine are counted too."""
    sizes = dict.fromkeys((*PARTS.values(), TEXT), 0)
    sizes[TEXT] = (bundle.path / "manifest.json").stat().st_size
    for name, entry in bundle.manifest.files.items():
        sizes[PARTS.get(name.partition("/")[0], TEXT)] += entry.size
    engines = [path.stat().st_size for path in (bundle.path / ENGINES).rglob("*") if path.is_file()]
    return {**sizes, ENGINES: sum(engines)} if engines else sizes
