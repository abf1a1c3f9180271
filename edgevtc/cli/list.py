"""``edgevtc list``."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from edgevtc.cli.command import Command, add_json_argument, print_json

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from edgevtc.methods import MethodSpec

__all__ = ["List"]


class List(Command):
    """List compression methods, models and devices.

    Methods are those this package brings and those that installed plugins register. Models are the recipes that
    `edgevtc export` knows by name, devices the profiles of where a bundle runs; a .toml file of your own serves
    wherever one of their names does.

    All methods need the visual tokens; some also need what the encoder says of them. A method's cost is measured for
    32 frames of 196 tokens, 896 wide, at a retention ratio of 0.15: milliseconds of processor time on one thread, and
    10⁹ multiply-accumulates (GMAC). Positions are those RoPE gives to kept tokens where a recipe does not choose: their
    own (original), or 0, 1, 2, … (contiguous).
    """

    name = "list"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""
        parser.add_argument("what", choices=("methods", "models", "devices"), help="what to list")
        add_json_argument(parser)

    def run(self, args: argparse.Namespace) -> int:
        """Print one row, or one object, for each."""
        rows = {"methods": methods, "models": models, "devices": devices}[args.what]()
        if args.json:
            print_json(rows)
            return 0
        for index, columns in enumerate(TABLES[args.what]):
            if index:
                print()
            show(columns, list(map(flat, rows)) if args.what == "methods" else rows)
        if args.what == "methods":
            print(f"\n{cost_note()}\n")
            show(
                PARAMETERS,
                [
                    {"method": row["name"], "parameter": name, **parameter}
                    for row in rows
                    for name, parameter in (row["parameters"] or {}).items()
                ],
            )
        return 0


#: What is listed → its tables: headings and the keys whose values stand below them. Methods have two, for one row of
#: everything is a column of syllables on a terminal of 80.
TABLES: dict[str, tuple[dict[str, str], ...]] = {
    "methods": (
        {"name": "name", "source": "source", "what it does": "summary"},
        {
            "name": "name",
            "also needs": "also_needs",
            "positions": "positions",
            "ms": "ms",
            "GMAC": "gmac",
            "paper": "paper",
        },
    ),
    "models": (
        {
            "name": "name",
            "frames": "num_frames",
            "methods": "methods",
            "retention": "retention_ratios",
            "weights": "weight_formats",
            "licence": "licence",
            "source": "source",
        },
    ),
    "devices": (
        {
            "name": "name",
            "tool": "tool",
            "GPU": "compute_capability",
            "GB": "memory_gb",
            "GB/s": "bandwidth_gb_s",
            "Python": "python",
            "description": "description",
        },
    ),
}
PARAMETERS = {"method": "method", "parameter": "parameter", "default": "default", "meaning": "doc"}
BUILT_IN = "built-in"
NUMBERS = ("frames", "GPU", "GB", "GB/s", "ms", "GMAC")


def show(columns: dict[str, str], rows: list[dict[str, Any]]) -> None:
    """One table: headings, and each row's values under these keys."""
    from edgevtc.cli.tables import print_table

    print_table(list(columns), ([cell(row[key]) for key in columns.values()] for row in rows), NUMBERS)


def flat(row: dict[str, Any]) -> dict[str, Any]:
    """A method's row for the table: what all need left out, and the numbers of its cost apart."""
    cost = row["cost"] or {}
    return {
        **row,
        "also_needs": [name for name in row["needs"] or () if name != "frame_tokens"],
        "ms": f"{1e3 * cost['cpu_s']:.0f}" if cost else None,
        "gmac": f"{cost['gmac']:.1f}" if cost else None,
    }


def cost_note() -> str:
    """What the columns of costs are measured for."""
    from edgevtc.methods.costs import COST_SIZE

    frames, tokens, width = COST_SIZE.split("x")
    return f"ms, GMAC: for {frames} frames of {tokens} tokens, {width} wide, retention 0.15, one thread"


def methods() -> list[dict[str, Any]]:
    """Built-in methods, then those of plugins."""
    from edgevtc.methods import builtin_methods, plugin_methods

    rows = [method_row(spec, BUILT_IN) for spec in builtin_methods().values()]
    return rows + [plugin_row(name, point) for name, point in sorted(plugin_methods().items())]


def method_row(spec: MethodSpec, source: str) -> dict[str, Any]:
    """What a method declares, and what it costs where that was measured."""
    from edgevtc.methods.costs import method_cost

    return {
        "name": spec.name,
        "summary": spec.summary,
        "paper": spec.paper,
        "needs": list(spec.needs),
        "positions": spec.positions,
        "cost": method_cost(spec.name) if source == BUILT_IN else None,
        "parameters": {name: asdict(parameter) for name, parameter in spec.parameters.items()},
        "by_retention": {str(ratio): dict(values) for ratio, values in spec.by_retention.items()},
        "source": source,
        "error": None,
    }


def plugin_row(name: str, point: EntryPoint) -> dict[str, Any]:
    """A plugin's method; where its program cannot be loaded, its name and why."""
    from edgevtc.methods import method_spec

    source = point.dist.name if point.dist else point.value
    try:
        return method_row(method_spec(name), source)
    except Exception as error:  # another package's code: whatever it raises must not hide the other methods
        reason = " ".join(str(error).split()) or type(error).__name__
        blank = dict.fromkeys(("paper", "needs", "positions", "cost", "parameters", "by_retention"))
        return {"name": name, "summary": f"cannot be loaded: {reason}", **blank, "source": source, "error": reason}


def models() -> list[dict[str, Any]]:
    """The recipes of the catalogue."""
    from edgevtc.catalogue import model_names, model_recipe

    return [asdict(model_recipe(name)) for name in model_names()]


def devices() -> list[dict[str, Any]]:
    """The profiles of the catalogue."""
    from edgevtc.catalogue import device_names, device_profile

    return [asdict(device_profile(name)) for name in device_names()]


def cell(value: Any) -> str:
    """A value in a table."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value)) or "-"
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value in (None, "") else str(value)
