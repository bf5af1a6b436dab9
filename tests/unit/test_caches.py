"""Whatever is kept by a key has a bound: memory does not grow with the number of different inputs."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Final

import pytest

from poolscope.core.finding import FindingCounts
from poolscope.core.libraries import Libraries
from poolscope.core.origin import Origins
from poolscope.detectors.diagnosis.pace import Pace
from poolscope.detectors.throttle import Throttle
from tests.support.clocks import FakeClock
from tests.support.containers import growing
from tests.support.scene import Scene, Sink

if TYPE_CHECKING:
    from collections.abc import Callable

#: What is kept by a key, and what bounds it.
BOUNDS: Final = {
    "a number": """
        adapters/address.py: Torn._places, core/libraries.py: Libraries._carries, core/origin.py: Origins._classified,
        core/pool_figures.py: PoolFigures.failed_waits, core/pool_figures.py: PoolFigures.failed_checkouts,
        core/pool_registry.py: PoolRegistry.pools, core/sql/batches.py: Progress._series,
        core/sql/remembered.py: Remembered.known, core/sql/repetition.py: _Line.groups,
        core/sql/repetition.py: Repetitions._lines, core/sql/syntax.py: _syntaxes(), core/work.py: Units.series,
        core/work.py: Units._names, detectors/diagnosis/locks.py: LockWatch._slow,
        detectors/diagnosis/pace.py: Pace._taken_at, detectors/pool_per_request.py: PoolPerRequestDetector._makings,
        detectors/pool_per_request.py: PoolPerRequestDetector._known, detectors/throttle.py: Throttle._reported,
        detectors/throttle.py: Throttle._held_back, otel/metrics/observations.py: identity_attributes(),
        otel/traces/spans.py: Spans._places, otel/traces/spans.py: Spans._waits, otel/traces/spans.py: Spans._holds,
        detectors/detector.py: Detector.observations, core/log_lines.py: LogLines._kept""",
    "one for each pool, of which there is a largest number": """
        core/finding.py: FindingCounts._counts, detectors/nested_checkout.py: NestedCheckoutDetector._workers,
        detectors/pool_exhausted.py: PoolExhaustedDetector._records, detectors/server_probe.py: ServerProbe._next,
        detectors/too_many_connections.py: TooManyConnectionsDetector._seen, core/work.py: UnitOfWork.usages""",
    "the source: names of parts, reasons, kinds of findings, hooks": """
        adapters/identity.py: NAMERS, adapters/leases.py: LEASE_FINDERS, core/guard.py: Guard._counts,
        core/libraries.py: Libraries.loaders, core/pool_figures.py: PoolFigures.closures,
        core/pool_figures.py: PoolFigures.full_since, core/work.py: UnitOfWork.findings,
        core/work.py: Units._overflowing, hooks/patching.py: _watched, hooks/registry.py: HookRegistry._patchers,
        core/histogram.py: _Cell.exemplars,
        core/dormancy.py: Dormancy._looking, core/serially.py: Serially._at_it""",
    "weak references: it ends with what it is about": """
        core/accounts.py: Accounts._doubts, frameworks/celery.py: _ALL,
        adapters/asyncpg.py: AsyncpgAdapter._connections,
        adapters/django.py: DjangoAdapter._aliases, adapters/foreign.py: INHERITED, adapters/foreign.py: HOOKED,
        adapters/identity.py: NAMES, adapters/pools.py: Pools._anchors,
        adapters/sqlalchemy/adapter.py: SqlAlchemyAdapter._urls,
        adapters/sqlalchemy/adapter.py: SqlAlchemyAdapter._continued, core/histogram.py: Distribution._taps,
        core/location.py: _TEMPLATES, core/pool_registry.py: _pool_registries, core/serially.py: _all,
        adapters/pools.py: Pools._marked, core/worker.py: _workers,
        core/runner.py: helpers,
        detectors/diagnosis/locks.py: LockWatch._candidates, detectors/leak.py: LeakDetector._reported,
        detectors/listener_hold.py: ListenerHoldDetector._known,
        detectors/lock_wait.py: LockWaitDetector._reported,
        otel/metrics/instruments.py: _made, otel/metrics/metric_producer.py: HistogramProducer._readers,
        otel/metrics/metric_producer.py: _Reader._taps, otel/traces/entry_span.py: _made, session.py: _sessions""",
    "what the application has: connections, checkouts, requests, threads, event loops; it goes with them": """
        adapters/dbutils_calls.py: SteadyState.sharers, adapters/dbutils_calls.py: SteadyState.made,
        adapters/django.py: DjangoAdapter._states, adapters/psycopg_pool_connections.py: Account.connections,
        core/event_loops.py: EventLoops._loops, core/event_loops.py: EventLoops._seen_once,
        core/pool_figures.py: PoolFigures.leases, core/pool_figures.py: PoolFigures.pending,
        core/pool_figures.py: PoolFigures.inherited, core/work.py: Usage.leases, core/work.py: Usage.seen,
        core/work.py: Units.unclosed, core/counters.py: Peak.seen""",
    "time, or the writers at one moment: it is emptied or cut at every look": """
        detectors/server_probe.py: ServerProbe._answers, detectors/diagnosis/load.py: Record._samples,
        core/worker.py: Worker._requests,
        core/serially.py: Serially._queue, core/runner.py: Runner._wakes, core/counters.py: Sum._free,
        core/counters.py: Peak._past, core/histogram.py: Distribution._free""",
    "one call, or one block of an event loop, with as many looks as it has time for": """
        core/awaiting.py: Dependents._visited, core/sql/locking.py: _Select.of,
        core/watched_loop.py: Samples._stacks""",
}
KNOWN: Final = {name.strip() for names in BOUNDS.values() for name in names.split(",")}
#: Commands that end: their memory is bounded by what they read (tests/unit/test_report*.py).
COMMANDS: Final = ("report/", "cli/", "doctor/")


def test_everything_that_is_kept_by_a_key_has_a_bound() -> None:
    """
    Whoever adds a dict, a set or a function that remembers says what bounds it; what is gone is
    not on the list.
    """
    found = {name for name in growing() if not name.startswith(COMMANDS)}
    assert sorted(found ^ KNOWN) == []


def _files() -> tuple[Callable[[int], object], Callable[[], int]]:
    origins = Origins()
    return lambda number: origins._kind_of(f"<generated {number}>"), lambda: len(origins._classified)


def _modules() -> tuple[Callable[[int], object], Callable[[], int]]:
    libraries = Libraries()
    return lambda number: libraries.carries(f"generated.module_{number}"), lambda: len(libraries._carries)


def _snapshots() -> tuple[Callable[[int], object], Callable[[], int]]:
    pace, pool = Pace(1.0, FakeClock()), Scene().pool
    return lambda number: pace.allows(pool, f"key {number}"), lambda: len(pace._taken_at)


def _held_back() -> tuple[Callable[[int], object], Callable[[], int]]:
    throttle = Throttle(Sink(), 1.0, FakeClock(), FindingCounts())
    return lambda number: throttle.count(f"place {number}"), lambda: len(throttle._held_back)


@pytest.mark.reliability(
    fault="names of files, modules or places without end, as of code that is generated",
    application="memory that does not grow",
    lost="nothing; what was forgotten is looked up again",
)
@pytest.mark.parametrize("make", [_files, _modules, _snapshots, _held_back])
def test_memory_is_flat_however_many_different_inputs_come(
    make: Callable[[], tuple[Callable[[int], object], Callable[[], int]]],
) -> None:
    """Far past the bound, with an input that never comes twice: neither the number kept grows, nor memory."""
    use, kept = make()
    tracemalloc.start()
    try:
        most = []
        for number in range(40_000):
            use(number)
            if number % 10_000 == 9_999:
                most.append(tracemalloc.get_traced_memory()[1])
                tracemalloc.reset_peak()
            assert kept() <= 10_000
        assert most[-1] <= 1.5 * most[0]
    finally:
        tracemalloc.stop()
