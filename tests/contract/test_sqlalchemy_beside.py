"""Beside others: the upstream instrumentation, and whoever wraps SQLAlchemy after us."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from sqlalchemy import pool
from sqlalchemy.pool import base

from poolscope import semconv
from poolscope.core.calls import KEY
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from tests.contract.drivers.sqlalchemy import VERSION, QueuePoolSqlite
from tests.contract.subject import Subject
from tests.support.skips import require
from tests.support.telemetry import Collected, Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

UPSTREAM = "opentelemetry.instrumentation.sqlalchemy"


@pytest.fixture
def upstream() -> Iterator[Any]:
    """The upstream instrumentor, uninstrumented afterwards."""
    require(importlib.util.find_spec(UPSTREAM), f"{UPSTREAM} missing", "make env")
    require(VERSION < (2, 1), "upstream does nothing on SQLAlchemy 2.1", "make matrix ARGS='--only 2.0'")
    instrumentor = importlib.import_module(UPSTREAM).SQLAlchemyInstrumentor()
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.mark.parametrize("first", ["ours", "theirs"])
def test_beside_the_upstream_instrumentation(upstream: Any, first: str, tmp_path: Path) -> None:
    """
    On the same providers, in either order, each counts for itself: ours exactly, in our scope; no span of ours twice,
    and theirs are there as without us.
    """
    telemetry = Telemetry(checkout_spans="always")
    theirs = {
        "tracer_provider": telemetry.tracer_provider,
        "meter_provider": telemetry.meter_provider,
        "skip_dep_check": True,
    }
    if first == "theirs":
        upstream.instrument(**theirs)
    telemetry.start()
    if first == "ours":
        upstream.instrument(**theirs)
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'beside.db'}", pool_logging_name="beside")
    with telemetry.tracer.start_as_current_span("request"):
        for _ in range(3):
            with engine.connect() as connection:
                connection.execute(sqlalchemy.text("select 1"))
    collected = telemetry.collect()
    assert collected.counts(semconv.WAIT_TIME, "beside") == collected.counts(semconv.USE_TIME, "beside") == {"": 3}
    assert collected.used("beside") == collected.value(semconv.DRIFT, "beside") == 0
    assert len(telemetry.spans(semconv.CHECKOUT_SPAN)) == len(telemetry.spans(semconv.HOLD_SPAN)) == 3
    scopes = {span.instrumentation_scope.name for span in telemetry.spans()}
    assert scopes == {"tests", semconv.SCOPE, UPSTREAM}
    assert Collected.of(telemetry.reader.get_metrics_data(), UPSTREAM).metrics
    engine.dispose()
    upstream.uninstrument()
    telemetry.shutdown()


@pytest.mark.parametrize("first_out", ["ours", "theirs"])
@pytest.mark.parametrize("first_in", ["ours", "theirs"])
def test_either_may_go_first(upstream: Any, first_in: str, first_out: str, tmp_path: Path) -> None:
    """In whatever order both come and go, with a connection out, SQLAlchemy is afterwards as it was before."""
    before = _hookable()
    telemetry = Telemetry()
    start = {
        "ours": telemetry.start,
        "theirs": lambda: upstream.instrument(meter_provider=telemetry.meter_provider, skip_dep_check=True),
    }
    stop = {"ours": telemetry.stop, "theirs": upstream.uninstrument}
    for who in (first_in, *({"ours", "theirs"} - {first_in})):
        start[who]()
    assert _hookable() != before
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'both.db'}", poolclass=pool.QueuePool)
    out = engine.connect()
    for who in (first_out, *({"ours", "theirs"} - {first_out})):
        stop[who]()
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
    out.close()
    assert _hookable() == before
    engine.dispose()
    telemetry.shutdown()


def _hookable() -> dict[tuple[str, str], Any]:
    owners = (base._ConnectionRecord, base._ConnectionFairy, pool.Pool, sqlalchemy.engine.Engine, sqlalchemy)
    return {
        (owner.__name__, name): value
        for owner in owners
        for name, value in vars(owner).items()
        if callable(value) or isinstance(value, (classmethod, staticmethod))
    }


@pytest.mark.parametrize("same", [True, False], ids=["the same pool", "another"])
def test_a_checkout_between_two_hooks_takes_no_other_s_place(tmp_path: Path, *, same: bool) -> None:
    """
    A whole checkout that runs between the checkout and the library's next step, as of a finaliser that the garbage
    collector found, is distinguished from the one that it interrupts: both are counted, on their pools, and nothing
    stays.
    """
    telemetry = Telemetry()
    telemetry.start()
    urls = [f"sqlite:///{tmp_path / name}" for name in ("outer.db", "inner.db")]
    outer, other = (sqlalchemy.create_engine(url, poolclass=pool.QueuePool) for url in urls)
    inner = outer if same else other
    ours = vars(base._ConnectionRecord)["checkout"]
    interrupted: list[int] = []

    def interrupting(cls: Any, *args: Any) -> Any:
        if not interrupted:
            interrupted.append(1)
            inner.raw_connection().close()
        return ours.__func__(cls, *args)

    type.__setattr__(base._ConnectionRecord, "checkout", classmethod(interrupting))
    try:
        held = outer.raw_connection()
        used = {engine: len(engine.pool.__dict__[KEY].leases) for engine in (outer, inner)}
        assert used == {inner: 0, outer: 1}
        (lease,) = outer.pool.__dict__[KEY].leases
        assert held._connection_record.__dict__[KEY] is lease
        held.close()
        tracked = [outer.pool.__dict__[KEY], inner.pool.__dict__[KEY]]
        assert [len(each.leases) + len(each.pending) for each in tracked] == [0, 0]
        assert sum(each.holds.read().count for each in set(tracked)) == 2
    finally:
        type.__setattr__(base._ConnectionRecord, "checkout", ours)
        telemetry.stop()
        telemetry.shutdown()
        outer.dispose()
        other.dispose()


@pytest.mark.parametrize("moment", ["do_connect", "checkout"])
def test_leaving_in_the_middle_of_a_check_out_is_no_error(tmp_path: Path, moment: str) -> None:
    """A checkout that is under way when `uninstrument()` comes goes on as if there had never been anything."""
    telemetry = Telemetry()
    telemetry.start()
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'leaving.db'}", poolclass=pool.QueuePool)
    left: list[int] = []

    def leave(*_: Any) -> None:
        if not left:
            left.append(1)
            telemetry.stop()

    sqlalchemy.event.listen(engine, moment, leave)
    before = guard.counts()
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text("select 1")).scalar() == 1
    assert left == [1]
    assert guard.counts() == before
    assert not [key for key in engine.pool.__dict__ if key.startswith("_poolscope")]
    engine.dispose()
    telemetry.shutdown()


def test_a_wrapper_around_ours_stays_and_nothing_counts_twice(tmp_path: Path) -> None:
    """
    Where another tool wrapped our hooks, they stay in place after `uninstrument()` and do nothing; instrumented again,
    each event is still counted once.
    """
    telemetry = Telemetry()
    telemetry.start()
    ours = {
        base._ConnectionRecord: ("checkout", "checkin", "_ConnectionRecord__connect", "_ConnectionRecord__close"),
        base._ConnectionFairy: ("_checkout", "detach"),
    }
    wrapped = {(owner, name): vars(owner)[name] for owner, names in ours.items() for name in names}
    calls: list[str] = []

    def wrapping(name: str, original: Any) -> Any:
        def theirs(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return function(*args, **kwargs)

        is_of_class = isinstance(original, classmethod)
        function = original.__func__ if is_of_class else original
        return classmethod(theirs) if is_of_class else theirs

    for (owner, name), original in wrapped.items():
        setattr(owner, name, wrapping(name, original))
    try:
        telemetry.stop()
        driver = QueuePoolSqlite()
        driver.start(None, tmp_path, size=2, timeout=0.05)
        driver.release(driver.acquire())
        assert telemetry.collect().used(driver.pool) is None
        telemetry.start()
        subject = Subject(driver, telemetry)
        subject.release(subject.acquire())
        subject.invalidate(subject.acquire())
        subject.detach(subject.acquire())
        collected = subject.check_at_rest()
        assert collected.counts(semconv.CREATE_TIME, driver.pool) == {"": 1}
        assert (
            open_pool_registries[-1].pools[driver.pool].unattributed.read() == 3
        )  # checkouts, however they are wrapped
        reasons = {
            point.attributes[semconv.CLOSE_REASON]: point.value
            for point in collected.points(semconv.CLOSURES, driver.pool)
        }
        assert reasons == {"invalidated": 1, "detached": 1}
        assert set(calls) == {name for _, name in wrapped}
        driver.stop()
    finally:
        telemetry.shutdown()
        for (owner, name), original in wrapped.items():
            setattr(owner, name, _innermost(original))


def _innermost(hook: Any) -> Any:
    function = getattr(hook, "__func__", hook)
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    return classmethod(function) if isinstance(hook, classmethod) else function
