"""Makes `edgevtc export` a sub-command of optimum: ``optimum-cli export edgevtc MODEL -o DIR``.

optimum loads every module of this namespace, whoever installed it. No folder above this file may have an __init__.py.
"""

from __future__ import annotations

from argparse import ArgumentParser

from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

from edgevtc.cli.command import run_command
from edgevtc.cli.export import Export

__all__ = ["REGISTER_COMMANDS"]


class ExportEdgeVTC(BaseOptimumCLICommand):
    """The command as optimum wants it."""

    COMMAND = CommandInfo(name="edgevtc", help="Export a Video-LLM with token compression to an EdgeVTC bundle.")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Declare the arguments of `edgevtc export`."""
        Export().add_arguments(parser)

    def run(self) -> None:
        """Export, with the exit code of `edgevtc export`."""
        raise SystemExit(run_command(Export(), self.args, "optimum-cli export edgevtc"))


#: What optimum reads: the command and the one it stands under.
REGISTER_COMMANDS = [(ExportEdgeVTC, ExportCommand)]
