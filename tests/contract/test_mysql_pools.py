"""What only the pools of the MySQL drivers do: pings and connects at a checkout, returns inside a transaction."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab import mariadb
from examples.lab.processes import wait_until
from poolscope.adapters.aside import opener
from poolscope.detectors.server_probe import ServerProbe
from tests.contract.drivers.mysql import server
from tests.support.scene import Scene
from tests.support.skips import require
from tests.support.watched import at_rest, closures, outcomes, watched

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.watched import Watched


@pytest.fixture
def place() -> dict[str, Any]:
    """How to connect to the MariaDB."""
    require(mariadb.missing() is None, str(mariadb.missing()), "apt-get install mariadb-server")
    return {**server().arguments(), "database": server().database}


@pytest.fixture
def connector() -> Iterator[Watched]:
    """Poolscope's eyes on mysql-connector."""
    pytest.importorskip("mysql.connector")
    with watched("mysql_connector") as eyes:
        yield eyes


@pytest.fixture
def aiomysql_seen() -> Iterator[Watched]:
    """Poolscope's eyes on aiomysql."""
    pytest.importorskip("aiomysql")
    with watched("aiomysql") as eyes:
        yield eyes


def connector_pool(place: dict[str, Any], size: int = 1) -> Any:
    """A pool of mysql-connector's."""
    from mysql.connector.pooling import MySQLConnectionPool

    return MySQLConnectionPool(pool_name="p", pool_size=size, **place)


def test_a_connector_pool_without_a_name_is_not_called_after_its_user(
    connector: Watched, place: dict[str, Any]
) -> None:
    """
    The name that the library makes up holds the user: it is not used, whatever the user is called. One that the
    application gave is.
    """
    from mysql.connector.pooling import MySQLConnectionPool

    assert "_" in place["user"]
    unnamed = MySQLConnectionPool(pool_size=1, **place)
    assert place["user"] in unnamed.pool_name
    assert list(connector.pool_registry.pools) == [f"{place['host']}:{place['port']}/{place['database']}"]
    named = MySQLConnectionPool(pool_name=f"{place['user']}_{place['database']}", pool_size=1, **place)
    assert named.pool_name in connector.pool_registry.pools
    for pool in (unnamed, named):
        pool._remove_connections()


def test_a_server_that_a_file_of_options_names(connector: Watched, place: dict[str, Any], tmp_path: Path) -> None:
    """A pool whose server is in MySQL's file of options has that server's address and port, not the default ones."""
    from mysql.connector.pooling import MySQLConnectionPool

    aiomysql = pytest.importorskip("aiomysql")
    options = tmp_path / "my.cnf"
    options.write_text("[client]\n" + "".join(f"{key}={value}\n" for key, value in place.items()))
    pool = MySQLConnectionPool(pool_name="p", pool_size=1, option_files=str(options))
    told = connector.only().identity
    assert (told.address, told.port) == (place["host"], place["port"])
    pool._remove_connections()

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=1, maxsize=1, read_default_file=str(options))
        told = seen.only().identity
        assert (told.name, told.address, told.port) == ("mysql", place["host"], place["port"])
        pool.terminate()
        await pool.wait_closed()

    gc.collect()
    with watched("aiomysql") as seen:
        asyncio.run(asyncio.wait_for(scenario(), 60))


def for_aiomysql(place: dict[str, Any]) -> dict[str, Any]:
    """The arguments, as aiomysql calls them."""
    return {"db" if name == "database" else name: value for name, value in place.items()}


def kill(place: dict[str, Any], number: int) -> None:
    """Let the server end a connection."""
    import mysql.connector

    with contextlib.closing(mysql.connector.connect(**place)) as admin:
        admin.cursor().execute(f"KILL {int(number)}")


