"""Pools from metrics and spans."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope import semconv
from poolscope.core.phases import HOLD_PHASES, WAIT_PHASES
from poolscope.detectors.leak import ABANDONED
from poolscope.report.distribution import NO_QUANTILES, Distribution, Quantiles, exact_quantiles, nearest
from poolscope.report.model import CallSite, Holder, Phase, PoolReport, Timing
from poolscope.report.series import Series, SeriesStore, counted, distributed
from poolscope.report.traces import Traces, holders, phase_seconds, starvations

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from poolscope.report.otlp import Source
    from poolscope.report.reader import Telemetry

# Each of them has what identifies the pool.
_IDENTIFYING = (semconv.CONNECTION_COUNT, semconv.CONNECTION_MAX, semconv.WAIT_TIME, semconv.USE_TIME)
# A shorter time counts as 0.
_NOTHING_SECONDS = 0.001


def pool_reports(telemetry: Telemetry, traces: Traces) -> tuple[PoolReport, ...]:
    """Every pool of every process, the most saturated first."""
    resolved = {event.trace_id for event in telemetry.events if event.name == semconv.LEAK_RESOLVED_EVENT.name}
    found = telemetry.series.pools(_IDENTIFYING)
    reports = [_Pool(telemetry.series, traces, resolved, source, name).report() for source, name in found]
    return tuple(sorted(reports, key=lambda pool: (-pool.saturation, -pool.timeouts, pool.service, pool.name)))


class _Pool:
    """One pool's series and spans."""

    def __init__(
        self, series: SeriesStore, traces: Traces, resolved: Collection[str], source: Source, name: str
    ) -> None:
        self._store = series
        self._traces = traces
        self._resolved = resolved
        self._source = source
        self._name = name
        self._holds = traces.holds[source, name]
        self._checkouts = traces.checkouts[source, name]

    def report(self) -> PoolReport:
        identity = next(one for metric in _IDENTIFYING for one in self._series(metric)).attributes
        start, end = self._window()
        used = self._state(semconv.STATE_USED)
        limits = self._series(semconv.CONNECTION_MAX)
        saturated = self._series(semconv.SATURATION_TIME)
        return PoolReport(
            service=self._source.service,
            instance=self._source.instance,
            name=self._name,
            system=str(identity.get(semconv.DB_SYSTEM, "")),
            namespace=str(identity.get(semconv.DB_NAMESPACE, "")),
            server=":".join(
                str(identity[key]) for key in (semconv.SERVER_ADDRESS, semconv.SERVER_PORT) if key in identity
            ),
            limit=int(limits[0].last) if limits else None,
            used=round(sum(series.last for series in used)),
            idle=round(sum(series.last for series in self._state(semconv.STATE_IDLE))),
            peak=self._peak(semconv.USED_PEAK, used),
            pending_peak=self._peak(semconv.PENDING_PEAK, self._series(semconv.PENDING_REQUESTS)),
            observed_seconds=(end - start) / 1e9,
            saturated_seconds=counted(saturated) if saturated else None,
            oldest_lease_seconds=max((series.last for series in self._series(semconv.OLDEST_LEASE_AGE)), default=0.0),
            waits=self._wait_timing(),
            holds=self._hold_timing(),
            timeouts=round(counted(self._series(semconv.TIMEOUTS))),
            created=_count(distributed(self._series(semconv.CREATE_TIME))),
            closures=self._by(semconv.CLOSURES, semconv.CLOSE_REASON),
            leaks=self._by(semconv.LEAKS, semconv.LEAK_KIND),
            nested_checkouts=round(counted(self._series(semconv.NESTED_CHECKOUTS))),
            drift=round(sum(series.last for series in self._series(semconv.DRIFT))),
            holders=holders(self._traces, self._holds, self._not_returned(), end) or self._holders_from_metrics(),
            starvations=starvations(self._traces, self._checkouts),
        )

    def _series(self, metric: semconv.Metric) -> list[Series]:
        return self._store.of_pool(metric, self._source, self._name)

    def _state(self, state: str) -> list[Series]:
        return [
            s for s in self._series(semconv.CONNECTION_COUNT) if s.attributes.get(semconv.CONNECTION_STATE) == state
        ]

    def _peak(self, metric: semconv.Metric, sampled: Iterable[Series]) -> int:
        return round(max((series.peak for series in (*self._series(metric), *sampled)), default=0.0))

    def _by(self, metric: semconv.Metric, attribute: str) -> dict[str, int]:
        counts = {str(s.attributes.get(attribute, "")): round(counted([s])) for s in self._series(metric)}
        return {value: count for value, count in sorted(counts.items()) if count}

    def _window(self) -> tuple[int, int]:
        every = [
            s for metric in (semconv.SATURATION_TIME, semconv.WAIT_TIME, semconv.USE_TIME) for s in self._series(metric)
        ]
        return min((s.start for s in every), default=0), max((s.time for s in every), default=0)

    def _wait_timing(self) -> Timing:
        series = self._series(semconv.WAIT_TIME)
        every = distributed(series)
        failed = distributed(one for one in series if semconv.ERROR_TYPE in one.attributes)
        threshold = self._span_threshold()
        shortest = every.bound_from(threshold) if every is not None and threshold is not None else None
        # A failed wait has a span, however short it is.
        slow = [span for span in self._checkouts if shortest is not None and span.seconds >= shortest]
        measured = {
            phase: over_all_waits(phase_seconds(slow, semconv.SPAN_WAIT_PHASE_PREFIX, phase), every, shortest)
            for phase in WAIT_PHASES
        }
        return _timing(every, _count(failed), self._phases(semconv.WAIT_PHASE_TIME, semconv.WAIT_PHASE, measured))

    def _span_threshold(self) -> float | None:
        """The shortest wait of which this process makes a span, in seconds, from its spans; None without a span."""
        thresholds = [span.attributes.get(semconv.CHECKOUT_SPAN_THRESHOLD) for span in self._checkouts]
        return max((float(value) for value in thresholds if isinstance(value, (int, float))), default=None)

    def _not_returned(self) -> set[str]:
        """The ids of hold spans whose connection was not returned: a leak that was neither collected nor resolved."""
        kinds = {span.span_id: span.attributes.get(semconv.LEAK_KIND, ABANDONED) for span in self._holds}
        return {s.span_id for s in self._holds if kinds[s.span_id] != ABANDONED and s.trace_id not in self._resolved}

    def _holders_from_metrics(self) -> tuple[Holder, ...]:
        """
        The holders from the histogram of the units of work, which counts all of them even if no
        trace was sampled.
        """
        held = [(s, s.total) for s in self._series(semconv.UNIT_HOLD_TIME) if isinstance(s.total, Distribution)]
        everything = sum(total.total for _, total in held)
        found = [
            Holder(
                call_site=CallSite(str(series.attributes.get(semconv.UNIT_OF_WORK_NAME, ""))),
                count=total.count,
                not_returned=0,
                seconds=total.total,
                share=total.total / everything if everything else 0.0,
                quantiles=total.quantiles(),
                longest=total.quantile(1.0) or 0.0,
                queries=0.0,
                phases={},
            )
            for series, total in held
        ]
        return tuple(sorted(found, key=lambda holder: holder.seconds, reverse=True))

    def _hold_timing(self) -> Timing:
        measured = {
            phase: exact_quantiles(phase_seconds(self._holds, semconv.SPAN_HOLD_PHASE_PREFIX, phase))
            for phase in HOLD_PHASES
        }
        phases = self._phases(semconv.HOLD_PHASE_TIME, semconv.HOLD_PHASE, measured)
        return _timing(distributed(self._series(semconv.USE_TIME)), 0, phases)

    def _phases(self, metric: semconv.Metric, attribute: str, measured: dict[str, Quantiles]) -> tuple[Phase, ...]:
        seconds = dict.fromkeys(measured, 0.0)
        for series in self._series(metric):
            phase = str(series.attributes.get(attribute, ""))
            seconds[phase] = seconds.get(phase, 0.0) + counted([series])
        everything = sum(seconds.values())
        return tuple(
            Phase(phase, each, each / everything if everything else 0.0, measured.get(phase, NO_QUANTILES))
            for phase, each in seconds.items()
        )


