"""Statements on their way to a driver: what one is, and that it begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject


def begin_statement(
    lease: Lease, statement: LibraryObject, *, many: bool = False, parameters: LibraryObject = None
) -> None:
    """
    A statement begins on a driver's connection; it is counted for the unit of work unless a pool above has done so.

    Args:
        lease: The connection's.
        statement: As it was given to the driver.
        many: Whether one call runs it for many rows.
        parameters: What the driver gets for its parameters, where it is at hand.
    """
    if type(statement) is not str:
        statement = text_of(statement)
    if lease.above is not None and lease.counted_above():
        lease.statement_begins_below(statement)
    else:
        lease.statement_begins(statement, many=many, parameters=parameters)


def text_of(statement: LibraryObject) -> str:
    """The text of a statement that is not a plain string."""
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    as_string = getattr(statement, "as_string", None)
    return str(as_string(None)) if as_string is not None else str(statement)


def dbapi_statement(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, bool, Any]:
    """What a method of PEP 249's name runs: the statement, whether it is for many rows, and its parameters."""
    given = (*args, *kwargs.values()) if kwargs else args
    statement = given[0] if given else None
    if name.startswith("call"):
        statement = f"CALL {statement}"
    return statement, name == "executemany", given[1] if len(given) > 1 else None
