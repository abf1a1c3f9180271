"""``edgevtc view``."""

from __future__ import annotations

import argparse

from edgevtc.cli.command import (
    Command,
    add_frame_arguments,
    add_json_argument,
    add_run_arguments,
    print_json,
    status,
    warn,
)

__all__ = ["View"]


class View(Command):
    """Draw which tokens of a video are kept.

    The sampled frames with kept tokens bright, dropped ones dim, and tokens that were folded together in one colour;
    a second --method is drawn beside the first. The output's name chooses the format: .html is a page to explore,
    one file that needs nothing else; .png is a contact sheet.
    """

    name = "view"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("video", help="video file, image, or folder of images")
        parser.add_argument("-o", "--output", required=True, metavar="FILE", help="picture to write: .html or .png")
        parser.add_argument("--overwrite", action="store_true", help="replace a file that is already there")
        parser.add_argument("--question", metavar="TEXT", help="ask this and show each method's answer")
        add_run_arguments(parser, methods="the bundle's first that drops tokens")
        add_frame_arguments(parser)
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Compress, draw, and say what was written."""
        from edgevtc.errors import ConfigError
        from edgevtc.view import check_output, view_video, write_view

        methods = args.method or []
        if len(methods) > 2:
            raise ConfigError(f"{len(methods)} methods do not fit side by side: give --method once or twice")
        if len(set(methods)) < len(methods):
            raise ConfigError(f"{methods[0]} beside itself shows nothing: give two methods, or one")
        check_output(args.output, args.overwrite)
        console = status()
        with console.status(f"watching {args.video}") if console.is_terminal else console:
            scene = view_video(
                args.video,
                bundle=args.bundle,
                methods=methods,
                budget=args.budget,
                retention_ratio=args.retention_ratio,
                question=args.question,
                device=args.device,
                threads=args.threads,
                fps=args.fps,
                start_s=args.start,
                end_s=args.end,
            )
            path = write_view(scene, args.output, args.overwrite)
        for warning in scene.warnings:
            warn(f"warning: {warning}")
        if args.json:
            drawn = [
                {
                    "method": panel.method,
                    "tokens_kept": panel.kept,
                    "tokens_total": panel.total,
                    "tokens_dropped": panel.dropped,
                    "positions": panel.positions_mode,
                    "segments": [segment.first for segment in panel.segments] or None,
                    "segment_budgets": [segment.kept for segment in panel.segments] or None,
                    "answer": panel.answer if args.question is not None else None,
                    "finish_reason": panel.finish_reason or None,
                }
                for panel in scene.panels
            ]
            print_json(
                {
                    "path": str(path),
                    "bundle_sha256": scene.bundle_sha256,
                    "warnings": scene.warnings,
                    "methods": drawn,
                }
            )
            return 0
        print(path)
        return 0
