"""``edgevtc ask``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgevtc.cli.command import (
    Command,
    add_frame_arguments,
    add_json_argument,
    add_run_arguments,
    print_json,
    status,
    warn,
)

if TYPE_CHECKING:
    from edgevtc.runner import Answer, Runner

__all__ = ["Ask"]


class Ask(Command):
    """Answer questions about a video.

    The video is read and encoded once, whatever the number of questions. Without a question, they are read
    from standard input, one a line. The answer goes to stdout as it comes; what was kept and how long each
    stage took goes to stderr. docs/ask.md explains --budget auto, --ttft, and what --json reports.
    """

    name = "ask"
    words = "questions"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("video", help="video file, image, or folder of images")
        parser.add_argument("questions", nargs="*", metavar="question", help="what to ask (default: standard input)")
        parser.add_argument("--follow-up", action="store_true", help="each question continues the conversation")
        add_run_arguments(parser, adaptive=True)
        add_frame_arguments(parser)
        answer = parser.add_argument_group("answer")
        answer.add_argument("--weight-format", metavar="NAME", help="decoder weights (default: the bundle's first)")
        answer.add_argument("--max-tokens", type=int, metavar="N", help="longest answer (default: the checkpoint's)")
        answer.add_argument("--temperature", type=float, default=0.0, help="0 is greedy (default), above 0 draws")
        answer.add_argument("--top-k", type=int, default=0, help="draw from the k most likely tokens (default: all)")
        answer.add_argument("--top-p", type=float, default=1.0, help="draw from this probability mass (default: 1)")
        answer.add_argument("--seed", type=int, default=0, help="seed of the draw (default: 0)")
        answer.add_argument(
            "--guess", action="store_true", help="ask the model also about footage unlike all it was trained on"
        )
        answer.add_argument("-q", "--quiet", action="store_true", help="print the answer and nothing else")
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Open the video and answer each question."""
        from edgevtc.decoder.sampling import SamplingConfig
        from edgevtc.runner import Runner

        sampling = SamplingConfig(args.temperature, args.top_k, args.top_p, args.seed)
        console = status()
        quiet = args.quiet or not console.is_terminal
        task = "loading the bundle" if args.ttft is None else "loading the bundle and measuring this machine"
        with console.status(task) if not quiet else console:
            runner = Runner(
                args.bundle,
                method=args.method,
                budget=args.budget,
                retention_ratio=args.retention_ratio,
                margin=args.margin,
                ttft_s=args.ttft,
                cache_dir=args.cache_dir,
                device=args.device,
                threads=args.threads,
                weight_format=args.weight_format,
                guess=args.guess,
            )
        with console.status(f"watching {args.video}") if not quiet else console:
            video = runner.open(args.video, fps=args.fps, start_s=args.start, end_s=args.end)
        if not args.quiet:
            report_auto(runner, calibrated=args.margin is not None)
        told: set[str] = set()
        for index, question in enumerate(questions(args.questions)):
            stream = video.stream(
                question,
                follow_up=args.follow_up and index > 0,
                max_tokens=args.max_tokens,
                sampling=sampling,
            )
            for piece in stream:
                if not args.json:
                    print(piece, end="", flush=True)
            if args.json:
                print_json({**asdict(stream.result), "load_s": runner.load_s})
            else:
                print(flush=True)
            if not args.quiet:
                report(runner, stream.result, told, first=index == 0)
        return 0


def questions(given: list[str]) -> Iterator[str]:
    """The questions of the command line, or those of standard input line by line."""
    if given:
        yield from given
        return
    while True:
        if sys.stdin.isatty():
            print("? ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line


def report_auto(runner: Runner, calibrated: bool) -> None:
    """On stderr: that auto has one budget to answer at, or, unless a threshold was given, that none was calibrated."""
    from edgevtc.adaptive import rungs

    if runner.margin is None:
        return
    manifest, method = runner.bundle.manifest, runner.method.name
    if len(budgets := rungs(manifest, method)) == 1:
        tried = method in manifest.auto
        why = "no smaller budget was worth trying when it was calibrated" if tried else "this bundle holds no other"
        text = f"note: auto answers at {budgets[0].budget} tokens of {method}, whatever the margin: {why}"
    elif not calibrated and method not in manifest.auto:
        text = (
            f"warning: this bundle has no calibration of auto for {method}: it tries all budgets of a token a frame or "
            f"more, up to a margin of {runner.margin:g} (--margin)"
        )
    else:
        return
    warn(text)


def report(runner: Runner, answer: Answer, told: set[str], first: bool) -> None:
    """What was kept, where the time went, and what did not apply and was not told before, on stderr."""
    from edgevtc.adaptive import rungs

    console = status()
    declined = [f"{answer.declined}: --guess asks it all the same"] if answer.declined else []
    for warning in (*answer.warnings, *declined):
        if warning not in told:
            warn(f"warning: {warning}")
            told.add(warning)
    if answer.unknown_words:
        words = ", ".join(answer.unknown_words)
        warn(f"warning: this model does not know: {words}")
        if examples := runner.bundle.manifest.prompt.examples:
            warn("it can be asked, for example: " + "; ".join(examples))
    share = 100 * answer.tokens_kept / answer.tokens_total
    account = f"kept {answer.tokens_kept} of {answer.tokens_total} visual tokens ({share:.1f} %)"
    if answer.margin is not None:
        tried = ", ".join(map(str, answer.budgets_tried))
        account += f", tried {tried}: margin {answer.answer_margin:.2f}"
        if len(rungs(runner.bundle.manifest, answer.method)) > 1:  # a lone budget answers whatever the margin
            account += f", {answer.margin:g} asked for"
    parts = [f"prefill {answer.prefill_s:.3f}", f"generate {answer.generate_s:.3f}"]
    if answer.compress_s:
        parts = [f"compress {answer.compress_s:.3f}", *parts]
    if first:
        parts = [f"frames {answer.frames_s:.3f}", f"encode {answer.encode_s:.3f}", *parts]
    console.print(
        f"{answer.method}: {account}; first token after {answer.ttft_s:.3f} s ({', '.join(parts)})",
        style="dim",
        markup=False,
    )
