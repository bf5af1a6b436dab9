"""
Chunks: a loop that works off much data piece by piece runs one statement over and over, and is no N+1.

The text does not tell: ``where tenant = ? and id > ? order by id limit ?`` is the next page of one tenant, or the first
page of each of many; ``where id = any(?)`` brings a thousand rows, or three. The values do. They are looked at in the
process, for statements that are repeated and could be chunks, and none of them is exported.
"""

from __future__ import annotations

import operator
import re
from datetime import date, time, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from poolscope.core.failure import raised_by_a_signal
from poolscope.core.sql.lexer import COMMENT, NAME, PARAMETER, replaced

if TYPE_CHECKING:
    from poolscope.types import LibraryObject

#: A list of so many elements is a batch: whoever sends it has thought of the round trips.
BATCH: Final = 100

# What a value is for: where the last page ended, how long a page is, an array, or anything else.
_ABOVE: Final = "above"
_BELOW: Final = "below"
_LIMIT: Final = "limit"
_ARRAY: Final = "array"
_KEY: Final = "key"
_DIRECTIONS: Final = {">": _ABOVE, "<": _BELOW}
_FURTHER: Final = {_ABOVE: operator.gt, _BELOW: operator.lt}

# In shapes: a comparison, an order and a limit; an array; rows that are changed, as many as a limit says.
_COMPARISON: Final = r"(?<![-<>@#&|?!])(?P<{name}>[<>])=? ?"
_BEYOND: Final = re.compile(_COMPARISON.format(name="sign") + r"\(?\?")
_LIMITED: Final = re.compile(r"\b(?:limit|fetch (?:first|next)) \?")
_ARRAYS: Final = re.compile(r"\b(?:any|unnest) ?\((?:cast ?\()?\?")
_CHANGES: Final = re.compile(r"(?:delete|update)\b")
_WITH: Final = re.compile(r"with\b")
_LIMIT_OF_ROWS: Final = re.compile(r"\blimit \?")
_CHANGES_BEHIND: Final = re.compile(r"\b(?:delete from|update)\b")

_PASSED_OVER: Final = {COMMENT: " ", NAME: "x"}
_MARK: Final = re.compile("\0")
# Before a value, which "\0" stands for; the values before it in the same row or call are passed over.
_ROW: Final = r"(?:\0(?:::[\w.]+(?:\[\])?)? ?, ?)*"
_BEFORE: Final = re.compile(
    rf"(?:{_COMPARISON.format(name='bound')}\(? ?|(?P<array>\b(?:any|unnest)) ?\( ?(?:cast ?\( ?)?){_ROW}\Z"
    r"|(?P<limit>\b(?:limit|fetch (?:first|next))) ?\(?\Z"
)
_SPACE: Final = re.compile(r"\s+")
_LOOK_BACK: Final = 100
# A statement with more values than that is none of these.
_MOST_VALUES: Final = 64

_PLAIN: Final = (int, float, str, bytes, Decimal, date, time, timedelta, UUID, type(None))
# No other class that is derived from them: one of the application's may compare in its own way.
_EXACTLY_PLAIN: Final = frozenset({*_PLAIN, bool})
_LONGEST_VALUE: Final = 200
_MOST_SERIES: Final = 16
_UNKNOWN: Final = object()


def plain_values(parameters: LibraryObject) -> tuple[object, ...] | None:
    """
    The values of a statement's parameters, as they are now: whoever runs it may change the list afterwards.

    Args:
        parameters: What the driver gets: a sequence or a mapping.

    Returns:
        None where there is none, where there are many, and where one is of a type that is not known: comparing that
        would run other people's code.
    """
    if type(parameters) is dict:
        values = tuple(parameters.values())
    elif type(parameters) in (tuple, list):
        values = tuple(parameters)
    else:
        return None
    if len(values) > _MOST_VALUES or any(type(value) not in _EXACTLY_PLAIN for value in values):
        return None
    return values or None


class Slot(NamedTuple):
    """
    One value of a statement.

    Args:
        role: What it is for.
        parameter: Position or name of the parameter that holds it; None for a literal.
        literal: The literal.
    """

    role: str
    parameter: int | str | None
    literal: Any


class Chunked(NamedTuple):
    """
    What a statement that could be one chunk of many does with its values.

    Args:
        slots: Its values, in order.
        paged: Whether it could be a page, with a comparison, an order and a limit.
        worked_off: Whether it deletes or changes as many rows as a limit says: the next run finds the next ones.
    """

    slots: tuple[Slot, ...]
    paged: bool
    worked_off: bool


