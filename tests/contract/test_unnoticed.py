"""What the libraries' own tests noticed of the hooks once (see tests/transparency), and must not notice again."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import signal
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock, call

import pytest
import sqlalchemy
import wrapt
from sqlalchemy import pool

from poolscope.adapters.base import resolve
from poolscope.adapters.registry import ADAPTERS, load
from poolscope.core.guard import guard
from poolscope.core.lease import Lease
from tests.support.skips import is_installed, require
from tests.support.watched import watched

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres


def test_nothing_is_read_from_a_strange_driver() -> None:
    """
    A connection of an unknown kind sees the calls that SQLAlchemy makes and no others, though it
    would answer any.
    """
    connection = Mock()
    with watched("sqlalchemy") as seen:
        lone = pool.QueuePool(lambda: connection)
        lone.connect().close()
        assert seen.only().leases == set()
    assert connection.mock_calls == [call.rollback()]


@pytest.mark.parametrize("place", ["handed_over", "acquired", "released"])
def test_a_time_limit_that_strikes_within_a_hook_reaches_the_application(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    What a signal handler raises (the time limit of a Celery task or an RQ job) while a hook runs is
    the application's.
    """

    class TimeLimitError(Exception):
        pass

    def limit(_: int, __: object) -> None:
        raise TimeLimitError

    def strikes(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, limit)
    try:
        with watched("sqlalchemy"):
            lone = pool.QueuePool(Mock)
            lone.connect().close()
            monkeypatch.setattr(Lease, place, strikes)
            with pytest.raises(TimeLimitError):
                lone.connect().close()
            assert guard.counts() == {}
            monkeypatch.undo()
            lone.connect().close()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_what_asyncpg_refuses_at_the_call_is_refused_at_the_call(database: Postgres) -> None:
    """
    A transaction or prepared statement of a returned connection raises when its method is called, not first when the
    coroutine is awaited; and a method that was no coroutine function is none under the hooks.
    """
    asyncpg = pytest.importorskip("asyncpg")
    from asyncpg.prepared_stmt import PreparedStatement
    from asyncpg.transaction import Transaction

    methods: list[Any] = [Transaction.start, PreparedStatement.executemany]
    before = [inspect.iscoroutinefunction(method) for method in methods]

    async def scenario() -> None:
        async with asyncpg.create_pool(database.dsn, min_size=1, max_size=1) as lone:
            async with lone.acquire() as connection:
                transaction = connection.transaction()
                statement = await connection.prepare("SELECT $1::int")
            with pytest.raises(asyncpg.InterfaceError, match=r"cannot call Transaction\.start"):
                transaction.start()
            with pytest.raises(asyncpg.InterfaceError, match=r"cannot call PreparedStatement\.executemany"):
                statement.executemany([(1,)])

    with watched("asyncpg"):
        methods = [Transaction.start, PreparedStatement.executemany]
        assert [inspect.iscoroutinefunction(method) for method in methods] == before
        asyncio.run(asyncio.wait_for(scenario(), 60))


def test_a_constructor_shows_the_librarys_own_function() -> None:
    """SQLAlchemy looks at the code of its constructors for the arguments that an engine takes, and may find them."""
    code = sqlalchemy.engine.Engine.__init__.__code__
    with watched("sqlalchemy"):
        assert isinstance(vars(sqlalchemy.engine.Engine)["__init__"], wrapt.FunctionWrapper)
        assert sqlalchemy.engine.Engine.__init__.__code__ is code
        engine = sqlalchemy.create_engine("sqlite://", execution_options={"schema_translate_map": None})
        engine.execution_options(isolation_level="SERIALIZABLE").dispose()


@pytest.mark.parametrize(
    "name", [name for name in ADAPTERS if any(point.is_looked_at for point in load([name])[0].points)]
)
def test_every_constructor_that_is_hooked_shows_the_librarys_own_function(name: str) -> None:
    """The same for all pools: the function in the place of a constructor has the constructor's code."""
    adapter: Any = load([name])[0]
    require(is_installed(adapter.module), f"{adapter.module} missing", "make env")
    module = importlib.import_module(adapter.module)
    constructors = [resolve(module, one.where) for one in adapter.points if one.is_looked_at]
    before = [getattr(owner, name).__code__ for owner, name in constructors]
    with watched(name):
        assert [getattr(owner, name).__code__ for owner, name in constructors] == before
