"""The span of a leaked lease: there when the leak is found, and only once."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export
from opentelemetry.trace import SpanKind

import poolscope
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.pool_registry import open_pool_registries
from tests.support.pools import Source, identity
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.trace import SpanContext

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

#: The age in seconds from which a lease is overdue, and a hold long: none gets so old by itself, however busy the
#: machine is.
THRESHOLD = 3600.0
PATIENCE = 60.0


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(leak_threshold=THRESHOLD, long_hold_threshold=THRESHOLD, checkout_spans="never")


@pytest.fixture
def pool(telemetry: Telemetry) -> Pool:
    """A pool of the core's own."""
    return open_pool_registries[-1].register(identity("shop"), Source(4))


def checked_out(telemetry: Telemetry, pool: Pool) -> Lease:
    """A lease inside a recorded span."""
    with telemetry.tracer.start_as_current_span("request"):
        lease = pool.checkout()
    lease.acquired()
    return lease


def grow_old(lease: Lease) -> None:
    """Let a lease be overdue."""
    assert lease.acquired_at is not None
    lease.acquired_at -= 2 * THRESHOLD


def holds(telemetry: Telemetry) -> list[dict[str, object]]:
    """The attributes of the hold spans so far."""
    return [dict(span.attributes or {}) for span in telemetry.spans(semconv.HOLD_SPAN)]


def test_a_leak_has_its_span_while_it_is_out_and_no_other_when_it_comes_back(telemetry: Telemetry, pool: Pool) -> None:
    """Not lost, though it may never end; not doubled, though it does."""
    lease = checked_out(telemetry, pool)
    grow_old(lease)
    (span,) = wait_until(lambda: holds(telemetry), PATIENCE, "the leak to be found")
    assert span[semconv.LEAK_KIND] == "overdue"
    lease.released()
    assert len(holds(telemetry)) == 1
    checked_out(telemetry, pool).released()
    assert [span.get(semconv.LEAK_KIND) for span in holds(telemetry)] == ["overdue", None]


def test_what_comes_back_while_it_is_found_has_one_span(telemetry: Telemetry, pool: Pool) -> None:
    """The hook and the watchdog may both have it in hand."""
    session = telemetry.instrumentor._session
    assert session is not None
    lease = checked_out(telemetry, pool)
    lease.released()
    session._spans.leaked(lease)
    assert len(holds(telemetry)) == 1


def test_an_abandoned_lease_has_its_kind_on_its_span(telemetry: Telemetry, pool: Pool) -> None:
    """Also when the spans are made before the findings are reported; and the leak is counted at once."""
    session = telemetry.instrumentor._session
    assert session is not None
    checked_out(telemetry, pool).released(abandoned=True)
    session._spans.drain()
    (span,) = holds(telemetry)
    assert span[semconv.LEAK_KIND] == "abandoned"
    assert span[semconv.FINDINGS] == (LEAK,)
    assert telemetry.collect().value(semconv.LEAKS, "shop", LEAK_KIND="abandoned") == 1


def test_a_leak_outside_of_any_span_has_none(telemetry: Telemetry, pool: Pool) -> None:
    """There is no trace to put it into."""
    lease = pool.checkout()
    lease.acquired()
    grow_old(lease)
    wait_until(lambda: lease.leak is not None, PATIENCE, "the leak to be found")
    assert holds(telemetry) == []
    assert weakref.ref(lease)() is lease


@pytest.fixture
def events() -> Any:
    """The events that left."""
    kind = getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter
    return kind()


@pytest.fixture
def with_events(events: Any) -> Iterator[Telemetry]:
    """Poolscope, on, with its events."""
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(log_export.SimpleLogRecordProcessor(events))
    thresholds = {"leak_threshold": THRESHOLD, "long_hold_threshold": THRESHOLD}
    yield from instrumented(**thresholds, checkout_spans="never", logger_provider=provider)
    provider.shutdown()


def leaked_by_a_request(telemetry: Telemetry) -> tuple[Lease, SpanContext, SpanContext]:
    """
    A lease that its request leaves behind, with the span of the request, which has ended, and the one within it in
    which the connection was asked for.
    """
    pool = open_pool_registries[-1].register(identity("shop"), Source(4))
    with (
        telemetry.tracer.start_as_current_span("GET /cart", kind=SpanKind.SERVER) as request,
        poolscope.unit_of_work("GET /cart", kind="http"),
        telemetry.tracer.start_as_current_span("load the cart") as inner,
    ):
        lease = pool.checkout()
        lease.acquired()
    return lease, request.get_span_context(), inner.get_span_context()


def told(events: Any, event: semconv.Event) -> list[tuple[int, int]]:
    """The trace and span of each event of that kind."""
    records = [one.log_record for one in events.get_finished_logs()]
    of_event = [
        one for one in records if event.name in (getattr(one, "event_name", None), one.attributes.get("event.name"))
    ]
    return [(one.trace_id, one.span_id) for one in of_event]


def test_a_request_that_is_over_is_found_from_its_leak(with_events: Telemetry, events: Any) -> None:
    """
    Its own span has ended and says nothing. The event is in its trace, at the span in which the connection was asked
    for, and so is the one that reports the return; the hold span is a child of that one, and linked to the request's.
    """
    lease, request, inner = leaked_by_a_request(with_events)
    grow_old(lease)
    (told_leak,) = wait_until(lambda: told(events, semconv.LEAK_EVENT), PATIENCE, "the leak to be reported")
    assert told_leak == (request.trace_id, inner.span_id)
    (hold,) = with_events.spans(semconv.HOLD_SPAN)
    assert hold.parent is not None
    assert hold.parent.span_id == inner.span_id
    assert [(link.context.trace_id, link.context.span_id) for link in hold.links] == [
        (request.trace_id, request.span_id)
    ]
    (of_request,) = (span for span in with_events.spans() if span.context.span_id == request.span_id)
    assert semconv.FINDINGS not in (of_request.attributes or {})
    lease.released()
    (resolved,) = wait_until(lambda: told(events, semconv.LEAK_RESOLVED_EVENT), PATIENCE, "the return to be reported")
    assert resolved == told_leak


def test_a_connection_that_is_returned_has_a_hold_span_without_links(with_events: Telemetry) -> None:
    """Its parent says enough."""
    session = with_events.instrumentor._session
    assert session is not None
    session.worker.stop()  # a second after the request it would be a leak
    lease, _, inner = leaked_by_a_request(with_events)
    lease.released()
    (hold,) = with_events.spans(semconv.HOLD_SPAN)
    assert (hold.parent.span_id if hold.parent else None, len(hold.links)) == (inner.span_id, 0)
