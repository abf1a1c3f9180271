"""Tables on stdout: fitted to a terminal; plain, whole and one row a line where stdout is piped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

__all__ = ["print_facts", "print_table"]

#: Width of a page that nobody looks at: no column is ever folded or cut for a pipe.
UNLIMITED = 1_000_000


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> None:
    """A table with a heading line.

    Args:
        columns: Headings. The first column is never folded.
        rows: Cells, printed with ``str``.
        right: Headings of the columns that hold numbers.
    """
    table = Table(box=box.SIMPLE_HEAD if stdout().is_terminal else None, pad_edge=False, header_style="bold")
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=index == 0)
    for row in rows:
        table.add_row(*(Text(str(cell)) for cell in row))
    show(table)


def print_facts(facts: Mapping[str, object]) -> None:
    """Names and values, one pair a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(name, Text(str(value)))
    show(table)


def stdout() -> Console:
    """The console of stdout."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=UNLIMITED)


def show(table: Table) -> None:
    """Print a table; in a pipe without the spaces that fill its last column."""
    console = stdout()
    with console.capture() as capture:
        console.print(table)
    for line in capture.get().splitlines():
        print(line if console.is_terminal else line.rstrip())
