"""What each metric reads from the pool registry."""

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
    from poolscope.core.pool_registry import PoolRegistry

Attributes = dict[str, str | int]
PoolObservation = tuple[float, Attributes]
Series = tuple[Attributes, "Distribution[Any]"]


@lru_cache(maxsize=4096)
def identity_attributes(identity: Identity) -> tuple[tuple[str, str | int], ...]:
    """What distinguishes a pool from others, as attributes."""
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


def _alive(pool_registry: PoolRegistry) -> Iterator[Pool]:
    return (pool for pool in tuple(pool_registry.pools.values()) if pool.live_sources())


def _count(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in _alive(pool_registry):
        yield pool.used(), pool_attributes(pool, CONNECTION_STATE=semconv.STATE_USED)
        yield pool.idle(), pool_attributes(pool, CONNECTION_STATE=semconv.STATE_IDLE)


def _limit(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in _alive(pool_registry):
        pool.refresh_limit()
        if pool.limit is not None:
            yield pool.limit, pool_attributes(pool)


def _idle_limit(place: int) -> Callable[[PoolRegistry], Iterator[PoolObservation]]:
    def read(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
        for pool in _alive(pool_registry):
            limits = [source.idle_limits()[place] for source in pool.live_sources() if not source.retired]
            known = [limit for limit in limits if limit is not None]
            if known:
                yield sum(known), pool_attributes(pool)

    return read


def _pending(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((len(pool.pending), pool_attributes(pool)) for pool in _alive(pool_registry))


def _used_peak(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in _alive(pool_registry):
        peak = pool.used_peak.highest(len(pool.leases))
        if pool.shared and pool.limit is not None:
            peak = min(peak, pool.limit)
        yield peak, pool_attributes(pool)


def _pending_peak(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((pool.pending_peak.highest(len(pool.pending)), pool_attributes(pool)) for pool in _alive(pool_registry))


def _oldest(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((pool.oldest_lease_age(), pool_attributes(pool)) for pool in _alive(pool_registry))


def _drift(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in _alive(pool_registry):
        accounts = [source.in_use() for source in pool.live_sources()]
        if None not in accounts:
            ours = len(pool.leases) + len(pool.inherited)
            yield ours - sum(account or 0 for account in accounts), pool_attributes(pool)


def _timeouts(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((int(pool.timeouts.read()), pool_attributes(pool)) for pool in tuple(pool_registry.pools.values()))


def _failed(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        for (outcome, error_type), total in pool.failed_checkouts.copy().items():
            yield int(total.read()), pool_attributes(pool, CHECKOUT_OUTCOME=outcome, ERROR_TYPE=error_type)


def _saturation(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        if pool.limit is not None:
            yield pool.saturation_time(), pool_attributes(pool)


def _wait_phases(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        for phase, seconds in pool.wait_phase_times().items():
            yield seconds, pool_attributes(pool, WAIT_PHASE=phase)


def _hold_phases(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        for phase, seconds in pool.hold_phase_times().items():
            yield seconds, pool_attributes(pool, HOLD_PHASE=phase)


def _closures(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        for reason, total in pool.closures.copy().items():
            yield int(total.read()), pool_attributes(pool, CLOSE_REASON=reason)


def _nested(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((int(pool.nested_checkouts.read()), pool_attributes(pool)) for pool in tuple(pool_registry.pools.values()))


def _unattributed(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    return ((pool.unattributed.read(), pool_attributes(pool)) for pool in tuple(pool_registry.pools.values()))


def _leaks(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for pool in tuple(pool_registry.pools.values()):
        for kind, total in pool.leaks.items():
            yield int(total.read()), pool_attributes(pool, LEAK_KIND=kind)


def _unit_attributes(key: tuple[str, str, str]) -> Attributes:
    kind, name, pool = key
    return {semconv.UNIT_OF_WORK_KIND: kind, semconv.UNIT_OF_WORK_NAME: name, semconv.POOL_NAME: pool}


def _repeated(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    for key, series in pool_registry.units.series.copy().items():
        yield int(series.repeated_queries.read()), _unit_attributes(key)


def _findings(pool_registry: PoolRegistry) -> Iterator[PoolObservation]:
    pools = pool_registry.pools
    for (finding_id, name), count in pool_registry.findings.read().items():
        pool = pools.get(name) if name is not None else None
        yield count, {**(pool_attributes(pool) if pool is not None else {}), semconv.FINDING_ID: finding_id}


def _errors(_: PoolRegistry) -> Iterator[PoolObservation]:
    return ((count, {semconv.COMPONENT: component}) for component, count in guard.counts().items())


#: For each metric that is not a histogram: how to read it.
OBSERVATIONS: Final[dict[semconv.Metric, Callable[[PoolRegistry], Iterable[PoolObservation]]]] = {
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
    semconv.HOLD_PHASE_TIME: _hold_phases,
    semconv.CLOSURES: _closures,
    semconv.FAILED_CHECKOUTS: _failed,
    semconv.NESTED_CHECKOUTS: _nested,
    semconv.UNATTRIBUTED: _unattributed,
    semconv.LEAKS: _leaks,
    semconv.REPEATED_QUERIES: _repeated,
    semconv.FINDING_COUNT: _findings,
    semconv.DRIFT: _drift,
    semconv.ERRORS: _errors,
}


def _waits(pool: Pool) -> Iterator[Series]:
    yield pool_attributes(pool), pool.waits
    for error_type, distribution in pool.failed_waits.copy().items():
        yield pool_attributes(pool, ERROR_TYPE=error_type), distribution


def histograms(pool_registry: PoolRegistry) -> Iterator[tuple[semconv.Metric, list[Series]]]:
    """Every histogram metric, with its series."""
    pools = tuple(pool_registry.pools.values())
    yield semconv.WAIT_TIME, [series for pool in pools for series in _waits(pool)]
    yield semconv.USE_TIME, [(pool_attributes(pool), pool.holds) for pool in pools]
    yield semconv.CREATE_TIME, [(pool_attributes(pool), pool.creates) for pool in pools]
    lag = pool_registry.event_loops.lag if pool_registry.event_loops is not None else None
    yield semconv.EVENT_LOOP_LAG, [({}, lag)] if lag is not None else []
    units = [(_unit_attributes(key), series) for key, series in pool_registry.units.series.copy().items()]
    yield semconv.UNIT_QUERIES, [(attributes, series.queries) for attributes, series in units]
    yield semconv.UNIT_CONNECTIONS, [(attributes, series.connections) for attributes, series in units]
    yield semconv.UNIT_WAIT_TIME, [(attributes, series.wait_time) for attributes, series in units]
    yield semconv.UNIT_HOLD_TIME, [(attributes, series.hold_time) for attributes, series in units]


#: The metrics that `histograms` yields.
HISTOGRAMS: Final = tuple(metric for metric in semconv.METRICS if metric.kind is semconv.Kind.HISTOGRAM)