def test_connector_statements_and_phases(connector: Watched, place: dict[str, Any]) -> None:
    """
    Each execute, executemany and callproc is one statement, by cursors of each kind; idle in transaction is what lies
    between statements of an open transaction. The reset at the return is none of it.
    """
    pool = connector_pool(place)
    connection = pool.get_connection()
    (lease,) = connector.only().leases
    cursor = connection.cursor(dictionary=True)
    cursor.execute("create temporary table t (n int)")
    connection.start_transaction()
    cursor.executemany("insert into t values (%s)", [(1,), (2,)])
    assert (lease.queries, lease.phase) == (2, "idle_in_transaction")
    cursor.execute("select n from t where n = %s", (1,))
    assert cursor.fetchall() == [{"n": 1}]
    assert lease.statement == "select n from t where n = %s"
    connection.commit()
    assert (lease.queries, lease.phase) == (3, "idle")
    prepared = connection.cursor(prepared=True)
    prepared.execute("select n from t where n = ?", (2,))
    assert prepared.fetchall() == [(2,)]
    connection.rollback()
    assert (lease.queries, lease.phase) == (4, "idle")
    prepared.close()
    cursor.close()
    connection.close()
    ours = connector.only()
    uses = ours.holds.read()
    assert min(uses.phases.values()) > 0
    at_rest(ours)
    pool._remove_connections()
    assert closures(ours) == {"disposed": 1}
    assert ours.creates.read().count == 1


def test_connector_validates_and_connects_anew(connector: Watched, place: dict[str, Any]) -> None:
    """
    The ping at a checkout is validation; a connection that the server ended, and one whose configuration has changed,
    are closed and made anew in the checkout's connect phase.
    """
    pool = connector_pool(place)
    ours = connector.only()
    pool.get_connection().close()
    _queue, connect, validate, _ = ours.wait_phase_times().values()
    assert (connect, validate > 0) == (0.0, True)
    connection = pool.get_connection()
    number = connection.connection_id
    connection.close()
    kill(place, number)
    pool.get_connection().close()
    assert closures(ours) == {"invalidated": 1}
    assert ours.wait_phase_times()["connect"] > 0
    pool.set_config(**place)
    pool.get_connection().close()
    assert closures(ours) == {"invalidated": 1, "recycled": 1}
    assert ours.creates.read().count == 3
    at_rest(ours)
    pool._remove_connections()
    assert sum(closures(ours).values()) == 3


def test_connector_cannot_connect_anew(connector: Watched, place: dict[str, Any]) -> None:
    """
    A connection that cannot be made anew is closed once, however often it is tried; each try is a failed wait of the
    connect's error, and the connection counts again when it is there again.
    """
    from mysql.connector import errors

    pool = connector_pool(place)
    ours = connector.only()
    pool.set_config(**{**place, "port": 1})
    for _ in range(2):
        with pytest.raises(errors.Error):
            pool.get_connection()
    assert closures(ours) == {"recycled": 1}
    (kind, count), *rest = outcomes(ours).items()
    assert (kind.startswith("mysql.connector.errors."), count, rest) == (True, 2, [])
    at_rest(ours)
    pool.set_config(**place)
    pool.get_connection().close()
    assert closures(ours) == {"recycled": 1}
    assert ours.creates.read().count == 2
    at_rest(ours)
    pool._remove_connections()


def test_connector_loses_what_is_dropped(connector: Watched, place: dict[str, Any]) -> None:
    """A connection that is dropped has left the pool."""
    pool = connector_pool(place, size=2)
    ours = connector.only()
    dropped = pool.get_connection()
    del dropped
    gc.collect()
    assert closures(ours) == {"abandoned": 1}
    assert ours.limit == 1
    at_rest(ours)
    pool._remove_connections()


