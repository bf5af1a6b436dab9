"""
Of a statement's literals, passwords and users nothing is in what leaves the process; the server says what they are.

Each statement has markers in all of its literals. PostgreSQL, MariaDB and SQLite say whether they read it as it is
meant: they answer with the markers, or parse it. For Oracle and SQL Server the grammar counts.
"""

from __future__ import annotations

import contextlib
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from examples.lab import mariadb as maria
from poolscope.core.sql.fingerprint import LONGEST, analyse, summary_of
from poolscope.core.sql.locking import locks_of
from tests.support.lexers import NoServer, SQLiteLexer, mariadb_lexer, postgres_lexer
from tests.support.scale import times
from tests.support.seeds import seed_of_run
from tests.support.skips import require
from tests.support.statements import leaks, made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.mariadb import MariaDB
    from examples.lab.postgres import Postgres
    from tests.support.lexers import Server
    from tests.support.statements import Statement

#: Statements that are verified, of all servers.
ALL = times(3_000, whole=1_000_000)
#: So many in a round trip.
BATCH = times(150, whole=500)


class Way(NamedTuple):
    """
    One server with one setting.

    Args:
        system: The database, as the semantic conventions name it.
        escapes: Whether a backslash escapes in plain strings.
        doubles: Whether double quotes make strings.
        mode: The sql_mode.
        share: Its part of all statements.
    """

    system: str
    escapes: bool = False
    doubles: bool = False
    mode: str = ""
    share: float = 0.1


#: By what they are called in the tests' names.
WAYS = {
    "postgresql": Way("postgresql", share=0.3),
    "postgresql with backslashes": Way("postgresql", escapes=True),
    "mariadb": Way("mariadb", escapes=True, doubles=True, share=0.2),
    "mariadb without backslashes": Way("mariadb", doubles=True, mode="NO_BACKSLASH_ESCAPES", share=0.05),
    "mariadb with quoted names": Way("mariadb", escapes=True, mode="ANSI_QUOTES", share=0.05),
    "sqlite": Way("sqlite", share=0.2),
    "oracle": Way("oracle.db", share=0.05),
    "sql server": Way("microsoft.sql_server", share=0.05),
}


@pytest.fixture(scope="module")
def mariadb() -> Iterator[MariaDB]:
    """A MariaDB for the tests of this file."""
    absent = maria.missing()
    require(absent is None, f"{absent}", "apt-get install mariadb-server")
    with maria.mariadb() as server:
        yield server


@contextlib.contextmanager
def server_of(way: Way, request: pytest.FixtureRequest) -> Iterator[Server]:
    """Who verifies the statements."""
    with contextlib.ExitStack() as stack:
        if way.system == "postgresql":
            database: Postgres = request.getfixturevalue("database")
            yield stack.enter_context(postgres_lexer(database, standard=not way.escapes))
        elif way.system == "mariadb":
            server: MariaDB = request.getfixturevalue("mariadb")
            yield stack.enter_context(mariadb_lexer(server, way.mode))
        elif way.system == "sqlite":
            yield stack.enter_context(contextlib.closing(SQLiteLexer()))
        else:
            yield NoServer()


def leaves_process(text: str, system: str) -> str:
    """All that is made of a statement, and that findings, metrics and spans carry."""
    shape = analyse(text, system).text
    return "\n".join([shape, summary_of(shape), *(lock.name for lock in locks_of(text, system))])


def problems_of(statement: Statement, way: Way, chance: random.Random) -> Iterator[str]:
    """What is wrong with what leaves the process of a statement."""
    texts = [statement.text]
    if chance.random() < 0.02 and not way.escapes:
        # Cut by ourselves, at any place; or by somebody else, where the server's settings are the default ones.
        padding = "x" * (LONGEST - chance.randrange(20, len(statement.text) + 20))
        texts.append(f"select '{padding}',{statement.text[6:]}" if statement.runs else statement.text)
    if chance.random() < 0.1 and way.mode == "" and (way.system != "postgresql" or not way.escapes):
        texts.append(statement.text[: chance.randrange(len(statement.text))])
    for text in texts:
        if leaked := leaks(leaves_process(text, way.system), statement.markers):
            yield f"{leaked} of {text!r}: {leaves_process(text, way.system)!r}"
    shape = analyse(statement.text, way.system).text
    if not in_doubt(statement) and (lost := [name for name in statement.kept if name not in shape]):
        yield f"{lost} not in the fingerprint of {statement.text!r}: {shape!r}"


def in_doubt(statement: Statement) -> bool:
    """Whether servers read a statement in more than one way, so that less may stay of it."""
    return "\\" in statement.text or "/*M!" in statement.text


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.reliability(
    fault="literals, passwords and user names in SQL, in every notation that the database reads",
    application="the same: statements are not changed",
    lost="nothing; of a statement that cannot be read for certain, the fingerprint ends with the first such literal",
)
def test_no_literal_leaves_the_process(name: str, request: pytest.FixtureRequest, record_property: Any) -> None:
    """Not four characters of one, nor of a user's name, whatever the server takes for one; tables and columns do."""
    way = WAYS[name]
    chance = random.Random(f"{seed_of_run()} {name}")
    wanted = round(ALL * way.share)
    verified = tried = 0
    problems: list[str] = []
    with server_of(way, request) as server:
        while verified < wanted:
            forms = [chance.getrandbits(60) for _ in range(BATCH)]
            batch = [
                made(way.system, form, chance.getrandbits(60), escapes=way.escapes, doubles=way.doubles)
                for form in forms
            ]
            answers = server.verify(batch)
            tried += len(batch)
            for form, statement, is_meant in zip(forms, batch, answers, strict=True):
                if not is_meant:
                    continue
                verified += 1
                problems += problems_of(statement, way, chance)
                again = made(way.system, form, chance.getrandbits(60), escapes=way.escapes, doubles=way.doubles)
                one, two = (analyse(each.text, way.system).text for each in (statement, again))
                if in_doubt(statement) or in_doubt(again):
                    continue
                if one != two and server.verify([again]) == [True]:
                    problems.append(f"not the same: {statement.text!r} {again.text!r}: {one!r} {two!r}")
            assert not problems, f"{len(problems)} of {verified}:\n" + "\n".join(problems[:5])
            assert verified > tried / 3, f"the server reads {verified} of {tried} as they are meant"
    record_property("statements", f"{verified} verified of {tried}")
