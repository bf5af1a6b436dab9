"""
What databases read as a comment, a string, a name, a parameter and a number, each in its own way.

Every pattern matches at any place of a text, and no part of it fails after it took much, which would then be tried in
every way: a statement is read once, from its beginning to its end.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

# A character above 127 is part of a name in each of them, also where Unicode calls it a sign or a space.
_START: Final = r"A-Za-z_\x80-\U0010FFFF"
_PART: Final = rf"{_START}0-9$"

# What stands between a string's quotes, and what a backslash escapes. The pattern ends before the quote that closes.
_SINGLE: Final = r"'(?:[^']+|'')*"
_DOUBLE: Final = r'"(?:[^"]+|"")*'
_BACKTICKS: Final = r"`(?:[^`]+|``)*"
_SINGLE_ESCAPED: Final = r"'(?:[^'\\]+|''|\\(?:.|\Z))*"
_DOUBLE_ESCAPED: Final = r'"(?:[^"\\]+|""|\\(?:.|\Z))*'
# A string in PostgreSQL goes on where another one begins on a further line; comments may stand between.
# https://www.postgresql.org/docs/current/sql-syntax-lexical.html
_GOES_ON: Final = r"'[ \t\f\v]*(?:--[^\n\r]*)?[\n\r](?:[ \t\n\r\f\v]|--[^\n\r]*[\n\r])*"
_GOING_ON: Final = rf"{_SINGLE_ESCAPED}(?:{_GOES_ON}{_SINGLE_ESCAPED})*"

# A name, or a string where no column has that name (SQLite) or QUOTED_IDENTIFIER is off (SQL Server).
_DOUBTFUL: Final = rf'(?P<doubtful>{_DOUBLE}(?P<closed_doubtful>")?)|'

# A client's placeholders, which the server does not see. In quotes there is none.
_FORMATTED: Final = r"%(?:\([^)'\"`]{0,63}\))?[sbt]\b"
_COLON: Final = r"(?<![:\w?]):[^\W\d]\w*"

#: The beginning of what some servers execute and others take for a comment. Where there are more kinds than that in a
#: statement, it is not known how one reads it.
EXECUTED: Final = re.compile(r"/\*M?!\d{0,9}")
MOST_VERSIONS: Final = 3
_IN_DOUBT: Final = 50_700
_NO_VERSION: Final = 200_000
_ANY_DEPTH: Final = 1_000_000

# Before which a string has escapes, whatever the settings: bytes, too, in CockroachDB.
_ESCAPED: Final = {"postgresql": "eE", "cockroachdb": "eEbB"}
# The letters that make another string of the one that they stand before.
_LETTERS: Final = {
    "postgresql": r"[eEbBnNxX]'|[uU]&['\"]",
    "mysql": r"[bBnNxX]'",
    "sqlite": r"[xX]'",
    "oracle.db": r"[nN]?[qQ]'|[nN]'",
    "microsoft.sql_server": r"[nN]['\"]",
}


class Syntax(NamedTuple):
    """
    One way to read SQL.

    Args:
        pattern: Matches plain text, as much as there is, and what follows it: the name of the last group says what
            that is. In a string, a name, and a name that may be a string, the group ``closed``, with a number, matches
            the quote that ends it.
        nests: How deep a comment may lie in a comment.
        executes: The beginnings of comments, such as ``/*!50000``, in which a quote may hide the end of the comment,
            for the server executes what is in them.
        doubts_names: Whether a text in double quotes is a string where it is no name, or where a setting says so.
    """

    pattern: re.Pattern[str]
    nests: int = 1
    executes: frozenset[str] = frozenset()
    doubts_names: bool = False


def syntaxes_of(system: str, text: str) -> tuple[Syntax, ...]:
    """
    How a database may read a text: more than one way where that depends on a setting of the server's, or the database
    is not known.

    Args:
        system: The database, as the semantic conventions name it.
        text: The text; what it does not hold is not in doubt.

    Returns:
        The syntaxes. The first is that of a server with its default settings.
    """
    versions = versions_of(text)
    families = [_FAMILIES[system]] if system in _FAMILIES else _EACH
    found: list[Syntax] = []
    for family in families:
        found += _syntaxes(family, "\\" in text, "\r" in text, versions)
    return tuple(found)


def versions_of(text: str) -> frozenset[str]:
    """The beginnings of all comments that a server may execute."""
    if "/*!" not in text and "/*M!" not in text:
        return frozenset()
    return frozenset(each for each in EXECUTED.findall(text) if _version(each) < _NO_VERSION)


def _version(opening: str) -> int:
    return int("0" + opening.partition("!")[2])


def _is_executed(opening: str) -> bool:
    # https://mariadb.com/kb/en/comment-syntax/: MariaDB leaves out what is for MySQL from 5.7 on.
    return opening.startswith("/*!") and _version(opening) < _IN_DOUBT


@lru_cache(maxsize=64)
def _syntaxes(family: str, escapes: bool, returns: bool, versions: frozenset[str]) -> tuple[Syntax, ...]:
    if family in _ESCAPED:
        # All strings may have escapes where standard_conforming_strings is off.
        settings = (True, False) if escapes else (True,)
        return tuple(_postgresql(_ESCAPED[family], standard=standard) for standard in settings)
    if family == "mysql":
        # NO_BACKSLASH_ESCAPES, ANSI_QUOTES.
        quotes = [(_SINGLE_ESCAPED, _DOUBLE_ESCAPED)]
        if escapes:
            quotes += [(_SINGLE, _DOUBLE), (_SINGLE_ESCAPED, _DOUBLE)]
        # A server executes those of some versions; of the others, MariaDB lets one comment lie in another.
        sure = frozenset(each for each in versions if _is_executed(each))
        subsets = [sure]
        for each in versions.difference(sure):
            subsets += [one.union((each,)) for one in subsets]
        ways = [(runs, nests) for runs in reversed(subsets) for nests in ((1, 2) if versions else (1,))]
        return tuple(_mysql(*pair, bool(versions), runs, nests) for pair in quotes for runs, nests in ways)
    if family == "sqlite":
        return (_sqlite(),)
    make = {"oracle.db": _oracle, "microsoft.sql_server": _sql_server}[family]
    return tuple(make(end) for end in (["\n", "\n\r"] if returns else ["\n"]))


def _pattern(
    family: str,
    comment: str,
    string: str,
    name: str,
    parameter: str,
    *,
    more: str = "",
    part: str = "",
    special: str = "",
    whole: str = "",
    number: str = r"[\w.]",
) -> re.Pattern[str]:
    letters = _LETTERS[family]
    # What cannot begin anything else, and whole words; a sign or a dot where nothing follows that makes it more.
    plain = (
        rf"(?:[^{_PART}'\"`\-+./%:?\[#@\\\0{special}]+|(?!{letters})[{_START}][{_PART}{part}]*"
        rf"|[-+](?![-+.\d])|{whole}\.(?!\d)|/(?!\*)|::)*"
    )
    digits = rf"[-+]?\.?\d(?:[eE][-+](?=\d)|{number})*"
    return re.compile(
        rf"(?P<plain>{plain})(?:(?P<comment>{comment})|(?P<block>/\*)|{more}"
        rf"(?P<string>(?:{string})(?P<closed_string>['\"])?)|(?P<name>(?:{name})(?P<closed_name>[\"`\]])?)"
        rf"|(?P<parameter>{parameter})|(?P<number>(?:(?<!\w)|(?![-+])){digits})|(?P<backslash>\\)|(?P<other>.)|\Z)",
        re.DOTALL,
    )


def _postgresql(escaped: str, *, standard: bool) -> Syntax:
    quoted = _SINGLE if standard else _GOING_ON
    string = rf"[{escaped}]{_GOING_ON}|[bBxX]{_SINGLE}|[uU]&{_SINGLE}|[nN]?{quoted}"
    tag = rf"(?P<dollars>\$(?:[{_START}][{_START}0-9]*)?\$)|"
    parameter = rf"{_FORMATTED}|\$\d+|{_COLON}|\?"
    name = rf"(?:[uU]&)?{_DOUBLE}"
    # A letter before a quote belongs to the quote, up to version 14.
    number = rf"(?!{_LETTERS['postgresql']})[\w.]"
    pattern = _pattern("postgresql", r"--[^\n\r]*", string, name, parameter, more=tag, number=number)
    return Syntax(pattern, nests=_ANY_DEPTH)


def _mysql(single: str, double: str, ends: bool, executes: frozenset[str], nests: int) -> Syntax:
    comment = r"--(?=[\0-\x20\x7f]|\Z)[^\n]*|\#[^\n]*"
    string = rf"[bBxX]{_SINGLE}|[nN]?{single}|{double}"
    parameter = rf"{_FORMATTED}|{_COLON}|@\w+|\?"
    pattern = _pattern(
        "mysql", comment, string, _BACKTICKS, parameter,
        more=r"(?P<null>\\N)|" + (r"(?P<ends>\*/)|" if ends else ""), special="*" if ends else "",
        whole=rf"\.[{_START}][{_PART}]*|",
    )  # fmt: skip
    return Syntax(pattern, nests, executes)


