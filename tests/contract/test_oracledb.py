"""python-oracledb's Python layer over a stand-in for its compiled core: Oracle Database is not at hand."""

from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.oracle import install, pool_of
from tests.support.watched import at_rest, outcomes, watched

oracledb = pytest.importorskip("oracledb")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.watched import Watched


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """Poolscope's eyes, and the stand-in."""
    install(monkeypatch.setattr)
    with watched("oracledb") as eyes:
        yield eyes


DESCRIPTOR = "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST=db.example)(PORT=1522))(CONNECT_DATA=(SERVICE_NAME=shop)))"
STANDBY = DESCRIPTOR.replace("(ADDRESS=", "(ADDRESS=(PROTOCOL=tcp)(HOST=standby.example)(PORT=1522))(ADDRESS=")


@pytest.mark.parametrize(
    ("dsn", "expected"),
    [
        ("db.example:1522/shop", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("//db.example/shop", ("db.example:1521/shop", "db.example", 1521, "shop")),
        ("tcps://db.example:1522/shop?wallet_location=/secret", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("db.example:1522/shop:dedicated/one", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("[::1]:1522/shop", ("[::1]:1522/shop", "[::1]", 1522, "shop")),
        ("someone/pass/word@db.example:1522/shop", ("db.example:1522/shop", "db.example", 1522, "shop")),
        ("someone/pass@word@db.example/shop", ("db.example:1521/shop", "db.example", 1521, "shop")),
        (DESCRIPTOR, ("db.example:1522/shop", "db.example", 1522, "shop")),
        (STANDBY, ("standby.example,db.example:1522/shop", "standby.example,db.example", 1522, "shop")),
        ("alias", ("oracle.db", None, None, None)),
    ],
)
def test_the_server_of_a_connect_string(seen: Watched, dsn: str, expected: tuple[object, ...]) -> None:
    """Server, port and service are read of it, in each of its forms; of a login and of parameters nothing is."""
    pool = pool_of(oracledb.ConnectionPool)
    pool._impl.dsn = dsn
    pool.acquire().close()
    told = seen.only().identity
    assert (told.name, told.address, told.port, told.namespace) == expected


def test_leases_and_timeouts(seen: Watched) -> None:
    """
    An acquire is a lease until close, drop or collection; an exhausted pool is a timeout; used is
    the core's own count.
    """
    pool = pool_of(oracledb.ConnectionPool)
    first, second = pool.acquire(), pool.acquire()
    ours = seen.only()
    assert (ours.identity.address, ours.identity.port, ours.identity.namespace) == ("db.example", 1521, "shop")
    assert (len(ours.leases), ours.limit, ours.sources[0].in_use()) == (2, 2, 2)
    with pytest.raises(oracledb.DatabaseError, match="DPY-4005"):
        pool.acquire()
    assert (ours.timeouts.read(), outcomes(ours)) == (1, {"": 2, "oracledb.exceptions.DatabaseError": 1})
    first.close()
    pool.drop(second)
    at_rest(ours)
    dropped = pool.acquire()
    (lease,) = ours.leases
    del dropped
    gc.collect()
    assert lease.abandoned
    at_rest(ours)


def test_async_leases(seen: Watched) -> None:
    """The wait of an async ask begins when it is awaited, and one that fails is a failed wait."""

    async def scenario() -> None:
        pool = pool_of(oracledb.AsyncConnectionPool)
        asked = pool.acquire()
        assert seen.pool_registry.pools == {}
        async with asked:
            ours = seen.only()
            assert len(ours.leases) == 1
            async with pool.acquire():
                assert len(ours.leases) == 2
                with pytest.raises(oracledb.DatabaseError):
                    await pool.acquire()
        assert outcomes(ours) == {"": 2, "oracledb.exceptions.DatabaseError": 1}
        assert ours.timeouts.read() == 1
        at_rest(ours)

    asyncio.run(scenario())


def test_statements_and_phases(seen: Watched) -> None:
    """
    Each way to send a statement counts one; what lies between statements of an open transaction is idle in transaction,
    and nothing once it has ended.
    """
    pool = pool_of(oracledb.ConnectionPool)
    with pool.acquire() as connection:
        (lease,) = seen.only().leases
        with connection.cursor() as cursor:
            cursor.execute("select 1 from dual where :n = 1", [1])
            assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
            assert lease.statement == "select 1 from dual where :n = 1"
            cursor.executemany("insert into t values (:n)", [(1,), (2,)])
            cursor.callproc("p")
            assert lease.queries == 3
        connection.commit()
        assert (lease.queries, lease.phase) == (3, "idle")
    uses = seen.only().holds.read()
    assert uses.phases["query"] > 0
    assert uses.phases["idle_in_transaction"] > 0
    at_rest(seen.only())


def test_async_statements_and_phases(seen: Watched) -> None:
    """The same for an async connection."""

    async def scenario() -> None:
        async with oracledb_async() as connection:
            (lease,) = seen.only().leases
            with connection.cursor() as cursor:
                await cursor.execute("select 1 from dual")
            assert (lease.queries, lease.phase) == (1, "idle_in_transaction")
            await connection.rollback()
            assert (lease.queries, lease.phase) == (1, "idle")
        at_rest(seen.only())

    def oracledb_async() -> Any:
        return pool_of(oracledb.AsyncConnectionPool).acquire()

    asyncio.run(scenario())
