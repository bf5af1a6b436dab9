"""
What each metric reads from the pool registry.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from poolscope import semconv
from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolscope.core.histogram import Distribution
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import Ledger

Attributes = dict[str, str | int]
Reading = tuple[float, Attributes]
Series = tuple[Attributes, "Distribution[Any]"]


@lru_cache(maxsize=4096)
def identity_attributes(identity: Identity) -> tuple[tuple[str, str | int], ...]:
    """
    What distinguishes a pool from others, as attributes.
    """
    given = {
        semconv.POOL_NAME: identity.name,
        semconv.DB_SYSTEM: identity.system,
        semconv.DB_NAMESPACE: identity.namespace,
        semconv.SERVER_ADDRESS: identity.address,
        semconv.SERVER_PORT: identity.port,
    }
    return tuple((key, value) for key, value in given.items() if value is not None)


def pool_attributes(pool: Pool, **more: str) -> Attributes:
    """
    The attributes of a pool's points.

    Args:
        pool: The pool.
        more: Further ones; each key is the name of a constant of `names`.
    """
    attributes = dict(identity_attributes(pool.identity))
    for constant, value in more.items():
        attributes[getattr(semconv, constant)] = value
    return attributes


def _alive(ledger: Ledger) -> Iterator[Pool]:
    return (pool for pool in tuple(ledger.pools.values()) if pool.live_sources())


def _count(ledger: Ledger) -> Iterator[Reading]:
    for pool in _alive(ledger):
        yield pool.used(), pool_attributes(pool, CONNECTION_STATE=semconv.STATE_USED)
        yield pool.idle(), pool_attributes(pool, CONNECTION_STATE=semconv.STATE_IDLE)


def _limit(ledger: Ledger) -> Iterator[Reading]:
    for pool in _alive(ledger):
        pool.refresh_limit()
        if pool.limit is not None:
            yield pool.limit, pool_attributes(pool)


def _idle_limit(place: int) -> Callable[[Ledger], Iterator[Reading]]:
    def read(ledger: Ledger) -> Iterator[Reading]:
        for pool in _alive(ledger):
            limits = [source.idle_limits()[place] for source in pool.live_sources() if not source.retired]
            known = [limit for limit in limits if limit is not None]
            if known:
                yield sum(known), pool_attributes(pool)

    return read


def _pending(ledger: Ledger) -> Iterator[Reading]:
    return ((len(pool.asking), pool_attributes(pool)) for pool in _alive(ledger))


def _used_peak(ledger: Ledger) -> Iterator[Reading]:
    for pool in _alive(ledger):
        peak = pool.used_peak.highest(len(pool.leases))
        if pool.shared and pool.limit is not None:
            peak = min(peak, pool.limit)
        yield peak, pool_attributes(pool)


def _pending_peak(ledger: Ledger) -> Iterator[Reading]:
    return ((pool.pending_peak.highest(len(pool.asking)), pool_attributes(pool)) for pool in _alive(ledger))


def _oldest(ledger: Ledger) -> Iterator[Reading]:
    return ((pool.oldest_lease_age(), pool_attributes(pool)) for pool in _alive(ledger))


def _drift(ledger: Ledger) -> Iterator[Reading]:
    for pool in _alive(ledger):
        accounts = [source.in_use() for source in pool.live_sources()]
        if None not in accounts:
            ours = len(pool.leases) + len(pool.inherited)
            yield ours - sum(account or 0 for account in accounts), pool_attributes(pool)


def _timeouts(ledger: Ledger) -> Iterator[Reading]:
    return ((int(pool.timeouts.read()), pool_attributes(pool)) for pool in tuple(ledger.pools.values()))


def _saturation(ledger: Ledger) -> Iterator[Reading]:
    for pool in tuple(ledger.pools.values()):
        if pool.limit is not None:
            yield pool.saturation_time(), pool_attributes(pool)


def _wait_phases(ledger: Ledger) -> Iterator[Reading]:
    for pool in tuple(ledger.pools.values()):
        for phase, seconds in pool.wait_phase_times().items():
            yield seconds, pool_attributes(pool, WAIT_PHASE=phase)


def _use_phases(ledger: Ledger) -> Iterator[Reading]:
    for pool in tuple(ledger.pools.values()):
        for phase, seconds in pool.use_phase_times().items():
            yield seconds, pool_attributes(pool, USE_PHASE=phase)


def _closures(ledger: Ledger) -> Iterator[Reading]:
    for pool in tuple(ledger.pools.values()):
        for reason, total in pool.closures.copy().items():
            yield int(total.read()), pool_attributes(pool, CLOSE_REASON=reason)


def _nested(ledger: Ledger) -> Iterator[Reading]:
    return ((int(pool.nested_checkouts.read()), pool_attributes(pool)) for pool in tuple(ledger.pools.values()))


def _unattributed(ledger: Ledger) -> Iterator[Reading]:
    return ((pool.unattributed.read(), pool_attributes(pool)) for pool in tuple(ledger.pools.values()))


def _leaks(ledger: Ledger) -> Iterator[Reading]:
    for pool in tuple(ledger.pools.values()):
        for kind, total in pool.leaks.items():
            yield int(total.read()), pool_attributes(pool, LEAK_KIND=kind)


def _unit_attributes(key: tuple[str, str, str]) -> Attributes:
    kind, name, pool = key
    return {semconv.UNIT_OF_WORK_KIND: kind, semconv.UNIT_OF_WORK_NAME: name, semconv.POOL_NAME: pool}


def _repeated(ledger: Ledger) -> Iterator[Reading]:
    for key, series in ledger.units.series.copy().items():
        yield int(series.repeated_queries.read()), _unit_attributes(key)


def _errors(_: Ledger) -> Iterator[Reading]:
    return ((count, {semconv.SITE: site}) for site, count in guard.counts().items())


#: For each metric that is not a histogram: how to read it.
READINGS: Final[dict[semconv.Metric, Callable[[Ledger], Iterable[Reading]]]] = {
    semconv.CONNECTION_COUNT: _count,
    semconv.CONNECTION_MAX: _limit,
    semconv.CONNECTION_IDLE_MIN: _idle_limit(0),
    semconv.CONNECTION_IDLE_MAX: _idle_limit(1),
    semconv.PENDING_REQUESTS: _pending,
    semconv.TIMEOUTS: _timeouts,
    semconv.SATURATION_TIME: _saturation,
    semconv.USED_PEAK: _used_peak,
    semconv.PENDING_PEAK: _pending_peak,
    semconv.OLDEST_LEASE_AGE: _oldest,
    semconv.WAIT_PHASE_TIME: _wait_phases,
    semconv.USE_PHASE_TIME: _use_phases,
    semconv.CLOSURES: _closures,
    semconv.NESTED_CHECKOUTS: _nested,
    semconv.UNATTRIBUTED: _unattributed,
    semconv.LEAKS: _leaks,
    semconv.REPEATED_QUERIES: _repeated,
    semconv.DRIFT: _drift,
    semconv.ERRORS: _errors,
}


def _waits(pool: Pool) -> Iterator[Series]:
    yield pool_attributes(pool), pool.waits
    for error_type, distribution in pool.failed_waits.copy().items():
        yield pool_attributes(pool, ERROR_TYPE=error_type), distribution


def histograms(ledger: Ledger) -> Iterator[tuple[semconv.Metric, list[Series]]]:
    """
    Every histogram metric, with its series.
    """
    pools = tuple(ledger.pools.values())
    yield semconv.WAIT_TIME, [series for pool in pools for series in _waits(pool)]
    yield semconv.USE_TIME, [(pool_attributes(pool), pool.uses) for pool in pools]
    yield semconv.CREATE_TIME, [(pool_attributes(pool), pool.creates) for pool in pools]
    units = [(_unit_attributes(key), series) for key, series in ledger.units.series.copy().items()]
    yield semconv.UNIT_QUERIES, [(attributes, series.queries) for attributes, series in units]
    yield semconv.UNIT_CONNECTIONS, [(attributes, series.connections) for attributes, series in units]
    yield semconv.UNIT_WAIT_TIME, [(attributes, series.wait_time) for attributes, series in units]
    yield semconv.UNIT_HOLD_TIME, [(attributes, series.hold_time) for attributes, series in units]


#: The metrics that `histograms` yields.
HISTOGRAMS: Final = tuple(metric for metric in semconv.METRICS if metric.kind is semconv.Kind.HISTOGRAM)
