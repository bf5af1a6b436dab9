"""Nothing of a unit of work outlives it, whatever was found about it."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.catalogue.holds import LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.histogram import Distribution
from poolscope.core.lease import Outcome
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work_scope import begin
from tests.support.telemetry import Telemetry
from tests.support.units import Queries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.work import UnitOfWork

REQUESTS = 60
REPEATED = "select * from t where id = %s"


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on, with spans for everything and no exporter that would keep them; every finding is reported."""
    telemetry = Telemetry(finding_interval=0, long_hold_threshold=0.001, checkout_spans="always")
    telemetry.tracer_provider = TracerProvider(shutdown_on_exit=False)
    telemetry.tracer = telemetry.tracer_provider.get_tracer("tests")
    telemetry.start()
    yield telemetry
    telemetry.shutdown()


def plain(queries: Queries) -> None:
    """Nothing that would be found."""
    queries(3)


def repeats(queries: Queries) -> None:
    """An N+1, and pages with parameters."""
    queries(8, REPEATED)
    lease = queries.pool.checkout()
    lease.acquired()
    for number in range(8):
        lease.statement_begins("select * from t where a = %s and id > %s order by id limit 5", parameters=("a", number))
        lease.call_ends(in_transaction=False)
    lease.released()


def nests(queries: Queries) -> None:
    """A second connection inside a first."""
    first = queries.pool.checkout()
    first.acquired()
    queries(1)
    first.released()


def holds_long(queries: Queries) -> None:
    """Longer than the threshold."""
    lease = queries.pool.checkout()
    lease.acquired()
    deadline = threading.Event()
    deadline.wait(0.005)
    lease.released()


def gives_up(queries: Queries) -> None:
    """Waits until it times out."""
    queries.pool.checkout().failed(Outcome.TIMEOUT, "TimeoutError")


def is_collected(queries: Queries) -> None:
    """Drops a connection."""
    lease = queries.pool.checkout()
    lease.acquired()
    lease.released(abandoned=True)


def exemplars() -> set[int]:
    """The identities of the spans that are an exemplar of any histogram: at most one a bucket."""
    histograms = [each for each in gc.get_objects() if issubclass(type(each), Distribution)]
    return {id(span) for each in histograms for _, (span, _) in each.read().exemplars.values()}


CAUSES = {
    "": plain, N_PLUS_ONE: repeats, NESTED_CHECKOUT: nests, LONG_HOLD: holds_long, POOL_EXHAUSTED: gives_up,
    LEAK: is_collected,
}  # fmt: skip


def in_this_thread(work: Callable[[], None]) -> None:
    """As a WSGI server does."""
    work()


def in_a_thread(work: Callable[[], None]) -> None:
    """Of its own, that ends."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(60)


def in_a_task(work: Callable[[], None]) -> None:
    """Of an event loop that ends."""

    async def run() -> None:
        work()
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize("where", [in_this_thread, in_a_thread, in_a_task])
@pytest.mark.parametrize(("finding", "cause"), CAUSES.items(), ids=[cause.__name__ for cause in CAUSES.values()])
def test_a_unit_of_work_goes_when_it_is_over(
    telemetry: Telemetry,
    finding: str,
    cause: Callable[[Queries], None],
    where: Callable[[Callable[[], None]], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """
    By reference counting alone, with its shares and what it repeated, once the background thread has told what was
    found. Of the spans around many only those stay that are a histogram's exemplars.
    """
    queries = Queries()
    units: list[weakref.ref[Any]] = []
    spans: list[weakref.ref[Any]] = []
    told: set[str] = set()

    def request() -> None:
        work_scope = begin(open_pool_registries[-1], "http", "GET /")
        assert work_scope is not None
        unit: UnitOfWork = work_scope.unit
        with telemetry.tracer.start_as_current_span("request", kind=SpanKind.SERVER) as span:
            cause(queries)
        work_scope.end()
        told.update(unit.findings)
        units.append(weakref.ref(unit))
        spans.append(weakref.ref(span))

    gc.collect()
    gc.disable()
    try:
        with caplog.at_level(logging.CRITICAL):
            for _ in range(REQUESTS):
                where(request)
            telemetry.instrumentor.flush()
        assert {finding} <= {"", *told}  # a busy machine may hold something for long
        assert [one() for one in units] == [None] * REQUESTS
        kept = exemplars()
        assert {id(one()) for one in spans if one() is not None} <= kept
    finally:
        gc.enable()
