"""
Findings: what is wrong, who does it, how it is known, and what cures it.

One id runs through event, span attribute, alert, dashboard link, documentation page and report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol, Union

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType

    from poolscope.core.pool import Pool
    from poolscope.core.unit_of_work import UnitOfWork


#: What evidence may be: exactly what OpenTelemetry's attributes may be.
Evidence = Union[str, int, float, "Sequence[str]"]


class Severity(Enum):
    """
    How soon somebody should look.
    """

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


LEAK: Final = "connection_leak"
POOL_EXHAUSTED: Final = "pool_exhausted"
POOL_TOO_SMALL: Final = "pool_too_small"
LONG_HOLD: Final = "long_hold"
BURST: Final = "burst"
SLOW_CONNECT: Final = "slow_connect"
IDLE_IN_TRANSACTION: Final = "idle_in_transaction"
N_PLUS_ONE: Final = "n_plus_one"
NESTED_CHECKOUT: Final = "nested_checkout"
FLEET_BUDGET: Final = "fleet_budget"

FINDING_IDS: Final = (
    LEAK,
    POOL_EXHAUSTED,
    POOL_TOO_SMALL,
    LONG_HOLD,
    BURST,
    SLOW_CONNECT,
    IDLE_IN_TRANSACTION,
    N_PLUS_ONE,
    NESTED_CHECKOUT,
    FLEET_BUDGET,
)


@dataclass(frozen=True)
class Finding:
    """
    One cause, found.

    Args:
        id: One of `FINDING_IDS`; also the name of its page in ``docs/findings``.
        severity: How soon to look.
        summary: One sentence that names the place.
        cure: What to change, for this case.
        pool: The pool it is about; None when it is about several.
        evidence: Figures and places that prove it, by a short name; values are strings, numbers or sequences of
        strings. unit: The unit of work it is about, if it is about one.
        origin: The raw frame of the application that it is about, if there is one.
        trace: The span it happened in, where that is recorded.
        resolved: Whether it tells that an earlier finding is over.
        report: The whole of it, in lines for people; the summary when not given.
    """

    id: str
    severity: Severity
    summary: str
    cure: str
    pool: Pool | None = None
    evidence: Mapping[str, Evidence] = field(default_factory=dict)
    unit: UnitOfWork | None = None
    origin: tuple[CodeType, int] | None = None
    trace: Any = None
    resolved: bool = False
    report: str = ""

    @property
    def page(self) -> str:
        """
        The documentation page, relative to the project's root.
        """
        return f"docs/findings/{self.id}.md"


class FindingSink(Protocol):
    """
    Takes findings away, to telemetry, logs or a list; called from background threads and never on the hot path.
    """

    def report(self, finding: Finding) -> None:
        """
        Take one finding; must not raise.
        """