def _sqlite() -> Syntax:
    # https://www.sqlite.org/c3ref/bind_blob.html, and Tcl's variables.
    variable = rf"[$@#:](?:[{_PART}]|::)+(?:\([^ \t\n\r\f\v)]*\)?)?"
    parameter = rf"{_FORMATTED}|(?<![:\w?]){variable}|\?"
    pattern = _pattern(
        "sqlite", r"--[^\n]*", rf"[xX]?{_SINGLE}", rf"{_BACKTICKS}|\[[^\]]*", parameter,
        more=_DOUBTFUL,
    )  # fmt: skip
    return Syntax(pattern, doubts_names=True)


def _oracle(end: str) -> Syntax:
    parameter = rf"{_FORMATTED}|{_COLON}|@\w+|\?"
    pattern = _pattern(
        "oracle.db", rf"--[^{end}]*", rf"[nN]?{_SINGLE}", _DOUBLE, parameter,
        more=r"(?P<marked>[nN]?[qQ]'[^ \t\r\n])|", part="#",
    )  # fmt: skip
    return Syntax(pattern)


def _sql_server(end: str) -> Syntax:
    # Money; and a backslash before the end of a line, which goes on with the number.
    parameter = rf"{_FORMATTED}|{_COLON}|@\w+|\$\d[\d.]*|\?"
    pattern = _pattern(
        "microsoft.sql_server", rf"--[^{end}]*", rf"[nN]?{_SINGLE}", r"\[(?:[^\]]+|\]\])*", parameter,
        more=_DOUBTFUL, part="#", number=r"(?:[\w.]|\\\r?\n)",
    )  # fmt: skip
    return Syntax(pattern, nests=_ANY_DEPTH, doubts_names=True)


_FAMILIES: Final = {
    "postgresql": "postgresql",
    "cockroachdb": "cockroachdb",
    "mysql": "mysql",
    "mariadb": "mysql",
    "sqlite": "sqlite",
    "oracle.db": "oracle.db",
    "microsoft.sql_server": "microsoft.sql_server",
}
_EACH: Final = ("postgresql", "mysql", "oracle.db", "sqlite", "microsoft.sql_server")
#: The databases whose SQL is known.
SYSTEMS: Final = frozenset(_FAMILIES)
