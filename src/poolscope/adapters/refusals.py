"""
Whether a server refuses a connection since it has too many, by the exception of a connect.

Most drivers give the server's code. libpq gives its text alone while it connects, in the server's language: of that,
English is recognised; what is not, counts as a connect that failed. Nothing of the text is kept: it may name the role.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from poolscope.core.failure import texts_of

if TYPE_CHECKING:
    from collections.abc import Iterator

# PostgreSQL's too_many_connections (Appendix A, "PostgreSQL Error Codes"). Poolers use it too.
_SQLSTATE: Final = "53300"
# Whose limit -> the words of PostgreSQL (postmaster.c, postinit.c, proc.c) and of poolers: PgBouncer, Supavisor,
# Odyssey. A wait for a server connection that ends (``query_wait_timeout``) is none of these.
_TEXTS: Final = {
    "role": re.compile(r"too many connections for (?:role|user)\b"),
    "database": re.compile(r"too many connections for database\b"),
    "reserved": re.compile(r"remaining connection slots are reserved"),
    "pooler": re.compile(
        r"no more connections allowed|\bmax_(?:client_conn|db_client_connections|user_client_connections)\b"
        r"|[Mm]ax client(?: connection)?s reached|too many tcp connections"
    ),
    "server": re.compile(r"sorry, too many clients already"),
}
# ER_CON_COUNT_ERROR, ER_TOO_MANY_USER_CONNECTIONS, ER_USER_LIMIT_REACHED (MySQL's and MariaDB's error references).
_NUMBERS: Final = {1040: "server", 1203: "role", 1226: "role"}
_OF_MYSQL: Final = frozenset(("pymysql", "MySQLdb", "mysql", "aiomysql", "asyncmy", "mariadb"))
# Maximum numbers of sessions, processes, and sessions per user; the listener has no handler left.
_ORACLE: Final = re.compile(r"\bORA-(?:000(?:18|20)|02391|125(?:16|19|20))\b")
# Exceptions that are looked at, from the outermost to what it was raised from; characters of each text.
_DEPTH: Final = 6
_LONGEST: Final = 2_000


def refusal_of(error: BaseException) -> tuple[str, str] | None:
    """
    The refusal that an exception of a connect or of a checkout stands for.

    Returns:
        The server's code, and whose limit was reached (a key of `LIMITS`); None where it is something else.
    """
    for each in _chain(error):
        found = _by_code(each) or _by_text(each)
        if found is not None:
            return found
    return None


def _chain(error: BaseException) -> Iterator[BaseException]:
    step: BaseException | None = error
    for _ in range(_DEPTH):
        if step is None:
            return
        yield step
        step = step.__cause__  # not its context: that may be an earlier failure which the application handles


def _by_code(error: BaseException) -> tuple[str, str] | None:
    first = error.args[0] if error.args else None
    # asyncpg and psycopg; psycopg2; pg8000.
    code = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    code = code or (first.get("C") if isinstance(first, dict) else None)
    if code == _SQLSTATE:
        return _SQLSTATE, _limit_in(_text(error)) or "server"
    number = getattr(error, "errno", first)
    if type(number) is int and number in _NUMBERS and type(error).__module__.partition(".")[0] in _OF_MYSQL:
        return str(number), _NUMBERS[number]
    return None


def _by_text(error: BaseException) -> tuple[str, str] | None:
    if isinstance(error, OSError):  # no server has answered
        return None
    text = _text(error)
    limit = _limit_in(text)
    if limit is not None:
        return _SQLSTATE, limit
    of_oracle = _ORACLE.search(text)
    return (of_oracle[0], "role" if of_oracle[0] == "ORA-02391" else "server") if of_oracle is not None else None


def _text(error: BaseException) -> str:
    return "\n".join(text[:_LONGEST] for text in texts_of(error))


def _limit_in(text: str) -> str | None:
    return next((limit for limit, words in _TEXTS.items() if words.search(text)), None)
