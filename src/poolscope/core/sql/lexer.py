"""
What is a comment, a string, a name, a parameter and a number in SQL; databases differ.

Where that depends on a setting of the server's (backslashes, double quotes), or the database is not known, a statement
is read in every way that there is (`syntaxes_of`). What is a literal in any of these is taken for one. With other
settings than the default ones, a way that leaves a quote open, or a backslash outside of quotes, does not count: the
server would refuse the statement.
"""

from __future__ import annotations

import re
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.sql.syntax import EXECUTED, MOST_VERSIONS, syntaxes_of, versions_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.core.sql.syntax import Syntax

COMMENT: Final = "comment"
NAME: Final = "name"
STRING: Final = "string"
PARAMETER: Final = "parameter"
NUMBER: Final = "number"

_BLOCK_ENDS: Final = re.compile(r"/\*|\*/")
# Where readings differ, the last one of these is what it is.
_BY_RANK: Final = ("", COMMENT, NAME, NUMBER, PARAMETER, STRING)
# What stays as it is: in MySQL, NULL has a notation with a backslash.
_PLAIN: Final = frozenset({"plain", "other", "null", "backslash"})
_PAIRS: Final = {"[": "]", "{": "}", "(": ")", "<": ">"}

# SQLite and SQL Server: behind these words stands a name, whatever the quotes.
_BEFORE_NAMES: Final = frozenset({
    "from", "join", "into", "update", "table", "as", "savepoint", "references", "exists", "index", "view", "set",
})  # fmt: skip
_STRUCTURE: Final = re.compile(r"\b(?:set|where|from|order|limit|returning|select|vacuum)\b|[();]")
_NESTING: Final = {"(": 1, ")": -1}
_NEXT_PART: Final = re.compile(r"\s*\.(?!\d)")
_COLUMNS_OF: Final = re.compile(
    r"""\binto\s{1,9}(?:(?:"[^"]*"|[\w$]{1,63})\s?\.\s?)?(?:"[^"]*"|[\w$]{1,63})\s?\(\s?\Z""", re.IGNORECASE
)
_LOOK_BACK: Final = 200


class Token(NamedTuple):
    """
    What is no plain text.

    Args:
        kind: `COMMENT`, `NAME`, `STRING`, `PARAMETER` or `NUMBER`.
        start: Where it begins.
        end: Where it ends.
    """

    kind: str
    start: int
    end: int


def tokens_of(statement: str, system: str, *, cut: bool = False) -> list[Token]:
    """
    All that is not plain text in a statement, in order. What may be a literal is one; what lies beyond a place where
    the statement cannot be read is one string.

    Args:
        statement: SQL.
        system: The database, as the semantic conventions name it.
        cut: Whether the statement goes on behind its end: then it may end within a string.
    """
    if len(versions_of(statement)) > MOST_VERSIONS:
        start = min(statement.find(opening) for opening in versions_of(statement))
        return [*tokens_of(statement[:start], system), Token(STRING, start, len(statement))]
    read = [_Read(statement, syntax) for syntax in syntaxes_of(system, statement)]
    # The default counts in any case: a statement may be cut by somebody else, or be one that the server refuses.
    likely = [read[0], *(one for one in read[1:] if one.backslash is None and (cut or not one.is_open))]
    tokens = likely[0].tokens
    if any(one.tokens != tokens for one in likely[1:]):
        tokens = _agreed(statement, [one.tokens for one in likely])
    if not cut and all(one.is_open or one.backslash is not None for one in likely):
        # A quote is missing or one too many, and what looks like text may be the inside of a string; or a client's own
        # command follows, such as psql's ``\connect``.
        starts = [token.start for one in read for token in one.tokens if token.kind == STRING]
        starts += [one.backslash for one in read if one.backslash is not None]
        if starts:
            start = min(starts)
            tokens = [Token(kind, at, min(end, start)) for kind, at, end in tokens if at < start]
            tokens.append(Token(STRING, start, len(statement)))
    return tokens


def replaced(statement: str, system: str, stand_in: Callable[[str, str], str], *, cut: bool = False) -> str:
    """
    A statement with something else in the place of each of its tokens.

    Args:
        statement: SQL.
        system: The database.
        stand_in: By the kind and the text of a token, what stands in its place.
        cut: Whether the statement goes on behind its end.
    """
    parts: list[str] = []
    at = 0
    for kind, start, end in tokens_of(statement, system, cut=cut):
        parts += (statement[at:start], stand_in(kind, statement[start:end]))
        at = end
    parts.append(statement[at:])
    return "".join(parts)


