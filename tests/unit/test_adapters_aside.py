"""How to connect to a server beside a pool: by what is plain, and by nothing else."""

from __future__ import annotations

import ssl
import sys
import types
from typing import Any

import pytest

from poolscope.adapters.aside import opener


class Driver(types.ModuleType):
    """A driver that says how it was called."""

    def connect(self, *args: Any, **kwargs: Any) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        return self.__name__, args, kwargs


@pytest.fixture(autouse=True)
def _drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("psycopg", "pymysql"):
        monkeypatch.setitem(sys.modules, name, Driver(name))


AT: dict[str, Any] = {"connect_timeout": 1, "application_name": "poolscope"}


@pytest.mark.parametrize(
    ("given", "args", "kwargs"),
    [
        (["host=db dbname=shop", None], ("host=db dbname=shop",), {}),
        (["", {"host": "db", "password": "p", "row_factory": object()}], ("",), {"host": "db", "password": "p"}),
        ([[], {"dsn": "postgres://db/shop", "command_timeout": 60, "ssl": None}], ("postgres://db/shop",), {}),
        ({"host": ["db"], "database": "shop", "port": 5432, "ssl": "require"}, (), {
            "host": "db", "dbname": "shop", "port": 5432, "sslmode": "require"
        }),
    ],
)  # fmt: skip
def test_a_login_for_libpq(given: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """With a timeout and a name of its own, and without what only the pool's library understands."""
    connect = opener("postgresql", given)
    assert connect is not None
    assert connect() == ("psycopg", args, {**kwargs, **AT})


def test_a_login_for_mysql() -> None:
    """The other way to write a key is understood."""
    connect = opener(
        "mysql", [{"host": "db", "user": "u", "passwd": "p", "db": "shop", "autocommit": True, "ssl_disabled": True}]
    )
    assert connect is not None
    expected = {"host": "db", "user": "u", "password": "p", "database": "shop"}
    assert connect() == ("pymysql", (), {**expected, "connect_timeout": 1, "read_timeout": 1, "write_timeout": 1})


@pytest.mark.parametrize(
    ("system", "given"),
    [
        ("postgresql", {"host": "db", "password": lambda: "p"}),
        ("postgresql", {"host": ["a", "b"]}),
        ("postgresql", {"host": "db", "ssl": ssl.create_default_context()}),
        ("postgresql", lambda: "host=db"),
        ("postgresql", []),
        ("mysql", {"host": "db", "ssl": {"ca": "x"}}),
        ("mysql", {"db": "shop", "read_default_file": "/etc/my.cnf"}),
        ("mysql", ["db", "user", "password", "shop"]),
        ("sqlite", {"database": "x"}),
        ("oracle.db", ["dsn", "user"]),
    ],
)
def test_what_is_not_plain_is_no_login(system: str, given: Any) -> None:
    """A function of the application's is not called, TLS is not left out, and no other server is asked instead."""
    assert opener(system, given) is None
