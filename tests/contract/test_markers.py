"""No part of a login leaves: of an address only what is one without doubt, whatever a library was given."""

from __future__ import annotations

import asyncio
import importlib
import sqlite3
from dataclasses import dataclass
from inspect import signature
from ipaddress import IPv6Address
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import poolscope
from poolscope.adapters.address import TORN, file_of, place
from poolscope.adapters.django_state import Alias
from poolscope.names import safe
from tests.support.markers import DATABASE, HOST, LOGINS, PORT, Login, odd, secrets_in, torn
from tests.support.scale import times
from tests.support.watched import watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool_identity import Identity

EXAMPLES = times(15, whole=3_000)


@dataclass(frozen=True)
class Way:
    """
    One way in which an application makes a pool.

    Args:
        adapter: Whose pool it is.
        make: Makes it of a login; it raises what the library, or `urllib`, says to a malformed one.
        needs: The module that must be there.
        finds: What is found of a well-formed login: the address, the port, the database.
        by_name: Whether the application passes the parts by name, which it has read of the URL by itself.
    """

    adapter: str
    make: Callable[[Login, bool], Any]
    needs: str
    finds: tuple[str | None, int | None, str | None] = (HOST, PORT, DATABASE)
    by_name: bool = False


def _psycopg_pool(conninfo: Any, **options: Any) -> Any:
    return importlib.import_module("psycopg_pool").ConnectionPool(
        conninfo, min_size=0, max_size=1, open=False, **options
    )


def _psycopg2(*args: Any, **options: Any) -> Any:
    return importlib.import_module("psycopg2.pool").SimpleConnectionPool(0, 1, *args, **options)


def _asyncpg(*args: Any, **options: Any) -> Any:
    return importlib.import_module("asyncpg").create_pool(*args, min_size=0, max_size=1, loop=LOOP, **options)


def _aiopg(dsn: str, **options: Any) -> Any:
    more = {"enable_json": False, "enable_hstore": False, "enable_uuid": False, "echo": False, "on_connect": None}
    kind = importlib.import_module("aiopg.pool").Pool

    async def make() -> Any:
        return kind(dsn, 0, 1, 1.0, pool_recycle=-1, **more, **options)

    return LOOP.run_until_complete(make())


def _aiomysql(**options: Any) -> Any:
    return importlib.import_module("aiomysql.pool").Pool(0, 1, False, -1, LOOP, **options)


def _connector(**options: Any) -> Any:
    pooling = importlib.import_module("mysql.connector.pooling")

    class Unconnected(pooling.MySQLConnectionPool):  # type: ignore[misc, name-defined]
        def add_connection(self, _: Any = None) -> None:
            pass

    return Unconnected(pool_size=1, **options)


def _engine(url: Any, **options: Any) -> Any:
    return importlib.import_module("sqlalchemy").create_engine(url, **options).pool


def _made_url(url: str) -> Any:
    made = importlib.import_module("sqlalchemy.engine").make_url(url)
    return _engine(made.set(drivername="postgresql+psycopg2"))


def _peewee(url: str) -> Any:
    return importlib.import_module("playhouse.db_url").connect(url)


def _peewee_kind(kind: str, *args: Any, **options: Any) -> Any:
    return getattr(importlib.import_module("playhouse.pool"), kind)(*args, **options)


def _dbutils(creator: Any, *args: Any, **options: Any) -> Any:
    if isinstance(creator, str):
        creator = importlib.import_module(creator)
    kind = importlib.import_module("dbutils.pooled_db").PooledDB
    # What follows its own settings is the creator's.
    own = [one for one in signature(kind).parameters.values() if one.kind is one.POSITIONAL_OR_KEYWORD][1:]
    return kind(creator, *(one.default for one in own), *args, **options)


def _django(vendor: str, **parts: Any) -> Any:
    names = {"host": "HOST", "port": "PORT", "user": "USER", "password": "PASSWORD", "database": "NAME"}
    given = {**dict.fromkeys(names.values(), ""), **{names[key]: value or "" for key, value in parts.items()}}
    return Alias(SimpleNamespace(alias="default", vendor=vendor, settings_dict=given))


def _oracledb(dsn: str) -> Any:
    user, _, cut = importlib.import_module("oracledb").ConnectParams().parse_dsn_with_credentials(dsn)
    del user
    return SimpleNamespace(_impl=SimpleNamespace(dsn=cut), _cache_name=None)


