"""What pools are called: what the application names them, else their server and database, however that is known."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest

import poolscope
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.mysql import Connector, server
from tests.support.skips import require
from tests.support.watched import watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


def psycopg_one(where: Postgres) -> Callable[[], object]:
    """Make a pool of psycopg's, to be opened later; what is returned opens and uses it."""
    psycopg_pool = pytest.importorskip("psycopg_pool")
    pool = psycopg_pool.ConnectionPool(where.dsn, min_size=0, max_size=1, name="its own", open=False)

    def use() -> None:
        with pool, pool.connection(timeout=60):
            pass

    return use


def psycopg2_one(where: Postgres) -> Callable[[], object]:
    """One of psycopg2's, which connects when it is asked."""
    pools = pytest.importorskip("psycopg2.pool")
    pool = pools.ThreadedConnectionPool(0, 1, where.dsn)
    return lambda: pool.putconn(pool.getconn(), close=True)


def sqlalchemy_one(where: Postgres) -> Callable[[], object]:
    """An engine, disposed of before it is used."""
    import sqlalchemy

    pytest.importorskip("psycopg2")
    engine = sqlalchemy.create_engine(where.url("psycopg2"), pool_logging_name="its own")
    engine.dispose()

    def use() -> None:
        with engine.connect():
            pass
        engine.dispose()

    return use


def dbutils_one(where: Postgres) -> Callable[[], object]:
    """One of DBUtils'."""
    pooled_db, psycopg2 = pytest.importorskip("dbutils.pooled_db"), pytest.importorskip("psycopg2")
    pool = pooled_db.PooledDB(psycopg2, maxconnections=1, dsn=where.dsn)

    def use() -> None:
        pool.connection().close()
        pool.close()

    return use


def connector_one(_: Postgres) -> Callable[[], object]:
    """One of mysql-connector's, which has a name of its own."""
    require(Connector.missing() is None, str(Connector.missing()), "make env")
    pooling = pytest.importorskip("mysql.connector.pooling")
    place = server()
    pool = pooling.MySQLConnectionPool(pool_name="its-own", pool_size=1, **place.arguments())

    def use() -> None:
        pool.get_connection().close()
        pool._remove_connections()

    return use


MAKERS = {
    "psycopg_pool": psycopg_one,
    "psycopg2_pool": psycopg2_one,
    "sqlalchemy": sqlalchemy_one,
    "dbutils": dbutils_one,
    "mysql_connector": connector_one,
}


@pytest.mark.parametrize("dormant", [False, True], ids=["awake", "asleep"])
@pytest.mark.parametrize("adapter", MAKERS)
def test_a_pool_has_the_name_of_the_block_that_made_it(adapter: str, dormant: bool, database: Postgres) -> None:
    """
    It goes before what the library calls the pool, holds outside of the block, where the pool is used, inside another
    block, and also without a listener while the pool was made.
    """
    with watched(adapter) as seen:
        seen.pool_registry.dormant = dormant
        with poolscope.pool_name("orders"):
            use = MAKERS[adapter](database)
        seen.pool_registry.dormant = False
        with poolscope.pool_name("another"):
            use()
        assert set(seen.pool_registry.pools) == {"orders"}
        assert seen.only().waits.read().count == 1


def test_pools_that_are_awaited(database: Postgres) -> None:
    """The same for pools that are awaited; each task has a block of its own."""
    asyncpg = pytest.importorskip("asyncpg")

    async def make(name: str) -> Any:
        async with poolscope.pool_name(name):
            await asyncio.sleep(0)
            return await asyncpg.create_pool(database.dsn, min_size=0, max_size=1)

    async def scenario() -> set[str]:
        pools = await asyncio.gather(make("orders"), make("reports"))
        for pool in pools:
            await pool.release(await pool.acquire())
            pool.terminate()
        return set(seen.pool_registry.pools)

    with watched("asyncpg") as seen:
        assert asyncio.run(scenario()) == {"orders", "reports"}


