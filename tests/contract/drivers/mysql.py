"""Pools of MySQL drivers on a MariaDB, and DBUtils on PostgreSQL."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib.util
from typing import TYPE_CHECKING, Any, ClassVar

from examples.lab import mariadb
from poolscope.adapters import aiomysql as aiomysql_adapter
from poolscope.adapters import dbutils as dbutils_adapter
from poolscope.adapters import mysql_connector as mysql_connector_adapter
from poolscope.adapters import mysql_connector_aio as mysql_connector_aio_adapter
from poolscope.adapters.identity import NAMES
from poolscope.core.pool_identity import POOL_NAME
from tests.contract.drivers.base import Driver, Feature, Handle, LoopThread, PendingCheckout, ThreadCheckout
from tests.support.skips import is_installed

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


@functools.cache
def server() -> mariadb.MariaDB:
    """The MariaDB of this process."""
    stack = contextlib.ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(mariadb.mariadb())


class SyncDriver(Driver):
    """A sync pool whose connections go back by being closed."""

    needs: ClassVar[str]
    on_mariadb: ClassVar[bool] = True
    library_pool: Any

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec(cls.needs) is None:
            return f"{cls.needs} missing"
        return mariadb.missing() if cls.on_mariadb else None

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def timeout_error(self) -> str:
        return "none"

    def acquire(self) -> Handle:
        return Handle(self.take(), lambda function, *args: function(*args))

    def take(self) -> Any:
        """A connection of the library's."""
        raise NotImplementedError

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        handle.connection.close()

    def query(self, handle: Handle) -> object:
        cursor = handle.connection.cursor()
        cursor.execute("select 1")
        answer = cursor.fetchone()
        cursor.close()
        return answer

    def abandon(self, handle: Handle) -> None:
        handle.connection = None
        gc.collect()


class Connector(SyncDriver):
    """
    mysql-connector's pool, which connects at once to its full size; what is dropped is lost, and to
    be made up for.
    """

    label = "mysql-connector-MySQLConnectionPool"
    adapter = "mysql-connector"
    features = Feature.STATEMENTS | Feature.REJECTS | Feature.POOLED | Feature.ABANDON | Feature.MANY
    needs = "mysql"
    tells_what_is_out = False

    @property
    def capabilities(self) -> Capability:
        return mysql_connector_adapter.ADAPTER.capabilities

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        from mysql.connector.pooling import MySQLConnectionPool

        place = server()
        self._size = size
        self.library_pool = MySQLConnectionPool(
            pool_name=self.pool, pool_size=size, database=place.database, **place.arguments(), **options
        )

    def close(self) -> None:
        self.library_pool._remove_connections()

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def refusal(self) -> str:
        return "mysql.connector.errors.PoolError"

    def take(self) -> Any:
        return self.library_pool.get_connection()

    def abandon(self, handle: Handle) -> None:
        super().abandon(handle)
        self.library_pool.add_connection()


class DbutilsPostgres(SyncDriver):
    """DBUtils' pool over psycopg2; what is dropped comes back."""

    label = "dbutils-PooledDB-psycopg2"
    adapter = "dbutils"
    features = (
        Feature.STATEMENTS
        | Feature.REJECTS
        | Feature.POOLED
        | Feature.ABANDON
        | Feature.REPEATED_RELEASE
        | Feature.MANY
    )
    needs = "dbutils"
    on_mariadb = False
    on_postgres = True
    tells_what_is_out = False

    @property
    def capabilities(self) -> Capability:
        return dbutils_adapter.ADAPTER.capabilities

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import psycopg2
        from dbutils.pooled_db import PooledDB

        assert where is not None
        self._size = size
        place = {"host": where.host, "port": where.port, "dbname": where.database}
        login = {"user": where.user, "password": where.password}
        token = POOL_NAME.set(self.pool)
        try:
            self.library_pool = PooledDB(psycopg2, maxconnections=size, **place, **login, **options)
        finally:
            POOL_NAME.reset(token)
        NAMES[self.library_pool] = self.pool

    def close(self) -> None:
        self.library_pool.close()

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def refusal(self) -> str:
        from dbutils import pooled_db

        kind = pooled_db.TooManyConnections  # the older name of it
        return f"{kind.__module__}.{kind.__qualname__}"

    def take(self) -> Any:
        return self.library_pool.connection()


