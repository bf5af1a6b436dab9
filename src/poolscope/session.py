"""
One session: everything between `instrument()` and `uninstrument()`. Wiring only: what is made, started, stopped and
restarted after a fork, in which order.
"""

from __future__ import annotations

import atexit
import os
import weakref
from functools import partial
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics as otel_metrics
from opentelemetry import trace
from opentelemetry.instrumentation.utils import suppress_instrumentation

from poolscope import semconv
from poolscope.adapters.registry import Registry
from poolscope.core import clock
from poolscope.core.event_loops import EventLoops
from poolscope.core.guard import guard
from poolscope.core.listener import Listeners
from poolscope.core.log_lines import log_lines
from poolscope.core.origin import Origins
from poolscope.core.pool_registry import PoolRegistry, open_pool_registries
from poolscope.core.worker import Worker
from poolscope.detectors.detector import Context
from poolscope.detectors.dump import Dump, DumpSignal
from poolscope.detectors.registry import detectors
from poolscope.detectors.watchdog import Watchdog
from poolscope.frameworks.registry import Frameworks
from poolscope.hooks.patching import Patcher, Refused
from poolscope.otel.context import ambient
from poolscope.otel.exit import unblock
from poolscope.otel.logs import Events
from poolscope.otel.metrics.instruments import metrics_of
from poolscope.otel.traces.entry_span import EntrySpanProcessors
from poolscope.otel.traces.spans import Spans

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.config import Settings
    from poolscope.core.pool import Pool
    from poolscope.otel.metrics.instruments import Metrics
    from poolscope.types import LibraryObject


# How long a process that ends without notice (RQ's work horse) may take to send what it knows.
_FLUSH_MILLISECONDS: Final = 1_000


