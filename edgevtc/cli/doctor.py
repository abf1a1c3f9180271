"""``edgevtc doctor``."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from edgevtc.cli.command import Command, add_json_argument, print_json

__all__ = ["Doctor"]


class Doctor(Command):
    """Check the installation and the machine, and name what mends it.

    Each line is `ok`, `missing` (optional, and not there) or `problem`, with the command that mends it. The exit
    code is 1 only where no bundle can run at all.
    """

    name = "doctor"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Run every check and print it."""
        from edgevtc.environment import can_run, check_all

        checks = check_all()
        runs = can_run(checks)
        if args.json:
            print_json({"can_run": runs, "checks": [asdict(check) for check in checks]})
            return 0 if runs else 1
        # Plain lines, not a rich table: rich is among what may be broken.
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{check.status:<8} {check.name:<{width}}  {check.detail}")
            if check.remedy:
                print(f"{'':<8} {'':<{width}}  mend: {check.remedy}")
        print("bundles can run here" if runs else "no bundle can run here")
        return 0 if runs else 1
