"""What every command shares: the command class, argument groups, and the two output streams.

Results go to stdout, everything else to stderr. Modules of commands import nothing heavy at the top:
``edgevtc --help`` loads them all.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, NoReturn

from edgevtc.errors import EdgeVTCError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Command",
    "Parser",
    "add_bundle_argument",
    "add_frame_arguments",
    "add_json_argument",
    "add_run_arguments",
    "print_json",
    "run_command",
    "status",
    "warn",
]

INTERRUPTED = 130


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where the help is; exit code 2."""
        print(f"{self.prog}: error: {printable(message)} (see {self.prog} --help)", file=sys.stderr)
        raise SystemExit(2)


class Command(ABC):
    """One command. The class's docstring is its help: the first line in the overview, all of it on its own page.

    Attributes:
        name: As typed.
        words: Argument that takes any number of words, which may have options between them; None where none does.
    """

    name: str
    words: str | None = None

    @abstractmethod
    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    @abstractmethod
    def run(self, args: argparse.Namespace) -> int:
        """Do it and return the exit code.

        Raises:
            EdgeVTCError: Anything the user can mend; printed as one line, exit code 1.
        """


def run_command(command: Command, args: argparse.Namespace, program: str = "edgevtc") -> int:
    """Run a command and return its exit code; what the user can mend becomes one line on stderr, by ``program``."""
    try:
        return command.run(args)
    except EdgeVTCError as error:
        print(f"{program}: error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print(f"{program}: interrupted" + (f": {stop}" if str(stop) else ""), file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output went away, as `| head` does; that is no error of ours.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def warn(text: str) -> None:
    """Print a line for the user to notice on stderr."""
    status().print(printable(text), style="yellow", markup=False)


def printable(text: str) -> str:
    """A message with what a terminal would obey, such as line ends and escapes in names of files, written out."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def add_bundle_argument(parser: argparse.ArgumentParser) -> None:
    """``--bundle``, wherever a bundle is used."""
    parser.add_argument("--bundle", metavar="DIR", help="bundle to use (default: the embedded one)")


def add_json_argument(parser: argparse.ArgumentParser) -> None:
    """``--json``, wherever something is reported."""
    parser.add_argument("--json", action="store_true", help="print JSON on stdout instead of text")


def add_run_arguments(parser: argparse.ArgumentParser, methods: str = "", adaptive: bool = False) -> None:
    """What decides how a bundle compresses: bundle, method, budget, device.

    Args:
        parser: To add them to.
        methods: What stands for a ``--method`` that is not given, where it may be given several times, as a list.
        adaptive: Whether the budget may be left to each question's answer, or to a time to first token.
    """
    group = parser.add_argument_group("running")
    add_bundle_argument(group)  # type: ignore[arg-type]  # a group takes arguments like a parser
    repeated, first = ("; may be repeated", methods) if methods else ("", "the bundle's first")
    group.add_argument(
        "--method",
        action="append" if methods else "store",
        metavar="NAME",
        help=f"compression method{repeated} (default: {first})",
    )
    size = group.add_mutually_exclusive_group()
    size.add_argument(
        "--budget",
        type=budget_or_auto if adaptive else int,
        metavar="B",
        help="visual tokens to keep" + ("; auto: as few as leave no doubt about the answer" if adaptive else ""),
    )
    size.add_argument("--retention-ratio", type=float, metavar="R", help="share of the visual tokens to keep")
    if adaptive:
        size.add_argument(
            "--ttft", type=float, metavar="SECONDS", help="keep the most tokens whose answer begins within this time"
        )
        group.add_argument(
            "--margin", type=float, metavar="X", help="lead of an answer that leaves no doubt (default: the bundle's)"
        )
        group.add_argument("--cache-dir", metavar="DIR", help="where measured times are kept (default: the user's)")
    group.add_argument("--device", default="cpu", metavar="NAME", help="where graphs run: cpu, cuda (default: cpu)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")


def budget_or_auto(text: str) -> int | str:
    """The value of a ``--budget`` that may be ``auto``."""
    if text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no budget: give a number of tokens, or auto") from None


def add_frame_arguments(parser: argparse.ArgumentParser) -> None:
    """What decides which frames of a video are looked at."""
    group = parser.add_argument_group("frames")
    group.add_argument("--fps", type=float, help="frames a second to sample (default: even steps over the clip)")
    group.add_argument("--start", type=float, metavar="SECONDS", help="where to start")
    group.add_argument("--end", type=float, metavar="SECONDS", help="where to end")


def print_json(value: Any) -> None:
    """One JSON document on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False), flush=True)


def status() -> Console:
    """The console of stderr; without colour where NO_COLOR is set or stderr is no terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)