def over_all_waits(values: Sequence[float], waits: Distribution | None, shortest: float | None) -> Quantiles:
    """
    Quantiles of one phase over all waits, from the spans of the slow waits; None where these do not determine it.

    The histogram covers the waits without a span: a phase is a part of its wait, so no quantile of the phase exceeds
    that of the waits, and no phase of such a wait lasts ``shortest`` or longer.

    Args:
        values: The seconds of the phase in each sampled wait of ``shortest`` or longer.
        waits: The histogram of all waits, which does not depend on sampling.
        shortest: A bound of the histogram in seconds above which each sampled wait has a span; None without one.
    """
    if waits is None or not waits.count:
        return NO_QUANTILES
    ordered = sorted(values)
    fast = 1.0 - waits.above(shortest) / waits.count if shortest is not None else 1.0
    # The most that the phase can last in a wait without a span; about a millisecond counts as 0.
    unseen = shortest if shortest is not None and shortest >= 2 * _NOTHING_SECONDS else 0.0

    def at(q: float) -> float | None:
        longest = waits.quantile(q)
        if longest is not None and longest <= _NOTHING_SECONDS:
            return 0.0
        if shortest is None or not ordered:
            return None
        value = nearest(ordered, (q - fast) / (1.0 - fast)) if q > fast else 0.0
        return value if value is not None and value >= unseen else None

    return Quantiles(at(0.50), at(0.95), at(0.99))


def _timing(distribution: Distribution | None, failed: int, phases: tuple[Phase, ...]) -> Timing:
    if distribution is None:
        return Timing(0, failed, 0.0, NO_QUANTILES, None, phases)
    return Timing(distribution.count, failed, distribution.total, distribution.quantiles(), distribution, phases)


def _count(distribution: Distribution | None) -> int:
    return distribution.count if distribution else 0