def _easy(login: Login) -> str:
    query = "&".join(f"{key}={value}" for key, value in login.query)
    place = f"{login.host}:{login.port}/{login.database}" + (f"?{query}" if query else "")
    return f"{login.user}/{login.password}@{place}"


def _wallet(login: Login) -> str:
    secrets = "".join(f"({key}={value})" for key, value in login.query)
    return (
        f"(DESCRIPTION=(ADDRESS=(PROTOCOL=tcps)(HOST={login.host})(PORT={login.port}))"
        f"(CONNECT_DATA=(SERVICE_NAME={login.database}))(SECURITY={secrets}))"
    )


def _file(login: Login, quoted: bool) -> str:
    # An encrypted database's: the key is in the query, and a folder is named after a customer.
    from urllib.parse import quote

    put = (lambda text: quote(text, safe="")) if quoted else str
    query = "&".join(f"{key}={put(value)}" for key, value in (("key", login.password), *login.query))
    return f"file:/data/{put(login.user)}/shop_db?{query}"


FILE = (None, None, DATABASE)
# A host's name in Django's settings counts once a connection was made to it.
NOTHING = (None, None, None)
WAYS = {
    "psycopg_pool-url": Way(
        "psycopg_pool", lambda it, q: _psycopg_pool(it.url("postgresql", quoted=q)), "psycopg_pool"
    ),
    "psycopg_pool-conninfo": Way("psycopg_pool", lambda it, q: _psycopg_pool(it.conninfo(quoted=q)), "psycopg_pool"),
    "psycopg_pool-arguments": Way(
        "psycopg_pool",
        lambda it, q: _psycopg_pool("", kwargs=it.by_hand(quoted=q, database="dbname")),
        "psycopg_pool",
        by_name=True,
    ),
    "psycopg2-url": Way("psycopg2_pool", lambda it, q: _psycopg2(it.url("postgres", quoted=q)), "psycopg2"),
    "psycopg2-conninfo": Way("psycopg2_pool", lambda it, q: _psycopg2(it.conninfo(quoted=q)), "psycopg2"),
    "psycopg2-arguments": Way(
        "psycopg2_pool", lambda it, q: _psycopg2(**it.by_hand(quoted=q)), "psycopg2", by_name=True
    ),
    "aiopg-url": Way("aiopg", lambda it, q: _aiopg(it.url("postgresql", quoted=q)), "aiopg"),
    "aiopg-conninfo": Way("aiopg", lambda it, q: _aiopg(it.conninfo(quoted=q)), "aiopg"),
    "asyncpg-url": Way("asyncpg", lambda it, q: _asyncpg(it.url("postgresql", quoted=q)), "asyncpg"),
    "asyncpg-arguments": Way("asyncpg", lambda it, q: _asyncpg(**it.by_hand(quoted=q)), "asyncpg", by_name=True),
    "aiomysql-arguments": Way(
        "aiomysql", lambda it, q: _aiomysql(**it.by_hand(quoted=q, database="db")), "aiomysql", by_name=True
    ),
    "mysql_connector-arguments": Way(
        "mysql_connector", lambda it, q: _connector(**it.by_hand(quoted=q)), "mysql.connector", by_name=True
    ),
    "sqlalchemy-psycopg": Way(
        "sqlalchemy",
        lambda it, q: _engine(it.url("postgresql+psycopg", quoted=q)),
        "sqlalchemy.dialects.postgresql.psycopg",
    ),
    "sqlalchemy-make_url": Way("sqlalchemy", lambda it, q: _made_url(it.url("postgresql", quoted=q)), "psycopg2"),
    "sqlalchemy-pymysql": Way("sqlalchemy", lambda it, q: _engine(it.url("mysql+pymysql", quoted=q)), "pymysql"),
    "sqlalchemy-oracledb": Way(
        "sqlalchemy", lambda it, q: _engine(it.url("oracle+oracledb", quoted=q)), "sqlalchemy.dialects.oracle.oracledb"
    ),
    "sqlalchemy-sqlite": Way(
        "sqlalchemy", lambda it, q: _engine(f"sqlite:///{_file(it, q)}&uri=true"), "sqlite3", finds=FILE
    ),
    "peewee-url": Way("peewee", lambda it, q: _peewee(it.url("postgresql+pool", quoted=q)), "psycopg2"),
    "peewee-mysql": Way("peewee", lambda it, q: _peewee(it.url("mysql+pool", quoted=q)), "pymysql"),
    "peewee-sqlite": Way(
        "peewee", lambda it, q: _peewee_kind("PooledSqliteDatabase", _file(it, q), uri=True), "sqlite3", finds=FILE
    ),
    "peewee-database": Way(
        "peewee", lambda it, q: _peewee_kind("PooledPostgresqlDatabase", it.url("postgresql", quoted=q)), "psycopg2"
    ),
    "peewee-arguments": Way(
        "peewee", lambda it, q: _peewee_kind("PooledMySQLDatabase", **it.by_hand(quoted=q)), "pymysql", by_name=True
    ),
    "dbutils-url": Way("dbutils", lambda it, q: _dbutils("psycopg2", it.url("postgresql", quoted=q)), "psycopg2"),
    "dbutils-conninfo": Way("dbutils", lambda it, q: _dbutils("psycopg2", dsn=it.conninfo(quoted=q)), "psycopg2"),
    "dbutils-arguments": Way(
        "dbutils", lambda it, q: _dbutils("pymysql", **it.by_hand(quoted=q)), "pymysql", by_name=True
    ),
    "dbutils-sqlite": Way("dbutils", lambda it, q: _dbutils(sqlite3, _file(it, q), uri=True), "sqlite3", finds=FILE),
    "django-settings": Way(
        "django", lambda it, q: _django("postgresql", **it.by_hand(quoted=q)), "django", finds=NOTHING
    ),
    "django-mysql": Way("django", lambda it, q: _django("mysql", **it.by_hand(quoted=q)), "django", finds=NOTHING),
    "django-sqlite": Way("django", lambda it, q: _django("sqlite", database=_file(it, q)), "django", finds=FILE),
    "oracledb-easy": Way("oracledb", lambda it, _: _oracledb(_easy(it)), "oracledb"),
    "oracledb-descriptor": Way("oracledb", lambda it, _: _oracledb(_wallet(it)), "oracledb"),
}