def wrapper_of(original: Any) -> Any:
    """Another library's wrapper."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return original(*args, **kwargs)

    return call


def wrapped(patch: pytest.MonkeyPatch) -> None:
    """Put another library's wrappers around what mysql-connector's pool passes when it connects anew."""
    from mysql.connector import abstracts, connection, pooling

    for owner, name in (
        (pooling.MySQLConnectionPool, "get_connection"),
        (abstracts.MySQLConnectionAbstract, "reconnect"),
        (connection.MySQLConnection, "disconnect"),
    ):
        patch.setattr(owner, name, wrapper_of(vars(owner)[name]))


#: Prints what is measured of a connection of each kind. The extension comes first: its OpenSSL may be newer than the
#: one that `ssl` loads.
BOTH_KINDS = """
import _mysql_connector, json, sys, time
from mysql.connector.pooling import MySQLConnectionPool
from tests.support.watched import at_rest, closures, outcomes, watched
def measured(pure, place):
    with watched("mysql_connector") as seen:
        pool = MySQLConnectionPool(pool_name="p", pool_size=1, use_pure=pure, **place)
        ours = seen.only()
        connection = pool.get_connection()
        kind = type(connection._cnx).__name__
        (lease,) = ours.leases
        cursor = connection.cursor()
        cursor.execute("create temporary table kinds (a int)")
        cursor.executemany("insert into kinds values (%s)", [(1,), (2,)])
        time.sleep(0.2)
        connection.commit()
        cursor.execute("select sleep(0.2)")
        cursor.fetchall()
        connection.rollback()
        cursor.close()
        connection.close()
        at_rest(ours)
        phases = ours.hold_phase_times()
        report = [kind, lease.queries, phases["query"] >= 0.1, phases["idle_in_transaction"] >= 0.1]
        pool._cnx_queue.queue[0].disconnect()
        pool.get_connection().close()
        report += [outcomes(ours), closures(ours)]
        pool._remove_connections()
    return report
print(json.dumps([measured(pure, json.loads(sys.argv[1])) for pure in (True, False)]))
"""


def test_connections_of_the_connectors_c_extension_are_measured_like_those_in_python(place: dict[str, Any]) -> None:
    """Statements, phases of the hold, pings and closures."""
    pytest.importorskip("mysql.connector")
    probe = subprocess.run([sys.executable, "-c", "import _mysql_connector"], capture_output=True, check=False)
    require(probe.returncode == 0, "mysql-connector's C extension does not load", "a newer OpenSSL")
    done = subprocess.run(
        [sys.executable, "-c", BOTH_KINDS, json.dumps(place)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    (python, *measured), (extension, *likewise) = json.loads(done.stdout)
    assert (python, extension) == ("MySQLConnection", "CMySQLConnection")
    assert measured[:3] == [3, True, True]
    assert measured == likewise


def test_connector_with_other_wrappers_in_between(place: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Another library's wrappers, below our hooks and above them, change nothing: why a connection is closed is found out,
    and so is one that a checkout took out and lost.
    """
    pytest.importorskip("mysql.connector")
    arguments = {**place, "use_pure": True}
    wrapped(monkeypatch)
    with watched("mysql_connector") as seen, monkeypatch.context() as above:
        wrapped(above)
        pool = connector_pool(arguments)
        ours = seen.only()
        connection = pool.get_connection()
        number = connection.connection_id
        connection.close()
        kill(place, number)
        pool.get_connection().close()
        assert closures(ours) == {"invalidated": 1}
        pool.set_config(**arguments)
        pool.get_connection().close()
        assert closures(ours) == {"invalidated": 1, "recycled": 1}
        (idle,) = pool._cnx_queue.queue

        def interrupted() -> None:
            raise GeneratorExit

        above.setattr(idle, "cmd_ping", interrupted)
        with pytest.raises(GeneratorExit):
            pool.get_connection()
        assert closures(ours) == {"invalidated": 1, "recycled": 1, "abandoned": 1}
        assert (ours.limit, ours.lost()) == (0, 1)
        at_rest(ours)
        idle.close()
        pool.add_connection()
        assert (ours.limit, ours.lost()) == (1, 0)
        pool._remove_connections()
        assert ours.creates.read().count == sum(closures(ours).values())


