"""
The values of OTLP as JSON, each checked.

Of the OTLP specification ("JSON Protobuf Encoding"): 64-bit integers may be strings, an absent field has its default,
`NaN` and infinities are strings.
"""

from __future__ import annotations

import json
import math
from operator import lt
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

Json = dict[str, Any]
Found = TypeVar("Found")

#: Characters of a text that are kept.
LONGEST_TEXT: Final = 10_000
#: Beyond it no number is a count, a time or a duration; below it no sum of them overflows.
LARGEST: Final = 2**64
_DIGITS: Final = 20
_LONGEST_NUMBER: Final = 40
#: How deep values may lie in one another.
_DEEPEST: Final = 8


class MalformedError(ValueError):
    """Something that does not follow the specification; the message says what."""


#: What reading something else than OTLP may raise.
UNREADABLE: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)


def parse(line: str) -> object:
    """
    One line as a JSON document.

    Raises:
        ValueError: It is no JSON.
        RecursionError: It is nested too deeply.
    """
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        raise
    except ValueError:  # Python converts no integer of more than some thousand digits
        return json.loads(line, parse_int=_whole)


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


def why(error: BaseException) -> str:
    """What an exception of `UNREADABLE` says about the telemetry."""
    if isinstance(error, MalformedError):
        return str(error)
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, KeyError):
        return f"no {error.args[0]}"
    return "a value of the wrong type"


def items(raw: Json, key: str) -> Sequence[Any]:
    """A list; empty where there is none."""
    found = raw.get(key)
    if found is None:
        return ()
    if type(found) is not list:
        raise MalformedError(f"{key} is no list")
    return found


def part(raw: Json, key: str) -> Json:
    """An object; empty where there is none."""
    found = raw.get(key)
    if found is None:
        return {}
    if type(found) is not dict:
        raise MalformedError(f"{key} is no object")
    return found


def text(value: object) -> str:
    """Any value as a text, cut to `LONGEST_TEXT`."""
    found = value if type(value) is str else str(value)
    return found if len(found) <= LONGEST_TEXT else f"{found[:LONGEST_TEXT]}…"


def identifier(raw: Json, key: str) -> str:
    """The id of a trace or a span; empty where there is none."""
    found = raw.get(key)
    if not found:
        return ""
    if type(found) is not str:
        raise MalformedError(f"{key} is no id")
    return text(found)


def whole(raw: Json, key: str) -> int:
    """An integer of 64 bits; 0 where there is none."""
    found = raw.get(key)
    if found is None:
        return 0
    try:
        number = _integer(found)
    except UNREADABLE:
        raise MalformedError(f"{key} is no integer") from None
    if not -LARGEST < number < LARGEST:
        raise MalformedError(f"{key} is out of range")
    return number


def _integer(value: object) -> int:
    if type(value) is int:
        return value
    if type(value) is str and len(value) <= _DIGITS:
        return int(value)
    if type(value) is float and value.is_integer():
        return int(value)
    raise MalformedError("no integer")


def moment(raw: Json, key: str) -> int:
    """A time in nanoseconds since 1970; 0 where there is none."""
    given = raw.get(key)
    if type(given) is str and len(given) < _DIGITS and given.isdecimal():
        return int(given)
    found = whole(raw, key)
    if found < 0:
        raise MalformedError(f"{key} is before 1970")
    return found


def number(raw: Json, key: str) -> float:
    """A number that is not too large to be a count or a time; 0 where there is none."""
    found = raw.get(key)
    if found is None:
        return 0.0
    value = found if type(found) is float else _float(found)
    if value is None:
        raise MalformedError(f"{key} is no number")
    # NaN is not below it either.
    if not -LARGEST < value < LARGEST:
        raise MalformedError(f"{key} is out of range")
    return value


def _float(value: object) -> float | None:
    if type(value) is float:
        return value
    if type(value) is int or (type(value) is str and len(value) <= _LONGEST_NUMBER):
        try:
            return float(value)
        except (ValueError, OverflowError):
            return None
    return None


def counts(raw: Json) -> tuple[int, ...]:
    """The counts of a histogram's buckets."""
    found = tuple(map(int, items(raw, "bucketCounts")))
    if found and not 0 <= min(found) <= max(found) < LARGEST:
        raise MalformedError("bucketCounts has a count that is out of range")
    return found


def bounds(raw: Json) -> tuple[float, ...]:
    """The explicit bounds of a histogram's buckets."""
    return ascending(tuple(map(float, items(raw, "explicitBounds"))), "explicitBounds")


def ascending(values: tuple[float, ...], key: str) -> tuple[float, ...]:
    """Bounds, checked: each a number, and above the one before."""
    if values and not (all(map(lt, values, values[1:])) and math.isfinite(values[0]) and math.isfinite(values[-1])):
        raise MalformedError(f"{key} does not ascend")
    return values


def attributes(raw: Json, only: Collection[str] | None = None) -> dict[str, object]:
    """
    The attributes of something.

    Args:
        raw: What has them.
        only: The keys to take; all of them when not given.
    """
    return _pairs(items(raw, "attributes"), only, 0)


class Repeated(Generic[Found]):
    """
    A part of one thing after another, decoded once where it repeats.

    Args:
        key: Where the part is.
        decode: Decodes the part of a thing.
    """

    def __init__(self, key: str, decode: Callable[[Json], Found]) -> None:
        self._key = key
        self._decode = decode
        self._given: object = None
        self._found = decode({})

    def of(self, raw: Json) -> Found:
        """The part of the next one; the same object as before where it is the same."""
        given = raw.get(self._key)
        if given != self._given:
            self._found = self._decode(raw)
            self._given = given
        return self._found


def _pairs(pairs: Sequence[Json], only: Collection[str] | None, depth: int) -> dict[str, object]:
    if only is not None:
        return {pair["key"]: _value(pair.get("value"), depth) for pair in pairs if pair["key"] in only}
    found = {pair["key"]: _value(pair.get("value"), depth) for pair in pairs}
    try:
        "".join(found)
    except TypeError:
        raise MalformedError("the key of an attribute is no text") from None
    return found


def _value(raw: Json | None, depth: int) -> object:
    if not raw:
        return None
    # What is most frequent, first.
    content = raw.get("stringValue")
    if type(content) is str and len(content) <= LONGEST_TEXT:
        return content
    content = raw.get("intValue")
    if type(content) is str and len(content) < _DIGITS and content.isdecimal():
        return int(content)
    kind, content = next(iter(raw.items()))
    found: object = None
    if kind == "boolValue" and type(content) is bool:
        found = content
    elif kind in {"intValue", "doubleValue"}:
        found = _number(content, is_whole=kind == "intValue")
    elif kind == "arrayValue" and depth < _DEEPEST:
        found = tuple([_value(item, depth + 1) for item in items(content, "values")])
    elif kind == "kvlistValue" and depth < _DEEPEST:
        found = _pairs(items(content, "values"), None, depth + 1)
    # What is no value of its kind is shown as it is.
    return text(content) if found is None else found


def _number(content: object, *, is_whole: bool) -> float | None:
    try:
        found = _integer(content) if is_whole else _float(content)
    except UNREADABLE:
        return None
    return found if found is not None and -LARGEST < found < LARGEST else None