LOOP = asyncio.new_event_loop()


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    asyncio.set_event_loop(LOOP)
    yield
    asyncio.set_event_loop(None)
    LOOP.close()


@pytest.fixture(autouse=True)
def _nothing_torn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TORN, "_places", {})


def identified(way: Way, login: Login, quoted: bool) -> Identity | None:
    """What a pool of that login is; None where the library makes none of it."""
    try:
        pool = way.make(login, quoted)
    except Exception:
        return None
    adapter = importlib.import_module(f"poolscope.adapters.{way.adapter}").ADAPTER
    found: Identity = adapter.identify(pool)
    return found


@pytest.mark.reliability(
    fault="a password, a user or a query holds characters that an address must quote, quoted or not",
    application="the same values and exceptions",
    lost="the server's address, its port and the database, where they are in doubt",
)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", WAYS)
def test_of_an_odd_login_no_word_is_taken_for_an_address(name: str) -> None:
    """
    Whatever characters a password, a user or a query holds, quoted or not: what is taken for the server, its port, the
    database, and the pool's name after them holds no word of it. Of a well-formed one all of them are found.
    """
    way = WAYS[name]
    pytest.importorskip(way.needs)

    def law(login: Login, quoted: bool) -> None:
        if way.by_name and login.is_misread(quoted=quoted):
            return  # what it passes as a host is one, as far as anybody can know
        found = identified(way, login, quoted)
        assert not secrets_in(found), (login, quoted, found)

    law_of_many = settings(
        max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )(given(login=LOGINS, quoted=st.booleans())(law))
    with watched(way.adapter):
        plain = identified(way, Login(), True)
        assert plain is not None
        assert (plain.address, plain.port, plain.namespace) == way.finds
        for login in (*torn(), *list(odd())[:: times(3, whole=1)]):
            law(login, False)
            law(login, True)
        law_of_many()


class Hidden:
    """A secret as settings libraries have it: it shows itself to whoever asks for its text."""

    def __str__(self) -> str:
        return "zq7xsecret"

    __repr__ = __str__


class HiddenText(str):
    """The same, of a class of texts."""

    __slots__ = ()


@dataclass
class Settings:
    """Settings whose representation shows the password."""

    password: str = "zq7xpass"
    host: str = "zq7xhost"


OBJECTS: list[Any] = [
    Hidden(),
    HiddenText("zq7xuser:zq7xpass@zq7xhost"),
    Settings(),
    b"zq7xhost",
    lambda: "zq7xhost",
    ["zq7xhost", Hidden()],
    {"host": "zq7xhost"},
    3.14,
    True,
    (),
    frozenset({"zq7xhost"}),
    memoryview(b"zq7xhost"),
]


