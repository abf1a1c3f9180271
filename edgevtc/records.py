"""Typed records from parsed JSON or TOML: a frozen dataclass is the schema, and nothing outside it passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from edgevtc.errors import EdgeVTCError, choices

__all__ = ["NOT_EMPTY", "Ratio", "Rule", "Size", "one_of", "read_record"]

Record = TypeVar("Record")


@dataclass(frozen=True)
class Rule:
    """What a value has to be beyond its type, in an annotation: ``Annotated[int, Rule(is_even, "give an even one")]``.

    Attributes:
        holds: Whether a value of the type is valid.
        advice: What is, for the end of an error message.
    """

    holds: Callable[[Any], bool]
    advice: str


def one_of(*values: str) -> Rule:
    """The rule that a string is one of these."""
    return Rule(values.__contains__, choices(values))


#: A number of things of which there is at least one.
Size = Annotated[int, Rule(lambda value: value >= 1, "give 1 or more")]

#: A share of all tokens.
Ratio = Annotated[float, Rule(lambda value: 0 < value <= 1, "give a number above 0 and up to 1")]

#: For what is listed.
NOT_EMPTY = Rule(bool, "give at least one")


def read_record(kind: type[Record], value: Any, where: str, error: type[EdgeVTCError]) -> Record:
    """A record of dataclass ``kind``, every field checked against its annotation and the rules in it.

    Args:
        kind: A dataclass of strings, numbers, booleans, tuples, string-keyed dicts, unions with None, and such
            dataclasses.
        value: The parsed document.
        where: Where it stands, for the message.
        error: What to raise.

    Raises:
        EdgeVTCError: Of class ``error``: a field is unknown, missing, of another type or against a rule; the message
            names it.
    """
    if not isinstance(value, dict):
        raise error(f"{where}: expected named fields, found {value!r}")
    hints = field_types(kind)  # type: ignore[arg-type]  # classes are hashable
    known = {entry.name: entry for entry in fields(kind)}  # type: ignore[arg-type]
    for name in value:
        if name not in known:
            raise error(f"{where}: unknown field {name!r}: {choices(known)}")
    for name, entry in known.items():
        if name not in value and entry.default is MISSING and entry.default_factory is MISSING:
            raise error(f"{where}: field {name!r} is missing")
    return kind(**{name: convert(hints[name], item, f"{where}: {name}", error) for name, item in value.items()})


@cache
def field_types(kind: type) -> dict[str, Any]:
    """Field → type. Kept, for evaluating annotations costs more than the rest and bundles list hundreds of files."""
    return get_type_hints(kind, include_extras=True)


def convert(hint: Any, value: Any, where: str, error: type[EdgeVTCError]) -> Any:
    """``value`` as the annotated type, or an error naming the place."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Annotated:
        kind, rule = arguments
        found = convert(kind, value, where, error)
        if not rule.holds(found):
            raise error(f"{where}: {value!r} is not valid: {rule.advice}")
        return found
    if isinstance(hint, type) and is_dataclass(hint):
        return read_record(hint, value, where, error)
    if origin in (Union, UnionType):
        return None if value is None else convert(arguments[0], value, where, error)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(convert(arguments[0], item, where, error) for item in value)
    if origin is dict and isinstance(value, dict):
        kind, of = arguments
        return {
            convert(kind, key, where, error): convert(of, item, f"{where}.{key}", error) for key, item in value.items()
        }
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if origin is None and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    raise error(f"{where}: {value!r} is not of type {type_name(hint)}")


def type_name(hint: Any) -> str:
    """An annotation in the words of JSON and TOML."""
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        return type_name(arguments[0])
    if get_origin(hint) is tuple:
        return f"list of {type_name(arguments[0])}"
    if get_origin(hint) is dict:
        return f"table of {type_name(arguments[1])}"
    return getattr(hint, "__name__", str(hint))
