"""Findings from events, one for each cause."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from poolscope import semconv
from poolscope.core.catalogue import KINDS
from poolscope.report.model import NO_CALL_SITE, CallSite, FindingReport
from poolscope.report.otlp import RESOLVED
from poolscope.report.traces import Traces, call_site_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from poolscope.report.otlp import Event

# These concern the whole pool; the request in which one was found is not the cause.
_OF_THE_POOL = frozenset(kind.id for kind in KINDS.values() if kind.of_pool)
# How often the same finding occurred since the last report without a report of its own.
_REPEATED = f"{semconv.EVIDENCE_PREFIX}repeated"
_SEVERITIES = ("critical", "warning", "info")
_SHOWN_ELSEWHERE = frozenset(
    {
        semconv.FINDING_ID,
        semconv.FINDING_SEVERITY,
        semconv.FINDING_SUMMARY,
        semconv.FINDING_FIX,
        semconv.FINDING_PAGE,
        _REPEATED,
        semconv.UNIT_OF_WORK_NAME,
        semconv.CODE_FUNCTION,
        semconv.CODE_FILE,
        semconv.CODE_LINE,
        *semconv.POOL_ATTRIBUTES,
    }
)


def finding_reports(events: Sequence[Event], traces: Traces) -> tuple[FindingReport, ...]:
    """
    One entry per id, pool and call site, ordered by severity, then those of a whole pool first, then by frequency.

    Without a log pipeline there are no events; the entries then come from the ids on the spans of the units of work.
    """
    groups: defaultdict[tuple[str, str, str, CallSite], list[Event]] = defaultdict(list)
    for event in events:
        if semconv.FINDING_ID in event.attributes:
            finding_id = str(event.attributes[semconv.FINDING_ID])
            call_site = NO_CALL_SITE if finding_id in _OF_THE_POOL else _call_site(event, traces)
            pool = str(event.attributes.get(semconv.POOL_NAME, ""))
            groups[finding_id, event.source.service, pool, call_site].append(event)
    found = [_finding(key, sorted(group, key=lambda event: event.time)) for key, group in groups.items()]
    return tuple(sorted((*found, *_from_spans(traces, {one.id for one in found})), key=_order))


def _from_spans(traces: Traces, known: Collection[str]) -> Iterator[FindingReport]:
    counts: Counter[tuple[str, str, str]] = Counter()
    for span in traces.entries:
        found = span.attributes.get(semconv.FINDINGS)
        for finding_id in found if isinstance(found, tuple) else ():
            counts[str(finding_id), span.source.service, traces.route(span.span_id)] += 1
    for (finding_id, service, route), count in counts.items():
        # A finding of another version of poolscope may be unknown here.
        kind = KINDS.get(finding_id)
        if kind is not None and finding_id not in known:
            summary = f"{route}: {kind.meaning}"
            call_site = CallSite(route)
            yield FindingReport(
                finding_id, kind.severity.value, service, "", call_site, count, 0, summary, kind.fix, kind.page
            )


def _call_site(event: Event, traces: Traces) -> CallSite:
    route = event.attributes.get(semconv.UNIT_OF_WORK_NAME)
    return call_site_of(event.attributes, str(route) if route is not None else traces.route(event.span_id))


def _finding(key: tuple[str, str, str, CallSite], events: Sequence[Event]) -> FindingReport:
    finding_id, service, pool, call_site = key
    reports = [event for event in events if event.name not in RESOLVED]
    latest = (reports or events)[-1].attributes
    return FindingReport(
        id=finding_id,
        severity=str(latest.get(semconv.FINDING_SEVERITY, "warning")),
        service=service,
        pool=pool,
        call_site=call_site,
        count=len(reports) + sum(_repeated(event) for event in reports),
        resolved=len(events) - len(reports),
        summary=str(latest.get(semconv.FINDING_SUMMARY, "")),
        fix=str(latest.get(semconv.FINDING_FIX, "")),
        page=str(latest.get(semconv.FINDING_PAGE, "")),
        evidence={name: value for name, value in latest.items() if name not in _SHOWN_ELSEWHERE},
    )


def _repeated(event: Event) -> int:
    repeated = event.attributes.get(_REPEATED, 0)
    return max(repeated, 0) if isinstance(repeated, int) else 0


def _order(one: FindingReport) -> tuple[int, bool, int, str]:
    rank = _SEVERITIES.index(one.severity) if one.severity in _SEVERITIES else len(_SEVERITIES)
    return rank, one.call_site != NO_CALL_SITE, -one.count, one.id
