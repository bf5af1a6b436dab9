"""
The throttle: each place is reported once in an interval; further occurrences are counted, and the count is reported at
the end of the interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from poolscope.core.finding_kind import Severity
from poolscope.detectors.diagnosis.describe import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from poolscope.core.clock import Clock
    from poolscope.core.finding import Finding, FindingCounts, FindingSink

# Places remembered as reported; and of how many the whole finding is kept, to be reported again with the count.
_MOST_PLACES: Final = 5_000
_MOST_WHOLE: Final = 500
_SHORT: Final = 300


@dataclass(frozen=True)
class _Reported:
    at: float
    finding: Finding


class Throttle:
    """
    Hands findings to the sink. Only ever used by one thread at a time.

    Args:
        sink: Takes the findings.
        interval: Seconds in which one place is reported once.
        now: The clock.
        counts: Counts every finding, whether it is reported by itself or not.
    """

    def __init__(self, sink: FindingSink, interval: float, now: Clock, counts: FindingCounts) -> None:
        self._sink = sink
        self._interval = interval
        self._now = now
        self._counts = counts
        self.forget()

    def forget(self) -> None:
        """Start anew at nothing."""
        self._reported: dict[Hashable, _Reported] = {}
        # Of a place that is not reported they are not counted yet: its finding is not known.
        self._held_back: dict[Hashable, int] = {}

    def report(self, key: Hashable, make: Callable[[int], Finding], *, critical: bool = False) -> None:
        """
        Report a finding, unless its place was reported within the interval; then it is counted.

        Args:
            key: The place.
            make: Makes the finding, from how many of that place were held back since the last one.
            critical: Whether it is critical; that is reported at once for a place where it was not so before.
        """
        earlier = self._reported.get(key)
        worse = critical and earlier is not None and earlier.finding.severity is not Severity.CRITICAL
        if earlier is not None and not worse and self._now() - earlier.at < self._interval:
            self.count(key)
        else:
            self.report_now(key, make)

    def report_now(self, key: Hashable, make: Callable[[int], Finding]) -> None:
        """The same, whenever its place was reported."""
        if len(self._reported) >= _MOST_PLACES:
            self.forget()
        held_back = self._held_back.get(key, 0)
        finding = make(held_back)
        self._held_back.pop(key, None)
        self._counts.add(finding, 1 if key in self._reported else 1 + held_back)
        self._reported[key] = _Reported(self._now(), _kept(finding, whole=len(self._reported) < _MOST_WHOLE))
        self._sink.report(finding)

    def report_apart(self, finding: Finding) -> None:
        """Report a finding that represents no other."""
        self._counts.add(finding)
        self._sink.report(finding)

    def count(self, key: Hashable) -> None:
        """One more of a place is held back."""
        earlier = self._reported.get(key)
        if earlier is not None:
            self._counts.add(earlier.finding)
        if len(self._held_back) >= _MOST_PLACES and key not in self._held_back:
            self._held_back.clear()
        self._held_back[key] = self._held_back.get(key, 0) + 1

    def report_due(self, *, everything: bool = False) -> None:
        """
        Report how many were held back of each place whose interval is over, and forget the places without.

        Args:
            everything: Do not wait for the intervals: the process ends.
        """
        now = self._now()
        for key, earlier in tuple(self._reported.items()):
            since = now - earlier.at
            if since < self._interval and not everything:
                continue
            del self._reported[key]
            count = self._held_back.pop(key, 0)
            if count:
                self._sink.report(_again(earlier.finding, count, since))


def _kept(finding: Finding, *, whole: bool) -> Finding:
    # The span is not kept alive for it.
    kept = replace(finding, trace=None, report="")
    return kept if whole else replace(kept, summary=finding.summary[:_SHORT], evidence={})


def _again(finding: Finding, count: int, since: float) -> Finding:
    # It represents one of those that were held back, and counts the others.
    occurrences = "1 more occurrence" if count == 1 else f"{count} more occurrences"
    return replace(
        finding,
        evidence={**finding.evidence, "repeated": count - 1},
        report=f"{occurrences} in the last {seconds(since)}: {finding.summary}",
    )
