"""
What is a comment, a string, a name, a parameter and a number in SQL; databases differ.

Where a database's syntax depends on a setting of the server's (backslashes in MySQL), the default counts. Where the
database is not known, whatever may be a literal counts as one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

#: A comment. One that is not closed goes to the end.
COMMENT: Final = r"--[^\n]*(?:\n|\Z)|/\*(?:[^*]|\*(?!/))*(?:\*/|\Z)"
# PostgreSQL and SQL Server nest them. Regular expressions cannot count: deeper than that the rest is swallowed.
_NESTED: Final = (
    r"--[^\n]*|"
    + r"/\*(?:[^*/]|\*(?!/)|/(?!\*)|" * 3
    + r"/\*(?:[^*/]|\*(?!/)|/(?!\*))*(?:\*/|\Z)"
    + r")*(?:\*/|\Z)" * 3
    + r"|/\*.*\Z"
)
_DASHES_AND_SPACE: Final = r"--(?:\s[^\n]*|\Z)|\#[^\n]*|/\*.*?(?:\*/|\Z)"

_QUOTED: Final = r"'(?:[^']|'')*(?:'|\Z)"
_ESCAPED: Final = r"'(?:[^'\\]|''|\\(?:.|\Z))*(?:'|\Z)"
# Whether a backslash escapes is not known: behind one the string may end or not.
_DOUBTFUL: Final = r"'(?:[^'\\]|'')*(?:'|\\.*\Z|\Z)"
_DOLLAR: Final = r"(?<![\w$])\$(?P<tag>[^\W\d]\w*|)\$.*?(?:\$(?P=tag)\$|\Z)"
_ORACLE: Final = (
    r"[nN]?[qQ]'(?:\[.*?(?:\]'|\Z)|\{.*?(?:\}'|\Z)|\(.*?(?:\)'|\Z)|<.*?(?:>'|\Z)|(?P<mark>\S).*?(?:(?P=mark)'|\Z))"
)

_DOUBLE: Final = r'"(?:[^"]|"")*"'
# No longer than names are: each bracket that is not closed would have the whole rest looked at.
_BRACKETS: Final = r"\[[^\]]{0,200}(?:\]\][^\]]{0,200}){0,5}\]"
# In SQLite "text" is a string where no column has that name: a name is what only a name can be.
_SQLITE_NAME: Final = (
    r'(?i:(?<=\.)|(?<=from )|(?<=join )|(?<=into )|(?<=update )|(?<=table )|(?<=as )|(?<=savepoint ))"(?:[^"]|"")*"'
    r'|"(?:[^"]|"")*"(?=\s*\.\s*["\w*])'
)

_PARAMETER: Final = r"%(?:\([^)]*\))?[sbt]\b|\$\d+|(?<![:\w?]):[^\W\d]\w*|@\w+|\?"
# A sign belongs to the number unless something stands before it that it could subtract from.
_NUMBER: Final = r"(?<!\w)[-+]?\.?\d(?:[eE][-+](?=\d)|[\w.])*"

# Where any of these may begin; asked first, since it rejects most characters at a tenth of the cost.
_POSSIBLE: Final = r"(?=[-/#'\"`\[$%:@?\d.+]|[a-zA-Z]['&])"


def _pattern(comment: str, string: str, name: str) -> re.Pattern[str]:
    # The order matters: a quote inside a comment is no string, and the other way round.
    return re.compile(
        rf"{_POSSIBLE}(?:(?P<comment>{comment})|(?P<name>{name})|(?P<string>{string})|(?P<parameter>{_PARAMETER})"
        rf"|(?P<number>{_NUMBER}))",
        re.DOTALL,
    )


def _doubled(string: str) -> str:
    return string.replace("'", '"')


_POSTGRESQL: Final = (
    _NESTED,
    rf"[eE]{_ESCAPED}(?:\s*\n\s*{_ESCAPED})*|(?:[bBnNxX]|[uU]&)?{_QUOTED}|{_DOLLAR}",
    _DOUBLE,
)
_MYSQL: Final = (_DASHES_AND_SPACE, rf"[bBnNxX]?{_ESCAPED}|{_doubled(_ESCAPED)}", r"`[^`]*`")
_SYNTAX: Final = {
    "postgresql": _POSTGRESQL,
    "cockroachdb": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "sqlite": (COMMENT, rf"[xX]?{_QUOTED}|{_doubled(_QUOTED)}", rf"{_SQLITE_NAME}|`[^`]*`|{_BRACKETS}"),
    "oracle.db": (COMMENT, rf"{_ORACLE}|[nN]?{_QUOTED}", _DOUBLE),
    "microsoft.sql_server": (_NESTED, rf"[nN]?{_QUOTED}", rf"{_DOUBLE}|{_BRACKETS}"),
}
_UNKNOWN: Final = (_NESTED, rf"{_DOUBTFUL}|{_doubled(_DOUBTFUL)}|{_DOLLAR}", r"`[^`]*`")


@lru_cache(maxsize=32)
def tokens_of(system: str) -> re.Pattern[str]:
    """
    A pattern for all that is not plain text in a database's SQL.

    Args:
        system: The database, as the semantic conventions name it.

    Returns:
        The pattern. The name of its last matching group is ``comment``, or one of the groups ``name``, ``string``,
        ``parameter`` and ``number`` matches.
    """
    return _pattern(*_SYNTAX.get(system, _UNKNOWN))
