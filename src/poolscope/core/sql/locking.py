"""
Which locks a statement takes, as far as its text says: of which tables, and whether it waits for them.

Of rows, a text names the table only: which rows it is about stands in its parameters, which are not looked at. What a
database locks without being asked for (the row that a foreign key refers to, a gap in an index) is not in the text
either.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from typing import TYPE_CHECKING, Final

from poolscope.core.sql.fingerprint import KEPT, literal_free
from poolscope.core.sql.locks import Lock, Mode
from poolscope.core.sql.remembered import Remembered

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# As many characters as the place that a lock takes.
_SLOT: Final = 200

# A name in brackets is no longer than names are: each bracket that is not closed would have the whole rest looked at.
_WORD: Final = re.compile(r'"(?:[^"]|"")*"|`[^`]*`|\[[^\]]{0,200}\]|[^\W\d][\w$#]*|\S')
_ADVISORY_CALL: Final = re.compile(
    r"\b(?:(?P<numbered>pg_(?P<tries>try_)?advisory(?P<xact>_xact)?_lock)|get_lock)"
    r"\s*\((?:(?P<arguments>(?:[^()]|\([^()]*\))*)\))?",
    re.IGNORECASE,
)
# What distinguishes a lock, where that is literal: one or two numbers, as ``hashtext('nightly')`` is one; in
# MySQL a name, behind which stands how long to wait.
_LITERAL: Final = r"(?:-?\d+|(?:\w+\s*\(\s*)?'[^']*'(?:\s*\))?)"
_NUMBERS: Final = re.compile(rf"\s*({_LITERAL}(?:\s*,\s*{_LITERAL})*)\s*")
_NAME: Final = re.compile(rf"\s*({_LITERAL})\s*,.*", re.DOTALL)
_NOT_A_NAME: Final = frozenset({
    "select", "where", "set", "on", "join", "left", "right", "inner", "outer", "full", "cross", "natural", "group",
    "order", "limit", "for", "union", "using", "values", "returning", "having", "window", "offset", "fetch", "except",
    "intersect", "lock", "lateral", "default", "do", "from", "as", "in", "into",
})  # fmt: skip
# Words between the verb and the name of the table.
_FILLERS: Final = frozenset({
    "only", "table", "tables", "into", "from", "low_priority", "ignore", "quick", "delayed", "high_priority", "if",
    "exists", "or", "replace", "rollback", "abort", "fail", "overwrite",
})  # fmt: skip
_MOST_FILLERS: Final = 8
# Behind the name of a table that is locked: no mode has more words.
_LONGEST_TAIL: Final = 16
_SAYS_WHAT_FOR: Final = frozenset({"into", "from", "join", "on", "update"})
_LOOKED_FOR: Final = frozenset({"duplicate", "conflict", "update", "on", ",", ";"})
_BETWEEN_SELECTS: Final = frozenset({"all", "distinct", "union", "except", "intersect"})
_ROW_MODES: Final = {"update": Mode.ROWS, "share": Mode.SHARED_ROWS}
# LOCK TABLE in PostgreSQL, IN ... MODE; in MySQL, one of the last two. What is missing excludes no change of rows.
_TABLE_MODES: Final = {
    "": Mode.TABLE,
    "access exclusive": Mode.TABLE,
    "exclusive": Mode.CHANGES,
    "share row exclusive": Mode.CHANGES,
    "share": Mode.SHARED_TABLE,
    "write": Mode.TABLE,
    "read": Mode.SHARED_TABLE,
}


# By the statement, as far as it is looked at, and its database.
_remembered: Final = Remembered[tuple[str, str], tuple[Lock, ...]]()


def locks_of(statement: str, system: str) -> tuple[Lock, ...]:
    """
    The locks that a statement takes, each once.

    Args:
        statement: SQL; what stands beyond the first ten thousand characters is not looked at.
        system: The database, as the semantic conventions name it.
    """
    key = (statement[:KEPT], system)
    found = _remembered.known.get(key)
    if found is None:
        found = _found(*key)
        _remembered.add(key, found, len(key[0]) + len(found) * _SLOT)
    return found


def _found(statement: str, system: str) -> tuple[Lock, ...]:
    text = literal_free(statement, system)
    found = [*_advisory(statement, text)]
    words = _Words(_unquoted(word, system) for word in _WORD.findall(text))
    found += _of_words(words)
    if system == "sqlite":  # it has one lock for all of a database that is written to
        found = [Lock(Mode.CHANGES, ()) for lock in found if lock.mode not in (Mode.READ, Mode.SHARED_ROWS)]
    return tuple(dict.fromkeys(found))


def _unquoted(word: str, system: str) -> str:
    if word[0] in '"`[' and len(word) > 1:
        name = word[1:-1].replace('""', '"')
        return "\0" + (name.lower() if system in ("mysql", "mariadb") else name)  # a name, whatever word it is
    return word.lower()


def _advisory(raw: str, text: str) -> Iterator[Lock]:
    if not _ADVISORY_CALL.search(text):  # else it is in a comment or a string
        return
    for call in _ADVISORY_CALL.finditer(raw):
        given = call["arguments"] or ""
        value = _NUMBERS.fullmatch(given) if call["numbered"] else _NAME.fullmatch(given)
        mode = Mode.ADVISORY if call["xact"] else Mode.SESSION
        yield Lock(mode, (re.sub(r"\s", "", value[1]),) if value is not None else (), not call["tries"])


class _Words(list[str]):
    """
    The words of a statement, and a semicolon behind them. What is asked of all that precedes or follows one is known
    beforehand: asking that of each word anew would take the square of the time.
    """

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__((*words, ";"))
        #: Before each word: what the last word was of those that say what a name is for.
        self.verbs: list[str] = []
        self._places: dict[str, list[int]] = {word: [] for word in _LOOKED_FOR}
        verb = ""
        for place, word in enumerate(self):
            self.verbs.append(verb)
            if word in _SAYS_WHAT_FOR:
                verb = word
            if word in self._places:
                self._places[word].append(place)
        for places in self._places.values():
            places.append(len(self))

    def has_from(self, word: str, place: int) -> bool:
        """Whether one of `_LOOKED_FOR` is at a place or behind it."""
        return self.next_of(word, place) < len(self)

    def next_of(self, word: str, place: int) -> int:
        """Where one of `_LOOKED_FOR` is next, from a place on; the number of words where it does not."""
        places = self._places[word]
        return places[bisect_left(places, place)]


def _of_words(words: _Words) -> Iterator[Lock]:
    depth, before = 0, ""
    selects: dict[int, _Select] = {}
    for place, word in enumerate(words):
        # A verb begins a statement, or follows the list of a WITH.
        begins = before in ("", "(", ";") or (before == ")" and not depth)
        if word in (")", ";") or (word == "select" and (begins or before in _BETWEEN_SELECTS)):
            yield from _ended(selects.pop(depth, None))
        depth = max(0, depth + (word == "(") - (word == ")"))
        if word == "select":
            selects.setdefault(depth, _Select())
        elif begins and word in _STATEMENTS:
            yield from _STATEMENTS[word](words, place)
        elif depth in selects:
            selects[depth].add(words, place, before)
        elif word in ("from", "join", "using"):
            # Of DELETE FROM it is the table itself, which that covers.
            name, _ = _name(words, place + 1)
            if name:
                yield Lock(Mode.READ, name)
        before = word
    for select in selects.values():
        yield from _ended(select)


class _Select:
    """One SELECT at one depth: what it reads, and whether it locks that."""

    def __init__(self) -> None:
        self.tables: list[tuple[tuple[str, ...], str]] = []
        self.mode = Mode.READ
        #: What the lock is said to be of: tables or, in Oracle, columns with the table before them.
        self.of: set[str] = set()
        self.waits = True
        self._in_from = False

    def add(self, words: _Words, place: int, before: str) -> None:
        """The next word."""
        word = words[place]
        if word in ("from", "join") or (word == "," and self._in_from):
            self._in_from = True
            self._reads(words, place + 1)
        elif word in ("where", "group", "order", "limit", "having", "window"):
            self._in_from = False
        elif word == "for":
            self._in_from = False
            place += 1
            while words[place] in ("no", "key"):
                place += 1
            self.mode = _ROW_MODES.get(words[place], self.mode)
        elif word == "lock" and words[place + 1 : place + 3] == ["in", "share"]:
            self.mode = Mode.SHARED_ROWS
        elif word == "of" and before in ("update", "share"):
            self.of.update(*_names(words, place + 1))
        elif word == "nowait" or (word == "locked" and before == "skip"):
            self.waits = False

    def _reads(self, words: _Words, place: int) -> None:
        name, after = _name(words, place)
        if name:
            after += words[after] == "as"
            alias = words[after] if _is_name(words[after]) else name[0]
            self.tables.append((name, alias.lstrip("\0")))

    def locks(self) -> Iterator[Lock]:
        """Of each of its tables."""
        for table, alias in self.tables:
            if self.of and alias not in self.of:
                yield Lock(Mode.READ, table)
            else:
                yield Lock(self.mode, table, self.waits)


def _ended(select: _Select | None) -> Iterator[Lock]:
    return iter(()) if select is None else select.locks()


def _changes(words: _Words, place: int) -> Iterator[Lock]:
    follows = words.has_from
    updates = follows("duplicate", place) or (follows("conflict", place) and follows("update", place))
    adds = words[place] == "insert" and not updates
    name, _ = _name(words, place + 1)
    if name:
        yield Lock(Mode.NEW_ROWS if adds else Mode.ROWS, name)


def _truncates(words: _Words, place: int) -> Iterator[Lock]:
    yield from (Lock(Mode.TABLE, name) for name in _names(words, place + 1))


def _locked(words: _Words, place: int) -> Iterator[Lock]:
    names, modes, place = [], [], place + 1
    tail: list[str] = []
    while True:
        name, place = _name(words, place)
        if not name:
            break
        names.append(name)
        if words[place] == "as":
            _, place = _name(words, place + 1)
        end = min(words.next_of(",", place), words.next_of(";", place))
        tail = words[place : min(end, place + _LONGEST_TAIL)]
        mode = [one for one in tail if one not in ("in", "mode", "nowait", "local", "low_priority")]
        modes.append(_TABLE_MODES.get(" ".join(mode)))
        if words[end] != ",":
            break
        place = end + 1
    waits = "nowait" not in tail
    # In PostgreSQL the mode stands behind the last one, for all of them.
    is_of_all = "mode" in tail
    for name, own in zip(names, modes, strict=True):
        actual = modes[-1] if is_of_all else own
        if actual is not None:
            yield Lock(actual, name, waits)


def _creates(words: _Words, place: int) -> Iterator[Lock]:
    head = words[place : place + 5]
    is_index = "index" in head and "table" not in head
    if is_index and "concurrently" not in head and words.has_from("on", place):
        name, _ = _name(words, words.next_of("on", place) + 1)
        if name:
            yield Lock(Mode.SHARED_TABLE, name)


def _defines(words: _Words, place: int) -> Iterator[Lock]:
    head = words[place : min(words.next_of(";", place), place + 6)]
    kind = next((one for one in ("table", "view", "full", "cluster") if one in head), "")
    if kind and "concurrently" not in head:
        name, _ = _name(words, place + head.index(kind) + 1)
        if name:
            yield Lock(Mode.TABLE, name)


def _name(words: _Words, place: int) -> tuple[tuple[str, ...], int]:
    # A table's name, its last part first, and the place behind it; none where no name begins.
    fillers = words[place : place + _MOST_FILLERS]
    place += next((at for at, word in enumerate(fillers) if word not in _FILLERS), len(fillers))
    parts: list[str] = []
    while _is_name(words[place]):
        parts.append(words[place].lstrip("\0"))
        place += 1
        if words[place] != ".":
            break
        place += 1
    if words[place] == "(" and words.verbs[place] in ("from", "join"):
        return (), place  # a function; ``insert into t (a, b)`` has columns
    return tuple(reversed(parts)), place


def _names(words: _Words, place: int) -> Iterator[tuple[str, ...]]:
    while True:
        name, place = _name(words, place)
        if name:
            yield name
        if not name or words[place] != ",":
            return
        place += 1


def _is_name(word: str) -> bool:
    return word[0] == "\0" or (word not in _NOT_A_NAME and (word[0].isalpha() or word[0] == "_"))


_STATEMENTS: Final = {
    **dict.fromkeys(("update", "delete", "insert", "merge", "replace"), _changes),
    **dict.fromkeys(("alter", "drop", "reindex", "cluster", "refresh", "vacuum"), _defines),
    "truncate": _truncates,
    "create": _creates,
    "lock": _locked,
}
