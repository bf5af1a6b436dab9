"""SQLAlchemy's pools, sync and async, on SQLite and PostgreSQL."""

from __future__ import annotations

import importlib.util
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import sqlalchemy
from sqlalchemy import exc, pool

from poolscope.adapters.sqlalchemy import ADAPTER
from tests.contract.drivers.base import (
    DEADLINE,
    Driver,
    Feature,
    Handle,
    LoopThread,
    PendingCheckout,
    ThreadCheckout,
    drop,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability

VERSION = tuple(int(part) for part in sqlalchemy.__version__.split(".")[:2])
_BREAK = Feature.INVALIDATE | Feature.SOFT_INVALIDATE | Feature.DETACH
_OWN = _BREAK | Feature.DISPOSE | Feature.REPEATED_RELEASE
# SQLAlchemy 1.4 awaits the reset of a dropped async connection inside the garbage collection, where it cannot.
_LOST = Feature.NONE if VERSION >= (2, 0) else Feature.ABANDON
_QUEUE = _OWN | Feature.LIMIT | Feature.WAITS | Feature.ABANDON | Feature.POOLED | Feature.MANY


def plain(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a function in this thread."""
    return function(*args, **kwargs)


class SqlAlchemyDriver(Driver):
    """An engine with a pool of the wanted class; handles are raw connections (`_ConnectionFairy`)."""

    adapter = "sqlalchemy"
    scheme: ClassVar[str] = "sqlite"
    pool_class: ClassVar[Any] = pool.QueuePool
    needs: ClassVar[tuple[str, ...]] = ()
    since: ClassVar[tuple[int, int]] = (1, 4)

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        if cls.since > VERSION:
            return f"SQLAlchemy {sqlalchemy.__version__} has no dialect {cls.scheme}"
        absent = [module for module in cls.needs if importlib.util.find_spec(module) is None]
        return f"{', '.join(absent)} missing" if absent else None

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        if where is not None:
            url = where.url(self.scheme.partition("+")[2])
        else:
            url = f"{self.scheme}:///{folder / 'contract.db'}"
            options.setdefault("connect_args", {"check_same_thread": False})
        if issubclass(self.pool_class, pool.QueuePool):
            options = {"pool_size": size, "max_overflow": 0, "pool_timeout": timeout, **options}
        elif self.pool_class is pool.SingletonThreadPool:
            options = {"pool_size": 50, **options}
        options.setdefault("poolclass", self.pool_class)
        options.setdefault("pool_logging_name", self.pool)
        self.engine = self.make_engine(url, **options)
        self._disposed: list[Any] = []

    def make_engine(self, url: str, **options: Any) -> Any:
        """The sync engine."""
        return sqlalchemy.create_engine(url, **options)

    def close(self) -> None:
        self.dispose()
        # What was checked out when a pool was disposed of came back to it since, open.
        for disposed in self._disposed:
            self.call(disposed.dispose)

    @property
    def limit(self) -> int | None:
        queue = self.engine.pool
        if isinstance(queue, pool.QueuePool):
            return None if queue._max_overflow < 0 else queue.size() + queue._max_overflow
        return 1 if isinstance(queue, (pool.StaticPool, pool.AssertionPool)) else None

    @property
    def timeout_error(self) -> str:
        return f"{exc.TimeoutError.__module__}.{exc.TimeoutError.__qualname__}"

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call into the library."""
        return function(*args, **kwargs)

    def acquire(self) -> Handle:
        return Handle(self.call(self.engine.raw_connection), self.call)

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        handle.call(handle.connection.close)

    def query(self, handle: Handle) -> object:
        return handle.call(_select, handle.connection)

    def invalidate(self, handle: Handle, *, soft: bool = False) -> None:
        handle.call(handle.connection.invalidate, soft=soft)

    def detach(self, handle: Handle) -> None:
        handle.call(handle.connection.detach)

    def dispose(self) -> None:
        self._disposed.append(self.engine.pool)
        self.call(self.engine.dispose)

    def abandon(self, handle: Handle) -> None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*non-checked-in connection", exc.SAWarning)
            warnings.simplefilter("ignore", ResourceWarning)  # a driver's own, where SQLAlchemy cannot close it
            self.let_go(handle)

    def let_go(self, handle: Handle) -> None:
        """Drop a connection where it may be used."""
        handle.call(drop, handle)

    def status(self) -> object:
        return self.engine.pool.status().replace(hex(id(self.engine.pool)), "").replace(str(id(self.engine.pool)), "")

    def library_objects(self) -> list[Any]:
        return [self.engine, self.engine.pool, *self._disposed]

    def forget(self) -> None:
        del self.engine, self._disposed


class AsyncSqlAlchemyDriver(SqlAlchemyDriver):
    """An async engine in an event loop of its own."""

    def make_engine(self, url: str, **options: Any) -> Any:
        from sqlalchemy.ext.asyncio import create_async_engine

        self._thread = LoopThread()
        self.async_engine = create_async_engine(url, **options)
        return self.async_engine.sync_engine

    def close(self) -> None:
        super().close()
        self._thread.close()

    def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return self._thread.run(_greenlet(function, *args, **kwargs))

    def let_go(self, handle: Handle) -> None:
        """
        Outside of a greenlet, as SQLAlchemy expects it of the garbage collector. Inside one its finaliser gives way to
        other tasks after the record went back, and then checks in the record that one of them has by now (2.1.9).
        """

        async def let_go() -> None:
            drop(handle)

        worker = getattr(handle.connection.driver_connection, "_thread", None)
        self._thread.run(let_go())
        if worker is not None:  # aiosqlite's, which tells the loop that it is done
            worker.join(DEADLINE)

    def forget(self) -> None:
        del self.async_engine
        super().forget()

    def begin(self) -> PendingCheckout:
        return self._thread.begin(self._acquire())

    async def _acquire(self) -> Handle:
        return Handle(await _greenlet(self.engine.raw_connection), self.call)


async def _greenlet(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    from sqlalchemy.util import greenlet_spawn

    return await greenlet_spawn(function, *args, **kwargs)


def _select(connection: Any) -> object:
    cursor = connection.cursor()
    cursor.execute("select 1")
    answer = cursor.fetchone()
    cursor.close()
    return tuple(answer)


class QueuePoolSqlite(SqlAlchemyDriver):
    label = "sqlalchemy-QueuePool-sqlite"
    features = _QUEUE


class NullPoolSqlite(SqlAlchemyDriver):
    label = "sqlalchemy-NullPool-sqlite"
    pool_class = pool.NullPool
    features = _OWN | Feature.ABANDON | Feature.MANY


class StaticPoolSqlite(SqlAlchemyDriver):
    label = "sqlalchemy-StaticPool-sqlite"
    pool_class = pool.StaticPool
    features = (
        Feature.DISPOSE | Feature.REPEATED_RELEASE | Feature.POOLED | Feature.ABANDON | Feature.MANY | Feature.SHARED
    )


class AssertionPoolSqlite(SqlAlchemyDriver):
    label = "sqlalchemy-AssertionPool-sqlite"
    pool_class = pool.AssertionPool
    # Disposed of while its connection is checked out, it raises when that comes back.
    features = (_OWN & ~Feature.DISPOSE) | Feature.ABANDON | Feature.POOLED | Feature.REJECTS

    @property
    def refusal(self) -> str:
        return "AssertionError"


class SingletonThreadPoolSqlite(SqlAlchemyDriver):
    """One connection for each thread: every handle has a thread of its own."""

    label = "sqlalchemy-SingletonThreadPool-sqlite"
    pool_class = pool.SingletonThreadPool
    features = _OWN | Feature.ABANDON | Feature.POOLED | Feature.MANY

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        self._threads: list[ThreadPoolExecutor] = []
        super().open(where, folder, size=size, timeout=timeout, **options)

    def acquire(self) -> Handle:
        thread = ThreadPoolExecutor(1)
        self._threads.append(thread)

        def call(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
            return thread.submit(function, *args, **kwargs).result()

        return Handle(call(self.engine.raw_connection), call)

    def close(self) -> None:
        super().close()
        for thread in self._threads:
            thread.shutdown()


class QueuePoolPsycopg(SqlAlchemyDriver):
    label = "sqlalchemy-QueuePool-psycopg"
    scheme = "postgresql+psycopg"
    needs = ("psycopg",)
    since = (2, 0)
    on_postgres = True
    features = _QUEUE


class AsyncQueuePoolAiosqlite(AsyncSqlAlchemyDriver):
    label = "sqlalchemy-AsyncAdaptedQueuePool-aiosqlite"
    scheme = "sqlite+aiosqlite"
    needs = ("aiosqlite", "greenlet")
    pool_class = pool.AsyncAdaptedQueuePool
    features = (_QUEUE | Feature.CANCEL) & ~_LOST
    stalls = VERSION < (2, 0)


class AsyncNullPoolAiosqlite(AsyncQueuePoolAiosqlite):
    label = "sqlalchemy-NullPool-aiosqlite"
    pool_class = pool.NullPool
    features = (_OWN | Feature.ABANDON | Feature.MANY) & ~_LOST


class AsyncQueuePoolAsyncpg(AsyncQueuePoolAiosqlite):
    label = "sqlalchemy-AsyncAdaptedQueuePool-asyncpg"
    scheme = "postgresql+asyncpg"
    needs = ("asyncpg", "greenlet")
    on_postgres = True


class AsyncQueuePoolPsycopg(AsyncQueuePoolAiosqlite):
    label = "sqlalchemy-AsyncAdaptedQueuePool-psycopg"
    scheme = "postgresql+psycopg_async"
    needs = ("psycopg", "greenlet")
    since = (2, 0)
    on_postgres = True

    def close_detached(self, handle: Handle) -> None:
        bare = handle.connection.dbapi_connection.driver_connection
        super().close_detached(handle)
        self._thread.run(bare.close())  # SQLAlchemy 2.1 leaves it open


DRIVERS: tuple[type[SqlAlchemyDriver], ...] = (
    QueuePoolSqlite,
    NullPoolSqlite,
    StaticPoolSqlite,
    AssertionPoolSqlite,
    SingletonThreadPoolSqlite,
    QueuePoolPsycopg,
    AsyncQueuePoolAiosqlite,
    AsyncNullPoolAiosqlite,
    AsyncQueuePoolAsyncpg,
    AsyncQueuePoolPsycopg,
)
