"""``edgevtc verify``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgevtc.backends import BACKENDS, create_backend
from edgevtc.cli.command import Command, add_json_argument, print_json, status

if TYPE_CHECKING:
    from edgevtc.measure.verify import Check

__all__ = ["Verify"]


class Verify(Command):
    """Check that a bundle computes here what torch computed when it was exported.

    Every file is hashed. Then every graph runs on the inputs that the bundle carries, and what comes out is held to
    torch's outputs for them; last, one question is answered from frames to text. Exit code 1 where anything FAILED.
    """

    name = "verify"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("bundle", nargs="?", metavar="BUNDLE", help="bundle folder (default: the embedded one)")
        parser.add_argument("--device", default="cpu", metavar="NAME", help="where graphs run (default: cpu)")
        known = ", ".join(BACKENDS)
        parser.add_argument(
            "--backend", default="onnxruntime", metavar="NAME", help=f"what runs them: {known} (default: onnxruntime)"
        )
        parser.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Verify and print every check."""
        from edgevtc.bundle import Bundle
        from edgevtc.measure.verify import Verifier

        console = status()
        with console.status("hashing files") as spinner:
            bundle = Bundle(args.bundle, rehash=True)
            verifier = Verifier(bundle, create_backend(args.device, args.threads, args.backend))
            checks = list(verifier.run(spinner.update))
        failed = [check for check in checks if check.status == "FAILED"]
        if args.json:
            print_json(
                {
                    "path": str(bundle.path),
                    "sha256": bundle.sha256,
                    "device": args.device,
                    "runtime": verifier.backend.runtime,
                    "passed": not failed,
                    "files_verified": len(bundle.manifest.files),
                    "checks": [{**asdict(check), "status": check.status} for check in checks],
                }
            )
            return bool(failed)
        from edgevtc.cli.tables import print_table

        numbers = ("worst", "allowed", "mean", "cosine", "kept", "least", "margin")
        print_table(("part", "compared", "result", *numbers), [row(check) for check in checks], right=numbers)
        print()
        for check in checks:
            if check.reason:
                print(f"{check.status} {check.part}: {check.reason}")
        passed = sum(check.status == "PASSED" for check in checks)
        print(
            f"{'FAILED' if failed else 'PASSED'}: {passed} of {len(checks)} checks on {args.device}, "
            f"{len(bundle.manifest.files)} files with their hashes"
        )
        return bool(failed)


def row(check: Check) -> tuple[str, ...]:
    """A check's line of the table."""
    return (
        check.part,
        check.output,
        check.status,
        number(check.worst_difference, ".1e"),
        number(check.tolerance, ".1e"),
        number(check.mean_difference, ".1e"),
        number(check.cosine, ".6f"),
        number(check.overlap, ".1%"),
        number(check.least_overlap, ".1%"),
        number(check.margin, ".3f"),
    )


def number(value: float | None, form: str) -> str:
    """A number, or nothing where there is none."""
    return "" if value is None else format(value, form)
