"""
Spans: slow and failed checkouts, and leases inside a recorded span.

Hooks only put leases into a deque; the background thread makes the spans, with the times the leases had. So no SDK call
happens on a path that the garbage collector can reach, and no request pays for a span.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, Status, StatusCode

from poolscope import __version__, semconv
from poolscope.core import clock
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.core.location import locate
from poolscope.core.phases import HOLD_PHASES
from poolscope.otel.metrics.observations import identity_attributes
from poolscope.otel.traces.prebuilt_spans import PrebuiltSpans

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from types import CodeType

    from poolscope.config import Settings
    from poolscope.core.lease import Lease
    from poolscope.core.making import Making
    from poolscope.core.pool_identity import Identity
    from poolscope.types import LibraryObject

# What is kept for the background thread, of checkouts and of holds; beyond that the newest are dropped and counted as
# an error of ours. Each keeps the span around it alive, with its attributes: 5 KB where an exporter is stuck.
_MOST_KEPT: Final = 4_000
# The holders that one slow checkout is linked to, oldest first; the SDK's own limit is 128.
_MOST_LINKS: Final = 32
# Places in the application of which the attributes are remembered.
_MOST_PLACES: Final = 2048
_NANOSECONDS: Final = 1_000_000_000
_QUERY, _IN_TRANSACTION, _IDLE = (semconv.SPAN_HOLD_PHASE_PREFIX + phase for phase in HOLD_PHASES)


class Spans:
    """
    Makes the spans of one TracerProvider. A `PoolListener`.

    Args:
        provider: The TracerProvider.
        settings: Which spans are wanted.
    """

    def __init__(self, provider: trace.TracerProvider, settings: Settings) -> None:
        self._provider = provider
        self._waits: deque[tuple[Lease, Collection[Lease]]] = deque()
        self._holds: deque[Lease] = deque()
        self._places: dict[tuple[int, int, int], tuple[Identity, CodeType | None, str, dict[str, Any]]] = {}
        self._checkouts = settings.checkout_spans != "never"
        #: The wait from which a checkout becomes a span, in seconds; those that fail always do.
        self.threshold = 0.0 if settings.checkout_spans == "always" else settings.checkout_span_threshold
        self._hold_spans = settings.hold_spans
        self.open()

    def open(self) -> None:
        """Take the tracer; again when a provider was set since."""
        self._tracer: Any = self._provider.get_tracer(semconv.SCOPE, __version__, schema_url=semconv.SCHEMA_URL)
        self._ids = _Ids.of(self._tracer)
        self._ready = PrebuiltSpans(self._tracer)

    def waited(self, lease: Lease, holders: Collection[Lease]) -> None:
        """Keep a slow or failed checkout for the background thread, which makes its span."""
        if self._checkouts and not lease.unrecorded and not lease.silent and self._room(self._waits):
            self._waits.append((lease, holders))

    def nested(self, lease: Lease, held: Lease) -> None:
        """Nothing: a nested checkout has no span of its own."""

    def returned(self, lease: Lease) -> None:
        """Nothing: leases that have a span come through `traced`."""

    def suspected(self, lease: Lease) -> None:
        """Nothing: a suspicion has no span."""

    def made(self, making: Making) -> None:
        """Nothing: a pool has no span."""

    def traced(self, lease: Lease) -> None:
        """Keep a lease that ended for the background thread, which makes its span."""
        if self._hold_spans and not lease.span_reported and self._room(self._holds):
            self._holds.append(lease)

    def leaked(self, lease: Lease) -> None:
        """
        Make the span of a lease that was found leaked while it is still held, as far as it is known. From the
        background thread.
        """
        if self._hold_spans and lease.trace is not None and not lease.span_reported:
            lease.span_reported = True
            self._hold(lease, ready=self._ready.usable())

    def kept(self) -> int:
        """How many leases wait for the background thread."""
        return len(self._waits) + len(self._holds)

    def drain(self, is_leaving: Callable[[], bool] = lambda: False) -> None:
        """
        Make the spans of all leases so far. Only ever from one thread at a time.

        Args:
            is_leaving: Whether to come to an end: what is left is for the next time. A processor may export each span
                at once, which takes as long as the network does.
        """
        if type(self._tracer).__module__.startswith("opentelemetry.trace"):
            self.open()  # the API's proxy, until a provider is set: it may be by now
        while self._waits and not is_leaving():
            lease, holders = self._waits.popleft()
            guard.run("spans.checkout", lambda lease=lease, holders=holders: self._checkout(lease, holders), None)  # type: ignore[misc]
        if not self._holds:
            return
        ready = self._ready.usable()
        while self._holds and not is_leaving():
            lease = self._holds.popleft()
            try:
                if not lease.span_reported:  # it may have been returned in the moment in which it was found leaked
                    lease.span_reported = True
                    self._hold(lease, ready=ready)
            except Exception:  # noqa: BLE001 - ours
                guard.caught("spans.hold")

    def forget(self) -> None:
        """In a child process after a fork: what was kept is the parent's to report."""
        self._waits.clear()
        self._holds.clear()

    def _known_of(self, lease: Lease) -> tuple[str, dict[str, Any]]:
        # What is the same for each lease of a pool from one place: the name of its hold span and those attributes. The
        # keys are identities, since hashing a code object costs a microsecond; the objects are kept with them.
        identity = lease.pool.identity
        code, instruction = lease.packed_stack[:2] or (None, 0)
        key = (id(identity), id(code), instruction)
        known = self._places.get(key)
        if known is None:
            if len(self._places) >= _MOST_PLACES:
                self._places.clear()
            attributes: dict[str, Any] = dict(identity_attributes(identity))
            if code is not None:
                location = locate(code, instruction)
                attributes[semconv.CODE_FUNCTION] = location.function
                attributes[semconv.CODE_FILE] = location.file
                attributes[semconv.CODE_LINE] = location.line
            known = self._places[key] = (identity, code, semconv.HOLD_SPAN.named(identity.name), attributes)
        return known[2], known[3]

    def _room(self, kept: deque[Any]) -> bool:
        if len(kept) < _MOST_KEPT:
            return True
        guard.count("spans.dropped")
        return False

    def _checkout(self, lease: Lease, holders: Collection[Lease]) -> None:
        pool = lease.pool
        attributes = self._known_of(lease)[1].copy()
        if pool.limit is not None:
            attributes[semconv.POOL_LIMIT] = pool.limit
        attributes[semconv.POOL_USED] = lease.used_at_checkout
        attributes[semconv.POOL_PENDING] = lease.pending_at_checkout
        # A reader of the spans needs it to know what the waits without one have in common.
        attributes[semconv.CHECKOUT_SPAN_THRESHOLD] = self.threshold
        for phase, seconds in lease.wait_phases().items():
            attributes[semconv.SPAN_WAIT_PHASE_PREFIX + phase] = seconds
        if lease.error_type is not None:
            attributes[semconv.ERROR_TYPE] = lease.error_type
        oldest = sorted(
            (holder for holder in holders if holder.trace is not None), key=lambda holder: holder.requested_at
        )
        links = [Link(context) for context in map(self._ids.context_of, oldest[:_MOST_LINKS]) if context is not None]
        span = self._tracer.start_span(
            semconv.CHECKOUT_SPAN.named(pool.identity.name),
            context=trace.set_span_in_context(lease.trace) if lease.trace is not None else None,
            attributes=attributes,
            links=links,
            start_time=clock.to_unix_nanoseconds(lease.requested_at, pool.now),
        )
        if lease.outcome not in (None, Outcome.CANCELLED):
            span.set_status(Status(StatusCode.ERROR, lease.error_type))
        span.end(end_time=clock.to_unix_nanoseconds(lease.acquired_at or lease.ended_at or pool.now(), pool.now))

    def _hold(self, lease: Lease, *, ready: bool) -> None:
        pool = lease.pool
        name, attributes = self._known_of(lease)
        parent: SpanContext = lease.trace.get_span_context()
        now = pool.now()
        calendar = time.time_ns() - int(now * _NANOSECONDS)
        started = calendar + int((lease.acquired_at or lease.requested_at) * _NANOSECONDS)
        ended = calendar + int((lease.ended_at or now) * _NANOSECONDS)
        attributes = _hold_attributes(lease, attributes)
        ready = ready and lease.leak is None and parent.trace_flags.sampled
        context = self._ids.context_of(lease) if ready else None
        if context is not None:
            self._ready.end(name, context, parent, attributes, (started, ended))
            return
        with self._ids.reserved_for(lease):
            span = self._tracer.start_span(
                name,
                context=trace.set_span_in_context(lease.trace),
                attributes=attributes,
                links=_request_of(lease),
                start_time=started,
            )
        lease.span_context = span.get_span_context()
        span.end(end_time=ended)