class Progress:
    """How far the chunks of one shape from one line have come."""

    __slots__ = ("_series",)

    def __init__(self) -> None:
        # Where the last page ended, for each set of the other values.
        self._series: dict[int, tuple[Any, ...]] = {}

    def goes_on(self, chunked: Chunked, parameters: LibraryObject) -> bool:
        """
        Whether a run goes on where an earlier one stopped, and so is no repetition.

        That is a batch by array; a batch of rows that are deleted or changed, with the same values as before; or a page
        that has moved on in its direction while all other values are the same, and that is longer than one row. What
        cannot be told from the values is a page if nothing but the comparison chooses its rows.

        Args:
            chunked: The statement's.
            parameters: The statement's parameters as the driver gets them; None where they are not known.
        """
        given = [(slot, _value(slot, parameters)) for slot in chunked.slots]
        if any(_is_batch(value) for value in _of(_ARRAY, given)):
            return True
        try:
            if chunked.worked_off and self._is_worked_off(given):
                return True
            if not chunked.paged or any(_is_single(limit) for limit in _of(_LIMIT, given)):
                return False
            if parameters is None and any(slot.parameter is not None for slot in chunked.slots):
                return all(slot.role not in {_KEY, _ARRAY} for slot in chunked.slots)
            return self._moves_on(given)
        except Exception as error:
            if raised_by_a_signal(error):
                raise  # any other is of a value's own comparison
            return False

    def _is_worked_off(self, given: list[tuple[Slot, Any]]) -> bool:
        values = [value for _, value in given]
        if not all(isinstance(value, _PLAIN) for value in values) or any(limit < BATCH for limit in _of(_LIMIT, given)):
            return False
        series = hash((_LIMIT, *values))
        known = series in self._series
        if len(self._series) < _MOST_SERIES:
            self._series[series] = ()
        return known

    def _moves_on(self, given: list[tuple[Slot, Any]]) -> bool:
        ends = [(slot, value) for slot, value in given if slot.role in _FURTHER]
        bounds = tuple(value for _, value in ends)
        # Where the last page ended may be said twice: day > ? or (day = ? and id > ?); $1 is null or id > $1.
        again = {slot.parameter for slot, _ in ends if slot.parameter is not None}
        twice = bounds if len(bounds) > 1 else ()
        keys = [
            value
            for slot, value in given
            if slot.role in {_KEY, _ARRAY} and slot.parameter not in again and value not in twice
        ]
        if not all(isinstance(value, _PLAIN) for value in (*bounds, *keys)):
            return False
        series = hash(tuple(keys))
        before = self._series.get(series)
        if before is not None or len(self._series) < _MOST_SERIES:
            self._series[series] = bounds
        return before is not None and _is_further(before, ends)


def chunked_of(statement: str, shape: str, system: str) -> Chunked | None:
    """
    What a statement does with its values, if it could be one chunk of many.

    Args:
        statement: SQL, as it was sent.
        shape: Its shape.
        system: The database.
    """
    before, _, behind = shape.rpartition(" order by ")
    paged = _LIMITED.search(behind) is not None and _BEYOND.search(before) is not None
    worked_off = _is_worked_off(shape)
    if not paged and not worked_off and _ARRAYS.search(shape) is None:
        return None
    slots = _slots(statement, system)
    return Chunked(slots, paged, worked_off) if len(slots) <= _MOST_VALUES else None


def _is_worked_off(shape: str) -> bool:
    if _CHANGES.match(shape) is not None:
        return _LIMIT_OF_ROWS.search(shape) is not None
    # With the first limit there is most behind it.
    limit = _LIMIT_OF_ROWS.search(shape) if _WITH.match(shape) is not None else None
    return limit is not None and _CHANGES_BEHIND.search(shape, limit.end()) is not None


def _slots(statement: str, system: str) -> tuple[Slot, ...]:
    tokens: list[tuple[str, str]] = []

    def stand_in(kind: str, text: str) -> str:
        if kind in _PASSED_OVER:
            return _PASSED_OVER[kind]
        tokens.append((kind, text))
        return "\0"

    text = _SPACE.sub(" ", replaced(statement.replace("\0", "\1"), system, stand_in).lower())
    if len(tokens) > _MOST_VALUES:
        return (Slot(_KEY, None, None),) * len(tokens)
    slots: list[Slot] = []
    anonymous = 0
    for (kind, token), mark in zip(tokens, _MARK.finditer(text), strict=True):
        role = _role(text, mark.start())
        if kind != PARAMETER:
            slots.append(Slot(role, None, _literal(token)))
            continue
        parameter = _parameter(token, anonymous)
        anonymous += token in _ANONYMOUS
        slots.append(Slot(role, parameter, None))
    return tuple(slots)


def _role(text: str, position: int) -> str:
    match = _BEFORE.search(text, max(0, position - _LOOK_BACK), position)
    if match is None:
        return _KEY
    if match["bound"]:
        return _DIRECTIONS[match["bound"]]
    return _ARRAY if match["array"] else _LIMIT


_ANONYMOUS: Final = frozenset({"?", "%s", "%b", "%t"})


def _parameter(token: str, anonymous: int) -> int | str:
    if token in _ANONYMOUS:
        return anonymous
    if token.startswith("$") and token[1:].isdigit():
        return int(token[1:]) - 1
    if token.startswith("%("):
        return token[2 : token.rindex(")")]
    return token[1:]


def _literal(token: str) -> LibraryObject:
    try:
        return Decimal(token)
    except InvalidOperation:  # a string, or a hexadecimal number
        return token


def _value(slot: Slot, parameters: LibraryObject) -> LibraryObject:
    value: Any = slot.literal
    if isinstance(slot.parameter, str):
        value = dict.get(parameters, slot.parameter, _UNKNOWN) if isinstance(parameters, dict) else _UNKNOWN
    elif slot.parameter is not None:
        known = isinstance(parameters, (tuple, list)) and slot.parameter < len(parameters)
        value = parameters[slot.parameter] if known else _UNKNOWN
    return _UNKNOWN if isinstance(value, (str, bytes)) and len(value) > _LONGEST_VALUE else value


def _of(role: str, given: list[tuple[Slot, Any]]) -> list[Any]:
    return [value for slot, value in given if slot.role == role]


def _is_batch(value: LibraryObject) -> bool:
    return isinstance(value, (list, tuple, set, frozenset)) and len(value) >= BATCH


def _is_single(limit: LibraryObject) -> bool:
    # The next row after a value, for each of many values.
    return isinstance(limit, (int, Decimal)) and limit <= 1


def _is_further(before: tuple[Any, ...], ends: list[tuple[Slot, Any]]) -> bool:
    for old, (slot, new) in zip(before, ends, strict=True):
        if old == new:
            continue
        if old is None or new is None:  # the first page has no end of an earlier one
            return old is None
        return bool(_FURTHER[slot.role](new, old))
    return False