def test_aiomysql_statements(aiomysql_seen: Watched, place: dict[str, Any]) -> None:
    """Each execute, executemany and callproc is one statement, however many the cursor makes of it."""
    import aiomysql

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=0, maxsize=1, **for_aiomysql(place))
        connection = await pool.acquire()
        (lease,) = aiomysql_seen.only().leases
        cursor = await connection.cursor()
        await cursor.execute("create or replace procedure aiomysql_calls(n int) select n")
        await cursor.execute("create temporary table t (n int)")
        await cursor.executemany("insert into t values (%s)", [(1,), (2,)])
        assert lease.queries == 3
        before = lease.query_time
        await cursor.callproc("aiomysql_calls", (5,))
        assert await cursor.fetchone() == (5,)
        assert (lease.queries, lease.statement) == (4, "CALL aiomysql_calls")
        assert lease.query_time > before
        await cursor.close()
        await pool.release(connection)
        pool.terminate()
        await pool.wait_closed()

    asyncio.run(asyncio.wait_for(scenario(), 60))


# Rows that take the server 20 ms each, large enough that each is sent at once.
SLOW_ROWS = " union all ".join(["select repeat('x', 70000), sleep(0.02)"] * 3)


def test_fetches_of_the_connectors_unbuffered_cursors_are_calls(connector: Watched, place: dict[str, Any]) -> None:
    """The server works while rows are fetched: that is its time, and no statement more."""
    pool = connector_pool(place)
    connection = pool.get_connection()
    (lease,) = connector.only().leases
    for fetch in (lambda cursor: cursor.fetchall(), list, lambda cursor: cursor.fetchmany(9)):
        with connection.cursor() as cursor:
            cursor.execute(SLOW_ROWS)
            before = lease.query_time
            assert len(fetch(cursor)) == 3
        assert lease.query_time - before > 0.02
    assert lease.queries == 3
    connection.close()
    pool._remove_connections()


