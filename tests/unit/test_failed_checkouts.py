"""How each checkout went without a connection: counted by its outcome and the kind of error, whatever the pool."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from poolscope import semconv
from poolscope.adapters.connects import connect_ends, connect_fails
from poolscope.core.lease import Outcome
from poolscope.core.pool import OTHER_ERROR
from tests.support.scene import Scene
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented()


def counted(telemetry: Telemetry) -> dict[tuple[str, str], int]:
    """The metric's values, by outcome and kind of error."""
    points = telemetry.collect().points(semconv.FAILED_CHECKOUTS)
    return {
        (point.attributes[semconv.CHECKOUT_OUTCOME], point.attributes[semconv.ERROR_TYPE]): point.value
        for point in points
    }


class TooManyError(Exception):
    """As asyncpg's."""

    sqlstate = "53300"


def test_each_outcome_has_its_series(telemetry: Telemetry) -> None:
    """
    A timeout, a refusal of the server, a connect that fails otherwise, an error of the application's own listener; a
    checkout that gets its connection counts nowhere.
    """
    answers: list[Exception | None] = [None, TooManyError("too many"), OSError("no route"), None]

    def connect() -> Any:
        answer = answers.pop(0)
        if answer is not None:
            raise answer
        return sqlite3.connect(":memory:")

    pool = sqlalchemy.pool.QueuePool(connect, pool_size=1, max_overflow=0, timeout=0.01)
    held = pool.connect()
    with pytest.raises(sqlalchemy.exc.TimeoutError):
        pool.connect()
    held.invalidate()
    with pytest.raises(TooManyError):
        pool.connect()
    with pytest.raises(OSError, match="no route"):
        pool.connect()

    @sqlalchemy.event.listens_for(pool, "checkout")
    def refuse(*_: object) -> None:
        raise ValueError

    with pytest.raises(ValueError):
        pool.connect()
    assert counted(telemetry) == {
        ("timeout", "sqlalchemy.exc.TimeoutError"): 1,
        ("server_refused", f"{__name__}.TooManyError"): 1,
        ("connect_failed", "OSError"): 1,
        ("error", "ValueError"): 1,
    }
    assert telemetry.collect().total(semconv.TIMEOUTS) == 1


@pytest.mark.parametrize("then", [None, OSError("no route"), TooManyError("too many")], ids=repr)
def test_a_refusal_is_over_with_the_next_connect(then: Exception | None) -> None:
    """A checkout that tries again ends by what comes last; what a worker of the pool met is no checkout's."""
    scene = Scene(1)
    lease = scene.begin_checkout()
    connect_fails(scene.pool, lease, scene.clock(), TooManyError("too many"))
    assert lease.refusal is not None
    assert (lease.refusal.in_checkout, lease.connect_failed) == (True, True)
    connect_fails(scene.pool, None, scene.clock(), TooManyError("too many"))
    assert [refusal.in_checkout for refusal in scene.pool.refusals] == [True, False]
    if then is None:
        connect_ends(scene.pool, lease, scene.clock())
    else:
        connect_fails(scene.pool, lease, scene.clock(), then)
    assert (lease.refusal is not None, lease.connect_failed) == (isinstance(then, TooManyError), then is not None)


def test_there_are_as_many_series_as_kinds_of_error_that_are_kept() -> None:
    """A library that makes a class for each error does not make a series for each."""
    scene = Scene(1)
    for number in range(100):
        scene.pool.checkout().failed(Outcome.ERROR, f"some.Error{number}")
    assert scene.pool.failed_checkouts["error", OTHER_ERROR].read() == 68
    assert len(scene.pool.failed_checkouts) == 33
