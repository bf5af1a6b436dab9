"""
Statements: their shape, and what is no query.

A shape is the statement with everything taken out that differs between two runs of the same code: literals, parameters,
the lengths of lists, comments, white space and case. It is also all of a statement that ever leaves the process.
"""

from __future__ import annotations

import re
import zlib
from typing import Final, NamedTuple

from poolscope.core.sql.batches import BATCH, Chunked, chunked_of
from poolscope.core.sql.lexer import COMMENT, NAME, STRING, replaced
from poolscope.core.sql.principals import without_principals
from poolscope.core.sql.remembered import Remembered
from poolscope.core.sql.syntax import SYSTEMS

#: A longer statement is cut before it is looked at; what differs behind that is the data of a bulk statement.
LONGEST: Final = 10_000
#: As much of a statement as is kept: the last character says that it is longer.
KEPT: Final = LONGEST + 1
#: The longest shape that is kept and exported, in characters.
LONGEST_SHAPE: Final = 2_000

# As many characters as the place that a value's role takes.
_SLOT: Final = 200

# No other space: that would be a part of a name.
_SPACE: Final = re.compile(r"[ \t\n\r\f\v\x01]+")
# Strings beside one another are one, in some databases.
_BESIDE: Final = re.compile(r"\x02\s*(?=\x02)")
_IN_COMMENT: Final = r"--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)"
_PADDING: Final = re.compile(r" ?, ?|(?<=\() | (?=\))")
_CAST: Final = re.compile(r"\?::[\w.]+(?:\[\])?")
_LIST: Final = re.compile(r"\((\?(?:,\?)*)(?:\)|,?\Z)|\[(\?(?:,\?)*)\]")
_TUPLES: Final = re.compile(r"\(\(\?\)(?:,\(\?\))+\)")
_ROW: Final = r"\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)"
_ROWS: Final = re.compile(rf"\b(values? ?{_ROW})((?:,{_ROW})+)")

# Statements that are meant to be repeated. Pages by OFFSET or MySQL's LIMIT a, b. A queue's next job. A ping. Rows that
# travel as arrays or documents, and COPY.
_LOOPS: Final = re.compile(
    r"^select \?$|\boffset \?|\blimit \?, ?\?|\bskip locked\b|^copy\b"
    r"|^insert\b.*\b(?:unnest|openjson|jsonb?_(?:to|populate)_recordset|jsonb?_array_elements(?:_text)?) ?\("
)

# What stands for something else while a statement is looked at.
_UNWANTED: Final = str.maketrans("\0\2", "\1\1")
_STAND_INS: Final = {COMMENT: " ", STRING: "\2"}

# In text that is not SQL, removing a literal may join what lies beside it to a new one. A shape must be final.
_MAY_CHANGE: Final = re.compile(r"[#'\"`$%@:\\]|--|/\*|\*/")
_MOST_PASSES: Final = 5

# What most statements begin with; what else begins a query is found by not being control.
_USUAL: Final = frozenset({"sele", "inse", "upda", "dele", "with"})
_CONTROL: Final = re.compile(
    rf"(?:\s|{_IN_COMMENT})*"
    r"(?:(?:start|commit|rollback|abort|savepoint|release|reset|discard|fetch|move|close|deallocate|listen|unlisten"
    r"|set|show|pragma)\b"
    r"|(?:begin|end)\s*(?:;|\Z|(?:work|tran|transaction|isolation|read|deferred|immediate|exclusive)\b))",
    re.IGNORECASE,
)


class Shape(NamedTuple):
    """
    What a statement looks like.

    Args:
        text: The shape, in lower case outside of quoted names.
        loops: Whether it is meant to be repeated: a batch of rows, a page, the next job of a queue, a ping.
        chunked: Set where that depends on its values.
    """

    text: str
    loops: bool
    chunked: Chunked | None = None


# By the statement and its database.
_remembered: Final = Remembered[tuple[str, str], Shape]()


def shape_of(statement: str, system: str = "postgresql") -> str:
    """
    The shape of a statement. It holds no literal.

    Args:
        statement: SQL, as it was sent.
        system: The database, as the semantic conventions name it: they differ in what a string is.

    Returns:
        The shape, in lower case outside of quoted names; `LONGEST_SHAPE` characters at the most.
    """
    return (remembered(statement, system) or analyse(statement, system)).text