@pytest.mark.parametrize("part", ["address", "port", "namespace"])
@pytest.mark.parametrize("given", OBJECTS, ids=lambda one: type(one).__name__)
def test_only_texts_are_read(part: str, given: Any) -> None:
    """Whatever object an application passes in the place of a part, its text is not asked for."""
    parts = {"address": HOST, "port": PORT, "namespace": DATABASE, part: given}
    assert not secrets_in(place(**parts)), given


@pytest.mark.parametrize(
    ("address", "port", "namespace", "expected"),
    [
        (HOST, "6437", DATABASE, (HOST, 6437, DATABASE)),
        (PurePosixPath("/var/run/postgresql"), 6437, "", ("/var/run/postgresql", 6437, None)),
        ("/cloudsql/shop:europe-west1:db", None, DATABASE, ("/cloudsql/shop:europe-west1:db", None, DATABASE)),
        ("[fe80::1%eth0]", 6437, DATABASE, ("[fe80::1%eth0]", 6437, DATABASE)),
        (IPv6Address("::1"), 6437, DATABASE, ("::1", 6437, DATABASE)),
        (["a.example", "b.example"], [6437, 6437], DATABASE, ("a.example,b.example", 6437, DATABASE)),
        ("a.example,b.example", "6437,6438", DATABASE, ("a.example,b.example", None, DATABASE)),
        ("b\u00fccher.example", 6437, DATABASE, ("b\u00fccher.example", 6437, DATABASE)),
        (None, 6437, DATABASE, (None, None, DATABASE)),
        *[
            (odd_one, 6437, DATABASE, (None, None, None))
            for odd_one in ("a b", "a@b", "a:b", "48271", "::1%", "/a b", "@/a", "a%20b")
        ],
        *[(HOST, odd_one, DATABASE, (None, None, None)) for odd_one in ("x", 0, 65_536, -1, "5432x", "\u0661")],
        *[
            (HOST, 6437, odd_one, (None, None, None))
            for odd_one in ("a@b", "a/b", "a?b", "a b", "a\0b", "x" * 300, b"shop")
        ],
    ],
)
def test_one_part_in_doubt_leaves_out_all(
    address: object, port: object, namespace: object, expected: tuple[str | None, int | None, str | None]
) -> None:
    """A host, a socket, a port and a database are what their syntax allows; where one is not, none is believed."""
    assert tuple(place(address, port, namespace)) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (None, ":memory:"),
        (":memory:", ":memory:"),
        ("/data/zq7xuser/shop.db", "shop.db"),
        ("shop db (2).db", "shop db (2).db"),
        ("file:/data/shop.db?key=zq7xkey&mode=ro", "shop.db"),
        ("file::memory:?cache=shared", ":memory:"),
        ("file:///data/shop.db#zq7xkey", "shop.db"),
        ("file://zq7xuser@zq7xhost/shop.db", None),
        ("shop.db?key=zq7xkey", None),
        (PurePosixPath("/data/shop.db"), "shop.db"),
        (b"/data/zq7xkey", None),
        (Hidden(), None),
    ],
)
def test_of_a_file_its_name_is_said(path: object, expected: str | None) -> None:
    """The name of a database file, without its folders and its key."""
    assert file_of(path) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("orders", "orders"),
        ("orders@night", "orders@night"),
        ("GET /users/@me", "GET /users/@me"),
        ("users/@<name>/x@2", "users/@<name>/x@2"),
        ("npm/@scope/name", "npm/@scope/name"),
        ("a=b", "a=b"),
        ("postgresql://zq7xuser:zq7xpass@db/shop", None),
        ("zq7xuser:zq7xpass@db", None),
        ("zq7xuser/zq7xpass@db", None),
        ("job of zq7xuser/zq7xpass@//db:1521/shop", None),
        ('zq7xuser/"zq7x/p@ss"@db', None),
        ("host=db password=zq7xpass", None),
        ("user = zq7xuser dbname=x", None),
    ],
)
def test_a_name_that_may_hold_a_login_is_not_used(name: str, expected: str | None) -> None:
    """What is called by a URL or a connection string, such as a pool or a unit of work, is not named by it."""
    assert safe(name, "") == (expected or "")
    with watched("psycopg2_pool") as seen, poolscope.pool_name(name):
        psycopg2 = pytest.importorskip("psycopg2.pool")
        psycopg2.SimpleConnectionPool(0, 1, "host=db-1.example port=6437 dbname=shop_db")
        assert set(seen.pool_registry.pools) == {expected or f"{HOST}:{PORT}/{DATABASE}"}
    assert not secrets_in(poolscope.unit_of_work(name)._name)
