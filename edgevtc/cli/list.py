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

    A method's cost is measured for 32 frames of 196 tokens, 896 wide, at a retention ratio of 0.15: processor time on
    one thread, and multiply-accumulates.
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
        from edgevtc.cli.tables import print_table

        columns = COLUMNS[args.what]
        print_table(list(columns), ([cell(row[key]) for key in columns.values()] for row in rows), NUMBERS)
        parameters = [
            (row["name"], name, parameter["default"], parameter["doc"])
            for row in rows
            for name, parameter in (row.get("parameters") or {}).items()
        ]
        if parameters:
            print()
            print_table(("method", "parameter", "default", "meaning"), parameters)
        return 0


#: What is listed → headings and the keys whose values stand below them.
COLUMNS = {
    "methods": {
        "name": "name",
        "needs": "needs",
        "positions": "positions",
        "cost": "cost",
        "source": "source",
        "summary": "summary",
        "paper": "paper",
    },
    "models": {
        "name": "name",
        "frames": "num_frames",
        "methods": "methods",
        "retention": "retention_ratios",
        "weights": "weight_formats",
        "licence": "licence",
        "source": "source",
    },
    "devices": {
        "name": "name",
        "tool": "tool",
        "GPU": "compute_capability",
        "GB": "memory_gb",
        "GB/s": "bandwidth_gb_s",
        "Python": "python",
        "description": "description",
    },
}
BUILT_IN = "built-in"
NUMBERS = ("frames", "GPU", "GB", "GB/s")


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
    if isinstance(value, dict):
        return f"{1e3 * value['cpu_s']:.0f} ms, {value['gmac']:.1f} GMAC"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "-" if value in (None, "") else str(value)
