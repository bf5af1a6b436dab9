"""One finding: what is wrong, who causes it, how it is known, and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType

    from poolscope import semconv
    from poolscope.core.finding_kind import FindingKind, Severity
    from poolscope.core.pool_identity import Identity


#: What evidence may be: exactly what OpenTelemetry's attributes may be.
Evidence = Union[str, int, float, "Sequence[str]"]


class UnitLabel(NamedTuple):
    """
    Which unit of work a finding is about: one request, task or job.

    Args:
        kind: `http`, `task`, `rpc` or `job`.
        name: A route template or task name.
    """

    kind: str
    name: str

    def __str__(self) -> str:
        """Kind and name."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True)
class Finding:
    """
    One cause, found. It keeps neither a pool nor a unit of work alive.

    Args:
        kind: What is true of all findings of its id.
        severity: How soon to look.
        summary: One sentence that names the place.
        fix: What to change, for this case.
        pool: The identity of the pool it is about; None when it is about several.
        evidence: Figures and places that prove it, by their names in `kind.evidence`.
        unit: The unit of work it is about, if it is about one.
        origin: The raw frame of the application that it is about, if there is one.
        trace: The span it happened in, where that is recorded.
        resolved: Whether it reports that an earlier finding is over.
        report: The whole of it, in lines for people; the summary when not given.
    """

    kind: FindingKind
    severity: Severity
    summary: str
    fix: str
    pool: Identity | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    unit: UnitLabel | None = None
    origin: tuple[CodeType, int] | None = None
    trace: Any = None
    resolved: bool = False
    report: str = ""

    @property
    def id(self) -> str:
        """The id of its kind."""
        return self.kind.id

    @property
    def event(self) -> semconv.Event | None:
        """The event that carries it."""
        return self.kind.resolved_event if self.resolved else self.kind.event


class FindingCounts:
    """How many findings there were, by id and pool; one thread at a time adds, any may read."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str | None], int] = {}

    def add(self, finding: Finding, number: int = 1) -> None:
        """
        Count a finding, unless it is the end of an earlier one.

        Args:
            finding: The finding.
            number: How many there were that it represents.
        """
        if not finding.resolved:
            key = (finding.id, finding.pool.name if finding.pool is not None else None)
            self._counts[key] = self._counts.get(key, 0) + number

    def read(self) -> dict[tuple[str, str | None], int]:
        """The counts by id and the pool's name, which is None for what concerns several."""
        return self._counts.copy()

    def reset(self) -> None:
        """In a child process after a fork: start anew at nothing."""
        self._counts = {}


class FindingSink(Protocol):
    """Takes findings away, to telemetry, logs or a list; called from background threads and never on the hot path."""

    def report(self, finding: Finding) -> None:
        """Take one finding; must not raise."""