def _request_of(lease: Lease) -> list[Link]:
    # A leak is reported when the span around its request has ended: a link leads there, past the spans between.
    span = lease.unit.span if lease.unit is not None and lease.leak is not None else None
    return [Link(span.get_span_context())] if span is not None else []


def _hold_attributes(lease: Lease, known: dict[str, Any]) -> dict[str, Any]:
    attributes = known.copy()
    if lease.ended_at is None:
        for phase, seconds in lease.hold_phases().items():
            attributes[semconv.SPAN_HOLD_PHASE_PREFIX + phase] = seconds
    else:
        query, in_transaction = lease.query_time, lease.idle_in_transaction_time
        attributes[_QUERY], attributes[_IN_TRANSACTION] = query, in_transaction
        attributes[_IDLE] = max(0.0, lease.held() - query - in_transaction)
    attributes[semconv.LEASE_QUERIES] = lease.queries
    if lease.leak is not None:
        attributes[semconv.LEAK_KIND] = lease.leak
        # The entry span has ended by now: here a tail sampler finds it.
        attributes[semconv.FINDINGS] = (LEAK,)
    if lease.backend_process_id is not None:
        attributes[semconv.BACKEND_PROCESS_ID] = lease.backend_process_id
    return attributes


class _Ids:
    """
    Gives hold spans their ids before they exist, so that a checkout can link to a lease that is still held.

    The SDK's Tracer asks its ``id_generator`` for a span's id; our own tracer's is put behind this one. Where there
    is no such attribute, a link leads to the span around the holder instead.
    """

    def __init__(self, generator: LibraryObject) -> None:
        self._generator = generator
        self.reserved: int | None = None

    @classmethod
    def of(cls, tracer: LibraryObject) -> _Ids:
        generator = getattr(tracer, "id_generator", None)
        if isinstance(generator, cls):
            return generator
        ids = cls(generator)
        if generator is not None:
            tracer.id_generator = ids
        return ids

    def generate_span_id(self) -> int:
        reserved, self.reserved = self.reserved, None
        return reserved if reserved is not None else int(self._generator.generate_span_id())

    def generate_trace_id(self) -> int:
        return int(self._generator.generate_trace_id())

    def __getattr__(self, name: str) -> LibraryObject:
        return getattr(self._generator, name)

    def context_of(self, lease: Lease) -> SpanContext | None:
        if lease.span_context is None:
            around: SpanContext = lease.trace.get_span_context()
            if self._generator is None:
                return around
            lease.span_context = SpanContext(
                around.trace_id,
                self._generator.generate_span_id(),
                is_remote=False,
                trace_flags=around.trace_flags,
                trace_state=around.trace_state,
            )
        context: SpanContext = lease.span_context
        return context

    def reserved_for(self, lease: Lease) -> _Reservation:
        return _Reservation(self, lease.span_context.span_id if lease.span_context is not None else None)


class _Reservation:
    def __init__(self, ids: _Ids, span_id: int | None) -> None:
        self._ids = ids
        self._span_id = span_id

    def __enter__(self) -> None:
        self._ids.reserved = self._span_id

    def __exit__(self, *_: object) -> None:
        self._ids.reserved = None
