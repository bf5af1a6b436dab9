"""Which exceptions say that a server accepts no further connection, and whose limit it was; and which do not."""

from __future__ import annotations

import pytest

from poolscope.adapters.refusals import refusal_of
from poolscope.core.refusal import LIMITS

_LIBPQ = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: FATAL:  '


def error(module: str, *args: object, **attributes: object) -> Exception:
    """An exception as a driver makes it."""
    made: Exception = type("OperationalError", (Exception,), {"__module__": module, **attributes})(*args)
    return made


def caused(inner: Exception, outer: Exception) -> Exception:
    """An exception raised from another."""
    outer.__cause__ = inner
    return outer


REFUSED = {
    "psycopg, of the server": (
        error("psycopg", f"{_LIBPQ}sorry, too many clients already", sqlstate=None),
        ("53300", "server"),
    ),
    "psycopg2, of the role": (
        error("psycopg2", 'FATAL:  too many connections for role "shop"\n', pgcode=None),
        ("53300", "role"),
    ),
    "psycopg2, of the database": (
        error("psycopg2", 'FATAL:  too many connections for database "shop"\n', pgcode=None),
        ("53300", "database"),
    ),
    "reserved, before PostgreSQL 16": (
        error("psycopg", f"{_LIBPQ}remaining connection slots are reserved for non-replication superuser connections"),
        ("53300", "reserved"),
    ),
    "reserved, since": (
        error("psycopg", f"{_LIBPQ}remaining connection slots are reserved for roles with the SUPERUSER attribute"),
        ("53300", "reserved"),
    ),
    "asyncpg": (
        error("asyncpg.exceptions", 'too many connections for role "shop"', sqlstate="53300"),
        ("53300", "role"),
    ),
    "in the server's language, with a code": (
        error("asyncpg.exceptions", "tut mir leid, schon zu viele Verbindungen", sqlstate="53300"),
        ("53300", "server"),
    ),
    "pg8000": (
        error("pg8000.exceptions", {"S": "FATAL", "C": "53300", "M": "sorry, too many clients already"}),
        ("53300", "server"),
    ),
    "Django": (
        caused(error("psycopg", f'{_LIBPQ}too many connections for role "shop"'), error("django.db.utils", "failed")),
        ("53300", "role"),
    ),
    "PgBouncer": (
        error("psycopg", f"{_LIBPQ}no more connections allowed (max_client_conn)"),
        ("53300", "pooler"),
    ),
    "PgBouncer, of a user": (
        error("asyncpg.exceptions", "client connections exceeded (max_user_client_connections)", sqlstate="08P01"),
        ("53300", "pooler"),
    ),
    "Supavisor": (error("psycopg", f"{_LIBPQ}Max client connections reached"), ("53300", "pooler")),
    "pymysql": (error("pymysql.err", 1040, "Too many connections"), ("1040", "server")),
    "mysqlclient, of the user": (error("MySQLdb", 1203, "User shop already has more than"), ("1203", "role")),
    "mysql-connector": (
        error("mysql.connector.errors", "1226 (42000): User has exceeded", errno=1226),
        ("1226", "role"),
    ),
    "oracledb, its listener": (
        error("oracledb.exceptions", "ORA-12516: TNS:listener could not find available handler"),
        ("ORA-12516", "server"),
    ),
    "oracledb, processes": (
        error("oracledb.exceptions", "ORA-00020: maximum number of processes (100) exceeded"),
        ("ORA-00020", "server"),
    ),
    "oracledb, of the user": (
        error("oracledb.exceptions", "ORA-02391: exceeded simultaneous SESSIONS_PER_USER limit"),
        ("ORA-02391", "role"),
    ),
}

OTHERS = {
    "no server": OSError(111, "Connection refused"),
    "a starting server": error("psycopg", f"{_LIBPQ}the database system is starting up", sqlstate="57P03"),
    "a wrong password": error("psycopg", f'{_LIBPQ}password authentication failed for user "shop"', sqlstate=None),
    "PgBouncer's queue": error("psycopg", f"{_LIBPQ}query_wait_timeout"),
    "a statement": error("asyncpg.exceptions", "relation does not exist", sqlstate="42P01"),
    "another library's number": error("redis.exceptions", 1040, "Too many connections"),
    "MySQL's other numbers": error("pymysql.err", 1045, "Access denied"),
    "Oracle's other errors": error("oracledb.exceptions", "ORA-12514: TNS:listener does not know of service"),
    "nothing": error("psycopg"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_server_that_has_too_many_connections_is_recognised(name: str) -> None:
    """By the code where the driver gives one, else by the text; with whose limit it was, which is a known one."""
    given, expected = REFUSED[name]
    assert refusal_of(given) == expected
    assert expected[1] in LIMITS


@pytest.mark.parametrize("name", OTHERS)
def test_what_fails_otherwise_is_no_refusal(name: str) -> None:
    """A server that is down, that starts, or that does not accept the password."""
    assert refusal_of(OTHERS[name]) is None


def test_an_earlier_failure_that_is_handled_does_not_count() -> None:
    """An application tries again after a refusal: the next failure is its own."""
    second = OSError(111, "Connection refused")
    second.__context__ = REFUSED["asyncpg"][0]
    assert refusal_of(second) is None


def test_a_chain_without_an_end_is_given_up() -> None:
    """Exceptions may refer to each other."""
    first, second = error("psycopg"), error("psycopg")
    first.__cause__, second.__cause__ = second, first
    assert refusal_of(first) is None


def test_every_limit_is_reached_by_something() -> None:
    """None is described that is never found."""
    assert {limit for _, (_, limit) in REFUSED.values()} == set(LIMITS)
