"""N+1: the same shape of statement from the same line, again and again within one unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.finding import Finding, UnitLabel
from poolscope.core.location import locate
from poolscope.core.sql.fingerprint import summary_of
from poolscope.detectors.detector import Detector, Occurrence, WorkEnded
from poolscope.detectors.diagnosis.describe import seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Evidence
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.sql.repetition import Repetition
    from poolscope.core.work import UnitOfWork
    from poolscope.detectors.detector import Context

# By the first word of SQL by hand.
_FIXES: Final = {
    "SELECT": "one query for all: a join, or WHERE ... IN",
    "INSERT": "send all rows at once: executemany, a bulk insert, COPY",
    "UPDATE": "send all rows at once: executemany, or one UPDATE with a join or CASE",
    "DELETE": "delete all at once: WHERE ... IN",
}


class Repeated(NamedTuple):
    """
    One group of repeated statements of a unit of work.

    Args:
        unit: The unit of work, at its end.
        pool: The pool whose connections were used.
        repetition: What was repeated.
    """

    unit: UnitOfWork
    pool: Pool
    repetition: Repetition


class NPlusOneDetector(Detector[WorkEnded, Repeated]):
    """Observes the ends of units of work: what ran too often by then is known."""

    kinds = (N_PLUS_ONE,)
    observes = WorkEnded

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._threshold = context.settings.n_plus_one_threshold

    def observe(self, event: WorkEnded) -> None:
        """A unit of work ends."""
        for seen in self._repeated(event.unit):
            event.unit.findings.add(N_PLUS_ONE)
            self.keep(seen)

    def diagnose(self, seen: Repeated) -> Iterator[Occurrence]:
        """One group of repeated statements."""
        place = (seen.pool.identity.name, str(seen.unit), seen.repetition.shape, seen.repetition.call_site)
        yield Occurrence(place, lambda repeated: found(seen, repeated))

    def mark(self, unit: UnitOfWork) -> None:
        """Mark a unit of work whose statements have run too often already: that is certain before its end."""
        if any(True for _ in self._repeated(unit)):
            unit.findings.add(N_PLUS_ONE)

    def _repeated(self, unit: UnitOfWork) -> Iterator[Repeated]:
        for pool in list(unit.usages):
            for repetition in unit.usages[pool].repetitions.beyond_threshold(self._threshold):
                yield Repeated(unit, pool, repetition)


def explains(lease: Lease, repetitions: int, threshold: float) -> bool:
    """
    Whether a long hold is long only by what its unit of work repeats: one cause is reported once.

    Args:
        lease: A lease that lasted for the threshold of long holds or longer.
        repetitions: From how many runs on, exclusive, it is a repetition.
        threshold: The threshold of long holds, in seconds.
    """
    usage = lease.usage
    if usage is None or lease.queries <= repetitions:
        return False
    repeated = sum(repetition.seconds for repetition in usage.repetitions.beyond_threshold(repetitions))
    return repeated > 0 and lease.held() - repeated < threshold


def found(seen: Repeated, repeated: int) -> Finding:
    """
    Put repeated statements in words.

    Args:
        seen: What was repeated.
        repeated: In how many more units of work it was found since the last report.
    """
    unit, pool, repetition = seen
    where = str(locate(*repetition.call_site)) if repetition.call_site is not None else "unknown"
    loader = repetition.loader.name if repetition.loader is not None else ""
    by_loader = f", as a {loader}" if loader else ""
    evidence: dict[str, Evidence] = {
        "statement": repetition.shape,
        "repetitions": repetition.count,
        "seconds": repetition.seconds,
        "loader": loader,
        "repeated": repeated,
    }
    return Finding(
        KINDS[N_PLUS_ONE],
        KINDS[N_PLUS_ONE].severity,
        f"{unit} ran one statement {repetition.count} times from {where} "
        f"({seconds(repetition.seconds)}){by_loader}: {repetition.shape}",
        _fix(repetition),
        pool=pool.identity,
        evidence={name: value for name, value in evidence.items() if value != ""},
        unit=UnitLabel(unit.kind, unit.name),
        origin=repetition.call_site,
        trace=unit.span,
    )


def _fix(repetition: Repetition) -> str:
    verb = summary_of(repetition.shape)
    loader = repetition.loader
    if loader is not None:
        return loader.fixes.get(verb, loader.fix)
    return _FIXES.get(verb, KINDS[N_PLUS_ONE].fix)