class Session:
    """
    Everything between one `instrument()` and its `uninstrument()`.

    Args:
        settings: The settings.
        tracer_provider: The application's, or None for the global one.
        meter_provider: The application's, or None for the global one.
        logger_provider: The application's, or None for the global one.
    """

    def __init__(
        self,
        settings: Settings,
        tracer_provider: LibraryObject,
        meter_provider: LibraryObject,
        logger_provider: LibraryObject,
    ) -> None:
        self._settings = settings
        self._tracer_provider = tracer_provider or trace.get_tracer_provider()
        # The API's proxy never says when the real provider is there; the global one does.
        self._meter_provider = None if type(meter_provider).__name__ == "_ProxyMeterProvider" else meter_provider
        self._spans = Spans(self._tracer_provider, settings)
        self._events = Events(logger_provider)
        self._metrics: Metrics | None = None
        origins = Origins(settings.stack_depth, settings.application_paths)
        self._event_loops = EventLoops(
            clock.monotonic,
            bounds=semconv.EVENT_LOOP_LAG.boundaries,
            origins=origins,
            heartbeat=settings.event_loop_heartbeat,
            threshold=settings.blocked_event_loop_threshold,
        )
        watched = detectors(
            Context(
                settings, clock.monotonic, self._spans.leaked, self._event_loops, suppress_instrumentation, self._pools
            )
        )
        self._watchdog = Watchdog(watched, self._events, settings.finding_interval, clock.monotonic)
        self.pool_registry = PoolRegistry(
            semconv.DURATION_BOUNDARIES,
            most_pools=settings.max_pools,
            origins=origins,
            ambient=ambient,
            count_bounds=semconv.COUNT_BOUNDARIES,
            most_units=settings.max_units,
            repetition_threshold=settings.n_plus_one_threshold,
            slow_wait=self._spans.threshold,
            listener=Listeners(self._watchdog, self._spans, traced=self._spans),
            long_hold=settings.long_hold_threshold,
            on_diagnose=self._watchdog.diagnose_unit,
            flush=self._flush,
            event_loops=self._event_loops,
        )
        self.pool_registry.findings = self._watchdog.counts
        self.pool_registry.last_run = self._last_run
        self._entry_span_processors = EntrySpanProcessors(
            self.pool_registry.units, self._tracer_provider, self._watchdog.unit_ended
        )
        self._api = Patcher()
        self._dump = Dump()
        self._dump_signal = DumpSignal(settings.dump_signal, self._dump.request)
        self.registry = Registry(self.pool_registry, settings.disabled_adapters)
        self.frameworks = Frameworks(
            self.pool_registry, settings.disabled_frameworks, propagate_to_threads=settings.propagate_to_threads
        )
        self.worker = Worker(
            ("log_lines.tick", log_lines.tick),
            ("pool_registry.tick", self.pool_registry.tick),
            ("event_loops.tick", lambda: self._event_loops.tick(self.pool_registry.pools.values())),
            ("dump.tick", lambda: self._dump.tick(self.pool_registry.pools.values())),
            ("watchdog.tick", lambda: self._watchdog.tick(self.pool_registry.pools.values())),
            ("metrics.drain", self._drain),
            ("spans.drain", lambda: self._spans.drain(self.worker.is_leaving)),
            ("entry_span.attach", self._entry_span_processors.attach),
            on_missing=self.pool_registry.unserved,
            is_needed=lambda: any(pool.pending for pool in self._pools()),
        )
        _sessions.add(self)

    def _pools(self) -> Iterable[Pool]:
        return tuple(self.pool_registry.pools.values())

    def start(self) -> None:
        """Put the hooks in; stay dormant until an SDK is configured."""
        # Hooks pass calls on until all of them are in: half of them would count what they do not see the end of.
        self.pool_registry.sleep()
        self.pool_registry.is_served = self._serve
        self._hear_of_providers()
        self._entry_span_processors.attach()
        open_pool_registries.append(self.pool_registry)
        self.registry.start(hooked=self._hooked)
        self.frameworks.start()
        self._dump_signal.install()
        atexit.register(self._last_run)

    def _hooked(self) -> None:
        self.pool_registry.has_listeners = self._wake
        self.pool_registry.check_listeners()

    def stop(self) -> None:
        """Take the hooks out, emit what is left, and let go of everything."""
        self.pool_registry.end()
        guard.run("instrumentor.stop", self.frameworks.stop, None)
        guard.run("instrumentor.stop", self.registry.stop, None)
        if self.pool_registry in open_pool_registries:
            open_pool_registries.remove(self.pool_registry)
        self._entry_span_processors.detach()
        self._dump_signal.remove()
        self._api.revert()
        self._end()
        self._event_loops.stop()
        self.pool_registry.units.closed = True
        ended = self._end_worker()
        self._close()
        if ended:  # else the thread would keep the process from its end
            atexit.unregister(self._last_run)

    def _close(self) -> None:
        if self._metrics is not None:
            guard.run("instrumentor.close", self._metrics.close, None)

    def after_fork(self) -> None:
        """In the child."""
        log_lines.forget()
        self._spans.forget()
        self._watchdog.forget()
        if self._metrics is not None:
            guard.run("instrumentor.fork", self._metrics.after_fork, None)

    def _hear_of_providers(self) -> None:
        # The API sends no notice when a provider is set. Without this, what happens between that and the next look,
        # within a second, would be lost: the first tasks of a worker that has just forked, for one.
        try:
            from opentelemetry.metrics import _internal  # noqa: PLC0415 - only this needs the API's inside

            self._api.require(_internal, ("_set_meter_provider",))
            self._api.require(trace, ("_set_tracer_provider",))
        except (ImportError, Refused):  # another API: poolscope looks every second
            return
        self._api.wrap(_internal, "_set_meter_provider", self._provided)
        self._api.wrap(trace, "_set_tracer_provider", self._provided)

    def _provided(
        self, wrapped: Callable[..., LibraryObject], _: LibraryObject, args: LibraryObject, kwargs: LibraryObject
    ) -> LibraryObject:
        result = wrapped(*args, **kwargs)
        if self.pool_registry.is_dormant():
            guard.run("instrumentor.provided", self.pool_registry.check_listeners, None)
        # Spans of requests that begin before the background thread runs next get their figures too.
        guard.run("instrumentor.provided", self._entry_span_processors.attach, None)
        return result

    def _wake(self) -> bool:
        meter_provider = self._meter_provider or otel_metrics.get_meter_provider()
        # Not from the API's own provider: it keeps each meter for the real one to come, and we look every second.
        metered = not _of_the_api(meter_provider) and not _of_the_api(meter_provider.get_meter(semconv.SCOPE))
        if not metered and _of_the_api(self._tracer_provider.get_tracer(semconv.SCOPE)):
            return False
        if self._metrics is None:
            self._metrics = metrics_of(meter_provider)
            self._metrics.open(self.pool_registry, native=self._settings.native_aggregation)
        self._spans.open()
        self._events.open()
        if self.pool_registry.ended:  # while another thread of the application woke it
            self._close()
            return False
        return True

    def _serve(self) -> bool:
        serves = self.worker.start()
        if self.pool_registry.ended:  # meanwhile
            self._end_worker()
            return False
        return serves

    def _last_run(self) -> None:
        # The process ends. The thread ends before: an interpreter that ends kills it wherever it is.
        self._end()
        if not self._end_worker():
            unblock(self.worker.stuck(), self._tracer_provider, self._events.provider())

    def _end_worker(self) -> bool:
        if self.worker.stop() and not self.worker.stuck():
            return True
        guard.count_quietly("spans.dropped", self._spans.kept())
        return False

    def _end(self) -> None:
        guard.run("unit_of_work.end", self.pool_registry.units.end_all, None)
        self._watchdog.end()

    def _flush(self) -> None:
        self._end()
        self.worker.run_once(then=self._force_flush)

    def _force_flush(self) -> None:
        for provider in (self._meter_provider or otel_metrics.get_meter_provider(), self._tracer_provider):
            flush = getattr(provider, "force_flush", None)
            if flush is not None:
                guard.run("instrumentor.flush", partial(flush, _FLUSH_MILLISECONDS), None)

    def _drain(self) -> None:
        if self._metrics is not None:
            self._metrics.drain()


def _of_the_api(thing: object) -> bool:
    # The API's own classes are in use until a provider is set, and an SDK that is disabled returns them too.
    return type(thing).__module__.startswith(("opentelemetry.metrics", "opentelemetry.trace"))


_sessions: Final[weakref.WeakSet[Session]] = weakref.WeakSet()


def _after_fork() -> None:
    for session in list(_sessions):
        session.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