def remembered(statement: str, system: str) -> Shape | None:
    """The shape of a statement, if it is known already: this costs next to nothing."""
    return _remembered.known.get((statement, system))


def analyse(statement: str, system: str) -> Shape:
    """Compute the shape of a statement, and remember it."""
    text, loops, is_final = _folded(_without_literals(statement, system), cut=len(statement) > LONGEST)
    # Of a database that is not known, what lies between may be read in another way once more.
    is_final = is_final and system in SYSTEMS
    for _ in range(_MOST_PASSES):
        if is_final:
            break
        before = text
        text, *_ = _folded(_without_literals(before, system), cut=False)
        is_final = text == before
    if not is_final:  # no SQL
        text = "?"
    loops = loops or _LOOPS.search(text) is not None
    cut = len(statement) > LONGEST
    shape = Shape(text, loops, None if loops or cut else chunked_of(statement, text, system))
    if not cut:
        slots = len(shape.chunked.slots) if shape.chunked is not None else 0
        _remembered.add((statement, system), shape, len(statement) + len(text) + slots * _SLOT)
    return shape


def literal_free(statement: str, system: str) -> str:
    """
    A statement without literals, parameters, comments and users, on one line; a question mark stands for each.

    Args:
        statement: SQL; what stands beyond `LONGEST` characters is left out.
        system: The database, as the semantic conventions name it.
    """
    text, names = _without_literals(statement, system)
    return _with_names(without_principals(_SPACE.sub(" ", text)), names)


def is_query(statement: str) -> bool:
    """Whether a statement is a query: not the begin or end of a transaction, a setting, or a cursor's fetch."""
    return statement[:4].lower() in _USUAL or _CONTROL.match(statement, 0, LONGEST) is None


def summary_of(shape: str) -> str:
    """The first word of a shape in capitals, such as ``SELECT``; ``SQL`` when there is none."""
    match = re.search(r"[A-Za-z]+", shape)
    return match.group().upper() if match else "SQL"


def _without_literals(statement: str, system: str) -> tuple[str, list[str]]:
    names: list[str] = []

    def stand_in(kind: str, text: str) -> str:
        if kind == NAME:
            names.append(text)
            return f"\0{len(names) - 1}\0"
        return _STAND_INS.get(kind, "?")

    # A backslash may stand before what is not wanted: something has to stay there.
    text = statement[:LONGEST].translate(_UNWANTED)
    text = replaced(text, system, stand_in, cut=len(statement) > LONGEST)
    return _BESIDE.sub("", text).replace("\2", "?").lower(), names


def _folded(literal_free: tuple[str, list[str]], *, cut: bool) -> tuple[str, bool, bool]:
    text, names = literal_free
    text = without_principals(_SPACE.sub(" ", text))
    text = _CAST.sub("?", _PADDING.sub(_unpadded, text)).strip(" ;")
    if cut and "," in text:  # the last element is not whole
        text = text[: text.rfind(",")]
    loops = any(match.group().count(",") >= BATCH - 1 for match in _LIST.finditer(text))
    text = _TUPLES.sub("((?))", _LIST.sub(_one_element, text))
    text, batches = _ROWS.subn(r"\1", text)
    is_final = not _MAY_CHANGE.search(text)
    return _shortened(_with_names(text.replace(",", ", "), names)), loops or bool(batches), is_final


def _with_names(text: str, names: list[str]) -> str:
    return re.sub(r"\0(\d+)\0", lambda match: names[int(match.group(1))], text)


def _unpadded(match: re.Match[str]) -> str:
    return match.group().strip(" ")


def _one_element(match: re.Match[str]) -> str:
    return "[?]" if match.group().startswith("[") else "(?)"


def _shortened(text: str) -> str:
    # What is cut off is represented by its checksum, in letters: two statements are not the same because they begin
    # the same.
    if len(text) <= LONGEST_SHAPE:
        return text
    kept = text[: LONGEST_SHAPE - 10]
    for quote in '"`':
        if kept.count(quote) % 2:
            kept = kept[: kept.rfind(quote)]
    checksum = zlib.crc32(text.encode(errors="replace"))
    letters = "".join(chr(ord("a") + (checksum >> shift & 15)) for shift in range(0, 32, 4))
    return f"{kept.rstrip(' ,;')}…{letters}"
