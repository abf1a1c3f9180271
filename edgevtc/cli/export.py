"""``edgevtc export``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar

from edgevtc.cli.command import Command, add_json_argument, print_json, status, warn

if TYPE_CHECKING:
    from edgevtc.bundle import Bundle
    from edgevtc.exporter.options import ExportOptions
    from edgevtc.exporter.plan import ExportPlan

__all__ = ["Export"]

Item = TypeVar("Item")


class Once(argparse.Action):
    """An argument of several names that is given once."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Take the value, or refuse a second."""
        if getattr(namespace, self.dest) is not None:
            raise argparse.ArgumentError(self, "given twice: give it once, with commas between names")
        setattr(namespace, self.dest, values)


class Export(Command):
    """Turn a checkpoint into a bundle.

    MODEL is `embedded`, another name of `edgevtc list models`, a recipe of your own (a .toml file), the folder of a
    checkpoint in transformers layout, or a repository of the Hugging Face Hub (owner/name). What the options leave
    open, the recipe sets. Every graph is held to torch on real frames; the bundle appears whole and verified, or
    not at all.
    """

    name = "export"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("model", metavar="MODEL", help="catalogue name, recipe file, folder, or Hub repository")
        parser.add_argument("-o", "--output", required=True, metavar="DIR", help="where the bundle will stand")
        parser.add_argument("--overwrite", action="store_true", help="replace a bundle that is already there")
        parser.add_argument(
            "--restart", action="store_true", help="leave out what an interrupted export to the same place has finished"
        )
        parser.add_argument(
            "--cache-dir", type=Path, metavar="DIR", help="keep compressor graphs here, and take them from here"
        )
        parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes that trace compressors")
        parser.add_argument(
            "--dry-run", action="store_true", help="say what it would take on disk and in memory, and write nothing"
        )
        source = parser.add_argument_group("source")
        source.add_argument("--revision", metavar="REV", help="branch, tag or commit of a Hub repository")
        source.add_argument("--token", metavar="TOKEN", help="access to the Hub (default: HF_TOKEN, or its login)")
        methods = parser.add_argument_group("compression")
        methods.add_argument("--method", type=listed(str), metavar="NAME[,NAME]", help="methods; the first is default")
        methods.add_argument("--retention-ratio", type=listed(float), metavar="R[,R]", help="shares of tokens to keep")
        methods.add_argument("--positions", metavar="MODE", help="original or contiguous (default: each method's own)")
        methods.add_argument(
            "--set",
            action="append",
            default=[],
            type=assignment,
            metavar="METHOD.NAME=VALUE",
            help="a method's hyper-parameter; may be repeated",
        )
        vision = parser.add_argument_group("vision")
        vision.add_argument("--num-frames", type=int, metavar="T", help="frames of a clip")
        vision.add_argument("--frames-per-call", type=int, metavar="C", help="frames of one encoder call")
        vision.add_argument("--saliency", metavar="SOURCE", help="siglip_head or siglip_last_mean")
        vision.add_argument("--frame-features", metavar="SOURCE", help="siglip_head or mean")
        vision.add_argument(
            "--siglip-head", metavar="CHECKPOINT", help="SigLIP with the pooling head: a file, a folder or owner/name"
        )
        vision.add_argument(
            "--dtype", metavar="TYPE", help="float32 or float16, of the vision graphs' big products (default: float32)"
        )
        vision.add_argument("--encoder-format", metavar="NAME", help="float or w8a8 (default: float, as --dtype says)")
        vision.add_argument(
            "--calibrate",
            nargs="+",
            type=Path,
            metavar="CLIP",
            help="videos, or folders of videos, like those the model will see: w8a8 takes its scales from them",
        )
        vision.add_argument(
            "--fused",
            action=argparse.BooleanOptionalAction,
            default=None,
            help="the graphs from frames to tokens that engines are built from (default: the recipe's, or with them)",
        )
        from edgevtc.catalogue.recipe import VALUES

        decoder = parser.add_argument_group("decoder")
        decoder.add_argument(
            "--weight-format",
            "--quantize",
            action=Once,
            type=listed(str),
            metavar="NAME[,NAME]",
            help=f"of {', '.join(VALUES['weight_formats'])}; the first is the bundle's default",
        )
        decoder.add_argument("--max-positions", type=int, metavar="N", help="longest prompt and answer, in positions")
        checks = parser.add_argument_group("verification")
        checks.add_argument("--clip", type=Path, metavar="VIDEO", help="frames to verify with (default: a drawn scene)")
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Export and say what was written."""
        from edgevtc.errors import ConfigError, ExportError
        from edgevtc.extras import require

        require("torch", "exporting a checkpoint")
        from edgevtc.exporter.export import export_bundle
        from edgevtc.exporter.hub import download_beside, outlined
        from edgevtc.exporter.plan import require_room
        from edgevtc.exporter.prepare import plan_bundle, require_places

        output = Path(args.output)
        require_places(output, overwrite=args.overwrite, cache_dir=args.cache_dir, jobs=args.jobs)
        with TemporaryDirectory(prefix="edgevtc-") as folder:
            outlines = Path(folder)
            try:
                checkpoint, options = resolve(args, outlines)
                if args.dry_run:
                    report_plan(plan_bundle(checkpoint, options), as_json=args.json)
                    return 0
                if any(outlines.iterdir()):  # gigabytes are fetched only for an export that can be made
                    plan, beside = plan_bundle(checkpoint, options), download_beside(output, outlines)
                    require_room(plan, output, options, beside=beside)
            except (ConfigError, ExportError) as error:
                raise type(error)(outlined(str(error), outlines)) from None
            if any(outlines.iterdir()):
                if checkpoint.is_relative_to(outlines):
                    args.revision = options.revision  # what was planned, if the branch has moved on since
                checkpoint, options = resolve(args)
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        console = status()
        # The step comes last and the bar is short: nothing moves when a longer step begins, on 80 columns either.
        step_column = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), step_column)
        with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("", total=None)

            def progress(step: str) -> None:
                bar.update(task, description=step)
                if not console.is_terminal:
                    console.print(step, markup=False)

            try:
                bundle = export_bundle(
                    checkpoint,
                    output,
                    options,
                    overwrite=args.overwrite,
                    restart=args.restart,
                    cache_dir=args.cache_dir,
                    jobs=args.jobs,
                    progress=progress,
                    count=lambda done, total: bar.update(task, completed=done, total=total),
                )
            except KeyboardInterrupt:
                raise KeyboardInterrupt("finished parts are kept, and the same command goes on with them") from None
            bar.update(task, description="")
        report(bundle, as_json=args.json)
        return 0


def report(bundle: Bundle, *, as_json: bool) -> None:
    """What was written, how far it is from torch, and what verifying it later cannot tell."""
    from edgevtc.measure.verify import answer_limit

    manifest = bundle.manifest
    assert manifest.verification is not None  # an export always verifies
    size = sum(entry.size for entry in manifest.files.values())
    graph, worst = max(manifest.verification.differences.items(), key=lambda item: item[1])
    if (margin := manifest.verification.answer_margin) < (firm := answer_limit(manifest)):
        warn(
            f"warning: the answer to {manifest.verification.question!r} is undecided (margin {margin:.2g}, {firm:.2g} "
            "is firm): verify holds no device to it; a recipe's first example should be surely answered"
        )
    if as_json:
        entries = [
            {"name": entry.name, "budget": entry.budget, "retention_ratio": entry.retention_ratio}
            for entry in manifest.methods
        ]
        print_json(
            {
                "path": str(bundle.path),
                "size_bytes": size,
                "sha256": bundle.sha256,
                "methods": entries,
                "worst_difference": worst,
                "answer": manifest.verification.answer,
            }
        )
        return
    kept = ", ".join(f"{entry.name} {entry.budget}" for entry in manifest.methods)
    print(f"{bundle.path}: {size / 1e6:.1f} MB, {kept} of {manifest.tokens_total} tokens")
    print(
        f"PASSED: {len(manifest.verification.differences)} graphs against torch on frames of "
        f"{manifest.verification.frames}; largest difference {worst:.1e}, of {graph}"
    )


def report_plan(plan: ExportPlan, *, as_json: bool) -> None:
    """What an export would take: parts of the bundle on disk, and its steps in memory."""
    totals = {"disk_bytes": plan.total_disk_bytes, "peak_memory_bytes": plan.peak_memory_bytes}
    if as_json:
        print_json({**totals, "part_bytes": plan.disk_bytes, "step_memory_bytes": plan.memory_bytes})
        return
    from rich.filesize import decimal

    from edgevtc.cli.tables import print_table

    for heading, column, sizes, total in (
        ("on disk", "part", plan.disk_bytes, ("all", totals["disk_bytes"])),
        ("memory", "step", plan.memory_bytes, ("most", totals["peak_memory_bytes"])),
    ):
        rows = [(name.replace("_", " "), decimal(size)) for name, size in [*sizes.items(), total]]
        print_table((column, heading), rows, right=(heading,))
        print()
    print("Nothing was written. Memory is beside the 1 GB that torch and the other libraries take.")


def resolve(args: argparse.Namespace, outlines: Path | None = None) -> tuple[Path, ExportOptions]:
    """The checkpoint's folder and the options: the recipe's, with those of the command line before them."""
    from edgevtc.exporter.source import find_checkpoint

    console = status()
    checkpoint, options = find_checkpoint(
        args.model,
        args.revision,
        args.token,
        siglip_head=args.siglip_head,
        say=lambda line: console.print(line, markup=False),
        outlines=outlines,
    )
    chosen = args.method or options.methods
    parameters = {method: dict(values) for method, values in options.parameters.items() if method in chosen}
    for method, name, value in args.set:
        parameters.setdefault(method, {})[name] = value
    given = {
        "methods": args.method,
        "retention_ratios": args.retention_ratio,
        "positions": args.positions,
        "num_frames": args.num_frames,
        "frames_per_call": args.frames_per_call,
        "saliency": args.saliency,
        "frame_features": args.frame_features,
        "weight_formats": args.weight_format,
        "max_positions": args.max_positions,
        "clip": args.clip,
        "fused": args.fused,
        "dtype": args.dtype,
        "encoder_format": args.encoder_format,
        "calibrate": tuple(args.calibrate) if args.calibrate else None,
        "parameters": parameters,
    }
    return checkpoint, replace(options, **{name: value for name, value in given.items() if value is not None})


def listed(kind: Callable[[str], Item]) -> Callable[[str], tuple[Item, ...]]:
    """An argparse type: values with commas between them."""

    def parse(text: str) -> tuple[Item, ...]:
        return tuple(kind(part.strip()) for part in text.split(",") if part.strip())

    parse.__name__ = f"list of {kind.__name__}"
    return parse


def assignment(text: str) -> tuple[str, str, str]:
    """An argparse type: METHOD.NAME=VALUE."""
    target, equals, value = text.partition("=")
    method, dot, name = target.partition(".")
    if not (equals and dot and method and name):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form METHOD.NAME=VALUE")
    return method, name, value
