"""The command line: ``edgevtc COMMAND …``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from inspect import getdoc

from edgevtc import __version__
from edgevtc.cli.command import Command, Parser, run_command

__all__ = ["COMMANDS", "main"]

#: Command → module and class, in the order of the overview.
COMMANDS = {
    "ask": ("ask", "Ask"),
    "export": ("export", "Export"),
    "verify": ("verify", "Verify"),
    "eval": ("eval", "Eval"),
    "inspect": ("inspect", "Inspect"),
    "view": ("view", "View"),
    "doctor": ("doctor", "Doctor"),
    "list": ("list", "List"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code: 0 done, 1 cannot be done, 2 wrong usage."""
    parser = Parser(
        prog="edgevtc",
        description="Answer questions about videos with a compressed Video-LLM, on edge devices.",
        epilog="Run edgevtc COMMAND --help for a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"edgevtc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    instances: dict[str, Command] = {}
    subparsers: dict[str, Parser] = {}
    for name, (module, attribute) in COMMANDS.items():
        command: Command = getattr(import_module(f"edgevtc.cli.{module}"), attribute)()
        text = getdoc(command) or ""
        sub = commands.add_parser(name, help=text.partition("\n")[0].rstrip(".").lower(), description=text)
        command.add_arguments(sub)
        instances[name], subparsers[name] = command, sub
    args, rest = parser.parse_known_args(argv)
    command = instances[args.command]
    # argparse gives up on a list of words that options stand in the middle of: `ask VIDEO --method NAME QUESTION`.
    if rest and (command.words is None or any(word.startswith("-") for word in rest)):
        subparsers[args.command].error(f"unrecognized arguments: {' '.join(rest)}")
    if command.words is not None:
        getattr(args, command.words).extend(rest)
    return run_command(command, args)