class _Read:
    """
    A statement, read in one way.

    Args:
        text: The statement.
        syntax: The way.
    """

    def __init__(self, text: str, syntax: Syntax) -> None:
        self.tokens: list[Token] = []
        #: Whether it ends within a string, a name or a comment.
        self.is_open = False
        #: Where the first backslash outside of all of these is; None where there is none.
        self.backslash: int | None = None
        self._text, self._syntax = text, syntax
        self._names = _DoubtfulNames(text) if syntax.doubts_names else None
        # What began with the comment that is executed: its place among the tokens, and in the text.
        self._executed: tuple[int, int] | None = None
        at = 0
        while at < len(text):
            at = self._next(at)
        self.is_open = self._was_executed(len(text)) or self.is_open

    def _next(self, at: int) -> int:
        found = self._syntax.pattern.match(self._text, at)
        kind = found.lastgroup if found is not None else None
        if found is None or kind is None:  # every pattern matches everywhere
            return len(self._text)
        end = found.end()
        if kind in _PLAIN:
            if kind == "backslash" and self.backslash is None:
                self.backslash = found.start(kind)
            return end
        start = found.start(kind)
        if kind == "ends":
            self._was_executed(end)
            return end
        if kind == "block":
            return self._block(start)
        if kind in (STRING, NAME, "doubtful"):
            self.is_open = found[f"closed_{kind}"] is None
        elif kind in ("dollars", "marked"):
            closing = _end_of_quoted(self._text, found[kind], end)
            self.is_open, kind, end = closing is None, STRING, closing or len(self._text)
        if kind == "doubtful" and self._names is not None:
            kind = NAME if self._names.is_name(found.start(), start, end, self.tokens) else STRING
        # A name that does not end may be a string that does not.
        self.tokens.append(Token(STRING if self.is_open else kind, start, end))
        return end

    def _block(self, start: int) -> int:
        opening = EXECUTED.match(self._text, start) if self._syntax.executes else None
        if opening is not None and opening[0] in self._syntax.executes:
            self._executed = self._executed or (len(self.tokens), start)
            return opening.end()
        closing = _end_of_comment(self._text, start, self._syntax.nests)
        self.is_open, end = closing is None, closing or len(self._text)
        self.tokens.append(Token(COMMENT, start, end))
        return end

    def _was_executed(self, end: int) -> bool:
        # All that is in it goes with it, whether this server executes it or not.
        if self._executed is None:
            return False
        place, start = self._executed
        self.tokens[place:] = [Token(COMMENT, start, end)]
        self._executed = None
        return True


def _end_of_comment(text: str, start: int, nests: int) -> int | None:
    depth = 0
    for found in _BLOCK_ENDS.finditer(text, start):
        if found[0] == "*/":
            depth -= 1
        elif depth < nests:
            depth += 1
        if not depth:
            return found.end()
    return None


def _end_of_quoted(text: str, opening: str, at: int) -> int | None:
    closing = opening if opening.startswith("$") else _PAIRS.get(opening[-1], opening[-1]) + "'"
    try:
        return text.index(closing, at) + len(closing)
    except ValueError:
        return None


def _agreed(text: str, ways: Iterable[list[Token]]) -> list[Token]:
    # What is hidden in one way is hidden. A name is one only where all say so; a comment where none says literal.
    rank = {kind: number for number, kind in enumerate(_BY_RANK)}
    marks = bytearray(len(text))
    names: list[set[Token]] = []
    for tokens in ways:
        names.append({token for token in tokens if token.kind == NAME})
        for kind, start, end in tokens:
            if kind != NAME:
                for place in range(start, end):
                    marks[place] = max(marks[place], rank[kind])
    for token in set.intersection(*names):
        if not any(marks[token.start : token.end]):
            marks[token.start : token.end] = bytes([rank[NAME]]) * (token.end - token.start)
    agreed: list[Token] = []
    end = 0
    for mark, places in groupby(marks):
        start, end = end, end + len([*places])
        if mark:
            agreed.append(Token(_BY_RANK[mark], start, end))
    return agreed


class _DoubtfulNames:
    """Whether what stands in double quotes can only be a name: elsewhere it may be a string."""

    def __init__(self, text: str) -> None:
        self._text = text
        # How far it has been followed: in the text, and among the tokens.
        self._seen = self._followed = 0
        # How many parentheses are open since the SET of an UPDATE; whether the columns of an INSERT are listed.
        self._depth: int | None = None
        self._lists_columns = False
        # Whether it is a VACUUM, which has a file's name behind INTO.
        self._vacuums = False

    def is_name(self, plain_start: int, start: int, end: int, before: list[Token]) -> bool:
        """
        Whether it is a name.

        Args:
            plain_start: Where the plain text before it begins.
            start: Where it begins.
            end: Where it ends.
            before: The tokens before it.
        """
        self._follow(start, before)
        plain = self._text[plain_start:start].rstrip()
        words = plain.lower().rsplit(None, 2)[-2:]
        if plain.endswith(".") or _NEXT_PART.match(self._text, end):
            return True
        if words and words[-1] in _BEFORE_NAMES:
            # IS DISTINCT FROM: a value. Behind a comment that is not known.
            is_known = len(words) > 1 or not before or before[-1].kind != COMMENT
            return is_known and words[0] != "distinct" and not self._vacuums
        if plain.endswith("(") and self._begins_columns(start, before):
            self._lists_columns = True
        return self._lists_columns or (plain.endswith(",") and self._depth == 0)

    def _begins_columns(self, start: int, before: list[Token]) -> bool:
        found = _COLUMNS_OF.search(self._text, max(0, start - _LOOK_BACK), start)
        # The word may be the last one of a comment.
        return found is not None and not any(token.start < found.start() < token.end for token in before[-3:])

    def _follow(self, start: int, before: list[Token]) -> None:
        plains, at = [], self._seen
        for token in before[self._followed :]:
            plains.append(self._text[at : token.start])
            at = token.end
        plains.append(self._text[at:start])
        self._seen, self._followed = start, len(before)
        for word in _STRUCTURE.findall("\0".join(plains).lower()):
            if word == "set":
                self._depth = 0
            elif word not in _NESTING:
                self._depth = None
            elif self._depth is not None:
                self._depth += _NESTING[word]
            self._lists_columns = self._lists_columns and word != ")"
            self._vacuums = word == "vacuum" or (self._vacuums and word != ";")
