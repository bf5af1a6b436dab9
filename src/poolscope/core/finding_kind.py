"""What every finding of one id has in common."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.semconv import Event


class Severity(Enum):
    """How soon to look."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


class Source(Enum):
    """What reports a kind of finding."""

    DETECTOR = "a detector in the process; its findings are events"
    CAUSE = "the diagnosis of an exhausted pool, as the cause that its event names"
    ALERT = "an alert alone: no single process can know it"


class Unit(Enum):
    """What a piece of evidence is measured in (UCUM); empty for texts and identifiers."""

    SECONDS = "s"
    PER_SECOND = "1/s"
    SHARE = "1"
    COUNT = "{count}"
    NONE = ""


class Field(NamedTuple):
    """
    One piece of evidence.

    Args:
        unit: What it is measured in.
        attribute: The attribute of the event that carries it.
    """

    unit: Unit
    attribute: str


@dataclass(frozen=True, eq=False)
class FindingKind:
    """
    What is true of every finding of one id.

    Args:
        id: The id; also the name of its page in ``docs/findings``, and its value in telemetry.
        source: What reports it.
        event: The event that carries it; None for what only alerts report.
        severity: How soon to look, in the usual case.
        meaning: What is wrong, in half a sentence.
        fix: What to change, in the usual case.
        evidence: The unit and the attribute of each piece of evidence, by its short name.
        further_fixes: What to change in special cases, by the name of the case.
        of_pool: Whether it concerns a pool as a whole, and not the place in the code where it was noticed.
        title: The id as a heading, where its words do not read as one.
        resolved_event: The event that reports the end of one, where that is known.
    """

    id: str
    source: Source
    event: Event | None
    severity: Severity
    meaning: str
    fix: str
    evidence: Mapping[str, Field] = field(default_factory=dict)
    further_fixes: Mapping[str, str] = field(default_factory=dict)
    of_pool: bool = False
    title: str = ""
    resolved_event: Event | None = None

    @property
    def page(self) -> str:
        """The documentation page, relative to the project's root."""
        return f"docs/findings/{self.id}.md"

    def fix_for(self, case: str) -> str:
        """What to change in a case: `fix`, if there is no further one for it."""
        return self.further_fixes.get(case, self.fix)

    @property
    def heading(self) -> str:
        """The id in words, for people."""
        return self.title or self.id.replace("_", " ")