class DbutilsBlocking(DbutilsPostgres):
    """Likewise; a checkout beyond the limit waits until it is served, and nothing else ends its wait."""

    label = "dbutils-PooledDB-blocking"
    features = (DbutilsPostgres.features & ~Feature.REJECTS) | Feature.WAITS

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        super().open(where, folder, size=size, timeout=timeout, blocking=True, **options)


class Aiomysql(Driver):
    """aiomysql's pool, in an event loop of its own; nothing but the caller ends a wait."""

    label = "aiomysql-Pool"
    adapter = "aiomysql"
    features = Feature.STATEMENTS | Feature.WAITS | Feature.CANCEL | Feature.POOLED | Feature.MANY

    @property
    def capabilities(self) -> Capability:
        return aiomysql_adapter.ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return mariadb.missing() if importlib.util.find_spec("aiomysql") else "aiomysql missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import aiomysql

        place = server()
        self._size = size
        self.thread = LoopThread()

        async def make() -> Any:
            POOL_NAME.set(self.pool)
            return await aiomysql.create_pool(
                minsize=0, maxsize=size, db=place.database, **place.arguments(), **options
            )

        self.library_pool = self.thread.run(make())
        NAMES[self.library_pool] = self.pool

    def close(self) -> None:
        async def close() -> None:
            self.library_pool.terminate()
            await self.library_pool.wait_closed()

        self.thread.run(close())
        self.thread.close()

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def timeout_error(self) -> str:
        return "none"

    def acquire(self) -> Handle:
        handle: Handle = self.thread.run(self._acquire())
        return handle

    async def _acquire(self) -> Handle:
        return Handle(await self.library_pool.acquire(), self.thread.run)

    def begin(self) -> PendingCheckout:
        return self.thread.begin(self._acquire())

    def release(self, handle: Handle) -> None:
        async def release() -> None:
            await self.library_pool.release(handle.connection)

        self.thread.run(release())

    def query(self, handle: Handle) -> object:
        async def select() -> object:
            async with handle.connection.cursor() as cursor:
                await cursor.execute("select 1")
                return await cursor.fetchone()

        return self.thread.run(select())


class ConnectorAio(Driver):
    """mysql-connector's asyncio pool, in an event loop of its own."""

    label = "mysql-connector-aio-MySQLConnectionPool"
    adapter = "mysql-connector-aio"
    features = Connector.features
    tells_what_is_out = False

    @property
    def capabilities(self) -> Capability:
        return mysql_connector_aio_adapter.ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        module = mysql_connector_aio_adapter.ADAPTER.module
        return mariadb.missing() if is_installed(module) else f"{module} missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        from mysql.connector.aio.pooling import MySQLConnectionPool

        place = server()
        self._size = size
        self.thread = LoopThread()
        # Its TLS handshake does not stand a server without TLS.
        options = {"database": place.database, **place.arguments(), "ssl_disabled": True, **options}

        async def make() -> Any:
            pool = MySQLConnectionPool(pool_name=self.pool, pool_size=size, **options)
            await pool.initialize_pool()
            return pool

        self.library_pool = self.thread.run(make())

    def close(self) -> None:
        self.thread.run(self.library_pool.close_pool())
        self.thread.close()

    def library_objects(self) -> list[Any]:
        return [self.library_pool]

    def forget(self) -> None:
        del self.library_pool

    @property
    def limit(self) -> int | None:
        return self._size

    @property
    def timeout_error(self) -> str:
        return "none"

    @property
    def refusal(self) -> str:
        return "mysql.connector.errors.PoolError"

    def acquire(self) -> Handle:
        handle: Handle = self.thread.run(self._acquire())
        return handle

    async def _acquire(self) -> Handle:
        return Handle(await self.library_pool.get_connection(), self.thread.run)

    def begin(self) -> PendingCheckout:
        return self.thread.begin(self._acquire())

    def release(self, handle: Handle) -> None:
        self.thread.run(handle.connection.close())

    def query(self, handle: Handle) -> object:
        async def select() -> object:
            cursor = await handle.connection.cursor()
            await cursor.execute("select 1")
            answer = await cursor.fetchone()
            await cursor.close()
            return answer

        return self.thread.run(select())

    def abandon(self, handle: Handle) -> None:
        connection = handle.connection._cnx
        handle.connection = None
        gc.collect()
        self.thread.run(connection.shutdown())  # the library leaves its socket to the garbage collector, which warns
        self.thread.run(self.library_pool.add_connection())


DRIVERS: tuple[type[Driver], ...] = (Connector, ConnectorAio, DbutilsPostgres, DbutilsBlocking, Aiomysql)