def test_fetches_of_aiomysqls_unbuffered_cursors_are_calls(aiomysql_seen: Watched, place: dict[str, Any]) -> None:
    """The same; what a cursor reads at its end, for it was not read to the end, as well."""
    import aiomysql

    async def one_by_one(cursor: Any) -> list[Any]:
        return [row async for row in cursor]

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=0, maxsize=1, **for_aiomysql(place))
        async with pool.acquire() as connection:
            (lease,) = aiomysql_seen.only().leases
            for fetch in (lambda cursor: cursor.fetchall(), lambda cursor: cursor.fetchmany(9), one_by_one):
                async with connection.cursor(aiomysql.SSCursor) as cursor:
                    await cursor.execute(SLOW_ROWS)
                    before = lease.query_time
                    assert len(await fetch(cursor)) == 3
                assert lease.query_time - before > 0.02
            cursor = await connection.cursor(aiomysql.SSCursor)
            await cursor.execute(SLOW_ROWS)
            before = lease.query_time
            await cursor.close()
            assert lease.query_time - before > 0.02
            assert lease.queries == 4
        pool.terminate()
        await pool.wait_closed()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_aiomysql_why_connections_are_closed(aiomysql_seen: Watched, place: dict[str, Any]) -> None:
    """
    Recycled, ended by the server, returned inside a transaction, closed by its caller, cleared, terminated: each
    closure has its reason, and every connection that was made is closed in the end.
    """
    import aiomysql

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=0, maxsize=1, pool_recycle=3600, **for_aiomysql(place))
        ours = aiomysql_seen.only()
        connection = await pool.acquire()
        pool._recycle = 0
        await pool.release(connection)
        await asyncio.sleep(0.01)
        await pool.release(await pool.acquire())
        assert closures(ours) == {"recycled": 1}
        pool._recycle = -1
        connection = await pool.acquire()
        await connection.begin()
        await connection.query("create table if not exists aiomysql_closes (n int)")
        await connection.begin()
        await connection.query("insert into aiomysql_closes values (1)")
        await pool.release(connection)
        assert closures(ours)["in_transaction"] == 1
        connection = await pool.acquire()
        await asyncio.get_running_loop().run_in_executor(None, kill, place, connection.thread_id())
        with pytest.raises(aiomysql.Error):
            await connection.query("select 1")
        await pool.release(connection)
        assert closures(ours)["invalidated"] == 1
        connection = await pool.acquire()
        connection.close()
        await pool.release(connection)
        assert closures(ours)["closed"] == 1
        await pool.release(await pool.acquire())
        await pool.clear()
        assert closures(ours)["disposed"] == 1
        await pool.acquire()
        pool.terminate()
        await pool.wait_closed()
        assert closures(ours)["disposed"] == 2
        assert ours.creates.read().count == sum(closures(ours).values())
        at_rest(ours)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_aiomysql_a_connection_without_a_holder_is_found(aiomysql_seen: Watched, place: dict[str, Any]) -> None:
    """
    The pool keeps a dropped connection for ever: it is found by its references. One that is held by a variable, or by
    nothing but its cursor, is not.
    """
    import aiomysql

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=0, maxsize=3, **for_aiomysql(place))
        ours = aiomysql_seen.only()
        (source,) = ours.live_sources()
        held = await pool.acquire()
        cursor = await (await pool.acquire()).cursor()
        assert source.unheld() == []  # type: ignore[attr-defined]
        known = ours.leases.copy()
        await pool.acquire()
        (lost,) = ours.leases - known
        assert source.unheld() == [lost]  # type: ignore[attr-defined]
        await pool.release(cursor.connection)
        await pool.release(held)
        pool.terminate()
        await pool.wait_closed()
        at_rest(ours)

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_aiomysql_hand_over_races(aiomysql_seen: Watched, place: dict[str, Any]) -> None:
    """
    300 checkouts, each cancelled at about the time that it is served: whatever wins, every checkout ends once, and what
    is checked out by our account is so by the pool's own.
    """
    import aiomysql

    async def use(pool: Any) -> None:
        async with pool.acquire():
            await asyncio.sleep(0)

    async def scenario() -> None:
        pool = await aiomysql.create_pool(minsize=1, maxsize=1, **for_aiomysql(place))
        ours = aiomysql_seen.only()
        (source,) = ours.live_sources()
        chance = random.Random(3)
        for _ in range(300):
            held = await pool.acquire()
            task = asyncio.create_task(use(pool))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            giving = pool.release(held)
            for _ in range(chance.randrange(8)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(giving, task, return_exceptions=True)
            assert len(ours.leases) == source.in_use()
        await pool.release(await pool.acquire())
        at_rest(ours)
        assert ours.waits.read().count == ours.holds.read().count
        assert set(outcomes(ours)) == {"", "asyncio.exceptions.CancelledError"}
        pool.terminate()
        await pool.wait_closed()

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_the_server_probe_knows_who_holds_a_lock(place: dict[str, Any]) -> None:
    """By the ids of connections, on a connection of its own."""
    mysql = pytest.importorskip("mysql.connector")
    scene = Scene(2, "mysql")
    scene.source.server = opener("mysql", [place])
    first, second = mysql.connect(**place), mysql.connect(**place)
    with contextlib.closing(first), contextlib.closing(second), ThreadPoolExecutor(1) as threads:
        cursor = first.cursor()
        cursor.execute("create table if not exists locked (id int primary key) engine=innodb")
        cursor.execute("replace into locked values (1)")
        first.commit()
        cursor.execute("select * from locked where id = 1 for update")
        cursor.fetchall()
        waiting = threads.submit(second.cursor().execute, "delete from locked where id = 1")
        probe, holder = ServerProbe(1.0, scene.clock), first.connection_id

        def blockers() -> dict[int, Any]:
            scene.clock.advance(2.0)
            probe.send(scene.pool, "lab", {second.connection_id})
            probe.wait(60)
            return {process: one for answer in probe.answers() for process, one in answer.blockers.items()}

        try:
            found = wait_until(blockers, 60, "the wait to begin")
        finally:
            first.rollback()
            waiting.result(60)
            second.rollback()
    (blocker,) = found.values()
    assert (blocker.process, blocker.state, blocker.waits) == (holder, "idle in transaction", False)