def test_blocks_lie_inside_one_another() -> None:
    """
    The inner one counts; outside of all there is no name; one that is left in another context
    leaves no name behind.
    """
    block = poolscope.pool_name("outer")
    with block:
        with poolscope.pool_name("inner"):
            assert POOL_NAME.get() == "inner"
        with block:
            assert POOL_NAME.get() == "outer"
        assert POOL_NAME.get() == "outer"
    assert POOL_NAME.get() is None
    elsewhere = poolscope.pool_name("elsewhere")
    contextvars.copy_context().run(elsewhere.__enter__)
    elsewhere.__exit__(None, None, None)
    assert POOL_NAME.get() is None


def test_two_pools_of_one_name(database: Postgres) -> None:
    """The second one that lives gets a number."""
    with watched("dbutils") as seen:
        with poolscope.pool_name("orders"):
            uses = [dbutils_one(database), dbutils_one(database)]
        for use in uses:
            use()
        assert set(seen.pool_registry.pools) == {"orders", "orders#2"}


# The server, where the arguments of the pool do not name it -----------------------------------------------------------


@pytest.fixture
def environment(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> str:
    """The environment names the server and the database; what a pool of them is called."""
    place = {"PGHOST": database.host, "PGPORT": database.port, "PGUSER": database.user, "PGDATABASE": database.database}
    for name, value in {**place, "PGPASSWORD": database.password}.items():
        monkeypatch.setenv(name, str(value))
    return f"{database.host}:{database.port}/{database.database}"


@pytest.fixture
def service(database: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A connection string that names an entry of libpq's service file and nothing else."""
    file = tmp_path / "services"
    file.write_text(
        f"[lab]\nhost={database.host}\nport={database.port}\ndbname={database.database}\n"
        f"user={database.user}\npassword={database.password}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    monkeypatch.setenv("PGDATABASE", "another")
    return "service=lab"


def psycopg_pool_of(conninfo: Any, **options: Any) -> Callable[[], object]:
    """One of psycopg's, without a name; to be used once."""
    psycopg_pool = pytest.importorskip("psycopg_pool")
    pool = psycopg_pool.ConnectionPool(conninfo, min_size=1, max_size=1, open=True, **options)

    def use() -> None:
        with pool, pool.connection(timeout=60):
            pass

    return use


def psycopg2_pool_of(dsn: str, smallest: int = 1) -> Callable[[], object]:
    """One of psycopg2's; to be used once."""
    pool = pytest.importorskip("psycopg2.pool").ThreadedConnectionPool(smallest, 1, dsn)
    return lambda: (pool.putconn(pool.getconn()), pool.closeall())


def dbutils_pool_of(dsn: str, smallest: int = 1) -> Callable[[], object]:
    """One of DBUtils'; to be used once."""
    pooled_db, psycopg2 = pytest.importorskip("dbutils.pooled_db"), pytest.importorskip("psycopg2")
    pool = pooled_db.PooledDB(psycopg2, smallest, 1, dsn=dsn)
    return lambda: (pool.connection().close(), pool.close())


def asyncpg_pool_of(smallest: int = 1) -> Callable[[], object]:
    """One of asyncpg's; made when it is used."""
    asyncpg = pytest.importorskip("asyncpg")

    async def scenario() -> None:
        pool = await asyncpg.create_pool(min_size=smallest, max_size=1)
        async with pool.acquire():
            pass
        pool.terminate()

    return lambda: asyncio.run(scenario())


def servers_of(seen: Watched) -> list[tuple[str, str | None, int | None, str | None]]:
    """Each pool's name, address, port and database."""
    pools = [pool.identity for pool in seen.pool_registry.pools.values()]
    return [(pool.name, pool.address, pool.port, pool.namespace) for pool in pools]


@pytest.mark.parametrize(
    ("adapter", "make"),
    [
        ("psycopg_pool", lambda: psycopg_pool_of("")),
        ("psycopg2_pool", lambda: psycopg2_pool_of("")),
        ("dbutils", lambda: dbutils_pool_of("")),
        ("asyncpg", asyncpg_pool_of),
    ],
    ids=["psycopg_pool", "psycopg2", "dbutils", "asyncpg"],
)
def test_the_environment_names_the_server(
    adapter: str, make: Callable[[], Callable[[], object]], environment: str, database: Postgres
) -> None:
    """
    A pool whose server and database are in libpq's variables is called after them, like one that
    had their names.
    """
    gc.collect()  # the pools of other tests
    with watched(adapter) as seen:
        make()()
        assert servers_of(seen) == [(environment, database.host, database.port, database.database)]


@pytest.mark.parametrize(
    ("adapter", "make"),
    [
        ("psycopg_pool", psycopg_pool_of),
        ("psycopg2_pool", lambda dsn: psycopg2_pool_of(dsn, 0)),
        ("dbutils", lambda dsn: dbutils_pool_of(dsn, 0)),
    ],
    ids=["psycopg_pool", "psycopg2", "dbutils"],
)
def test_only_a_connection_names_the_server(
    adapter: str, make: Callable[[str], Callable[[], object]], service: str, database: Postgres
) -> None:
    """
    Where nothing names the server before the first connect, that does; the pool keeps the name that it had until
    then. The environment, which goes after a service file, is not believed.
    """
    gc.collect()
    with watched(adapter) as seen:
        make(service)()
        assert servers_of(seen) == [("postgresql", database.host, database.port, database.database)]


def test_arguments_that_are_functions(database: Postgres) -> None:
    """Functions that make a pool's connection string or arguments are not asked by us; the first connection tells."""
    psycopg_pool = pytest.importorskip("psycopg_pool")
    version = tuple(map(int, psycopg_pool.__version__.split(".")[:2]))
    require(version >= (3, 3), f"psycopg_pool {psycopg_pool.__version__} takes no functions", "psycopg_pool 3.3")
    asked = []

    def conninfo() -> str:
        asked.append(1)
        return database.dsn

    gc.collect()
    with watched("psycopg_pool") as seen:
        psycopg_pool_of(conninfo)()
        assert servers_of(seen) == [("postgresql", database.host, database.port, database.database)]
    assert len(asked) == 1


@pytest.mark.parametrize("broken", ["pass/word", "12#word", "12?word", "12/#?word"])
@pytest.mark.parametrize("adapter", ["asyncpg", "psycopg_pool", "psycopg2_pool"])
def test_no_part_of_a_password_is_taken_for_a_server(adapter: str, broken: str) -> None:
    """
    In a URL whose password holds a character that had to be quoted, neither user nor password becomes a name, an
    address or a database.
    """
    url = f"postgresql://someone:{broken}@db.invalid:5432/shop"

    async def of_asyncpg() -> None:
        pool = await pytest.importorskip("asyncpg").create_pool(url, min_size=0)
        with pytest.raises((ValueError, OSError)):
            await pool.acquire()
        pool.terminate()

    gc.collect()
    with watched(adapter) as seen:
        if adapter == "asyncpg":
            asyncio.run(of_asyncpg())
        elif adapter == "psycopg_pool":
            pytest.importorskip("psycopg_pool").ConnectionPool(url, min_size=0, max_size=1, open=True).close()
        else:
            pool = pytest.importorskip("psycopg2.pool").SimpleConnectionPool(0, 1, url)
            pool.closeall()
        assert servers_of(seen) == [("postgresql", None, None, None)]


def test_several_servers_of_one_pool(database: Postgres) -> None:
    """A pool that has a choice of servers is called after all of them, with the port that they share."""
    pytest.importorskip("psycopg_pool")
    hosts, port, name = f"{database.host},localhost", database.port, database.database
    login = f"user={database.user} password={database.password}"
    with watched("psycopg_pool") as seen:
        psycopg_pool_of(f"host={hosts} port={port},{port} dbname={name} {login}")()
        assert servers_of(seen) == [(f"{hosts}:{port}/{name}", hosts, port, name)]


@pytest.mark.parametrize("name", [7, b"bytes", object()], ids=["a number", "bytes", "an object"])
def test_a_name_that_is_no_text_is_none(name: object) -> None:
    """Libraries take anything for a name; the pool is watched under the name that it has without one."""
    import sqlalchemy

    with watched("sqlalchemy") as seen:
        engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool, pool_logging_name=name)
        engine.connect().close()
        assert list(seen.pool_registry.pools) == ["sqlite/:memory:"]
        engine.dispose()
