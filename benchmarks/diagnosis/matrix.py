"""The confusion matrix: what was planted against what poolscope said, with the figures that have to hold."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rich.table import Table

from benchmarks.diagnosis.scenarios import HEALTHY, LONG_IDLE, Scenario
from poolscope.core.catalogue.exhaustion import MIXED, UNKNOWN
from poolscope.core.catalogue.holds import LONG_HOLD

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A scenario in which one cause holds this share of the pool or more has one right answer.
CLEAR: Final = 0.6
#: A cause that is claimed with more than this share has to be right.
CLAIMED: Final = 0.5
#: The share of right answers in clear scenarios that has to be reached.
GOAL: Final = 0.98
#: What stands for a run in which nothing was reported.
NOTHING: Final = "nothing"


@dataclass(frozen=True)
class Result:
    """
    One run.

    Args:
        scenario: What was planted.
        cause: What poolscope said; None where it reported nothing.
        share: The share of the pool that it claimed for that.
        summary: Its words.
        exhausted: Whether a request got no connection, or waited for as long as that takes to be reported.
    """

    scenario: Scenario
    cause: str | None
    share: float
    summary: str
    exhausted: bool

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """The result of plain data."""
        return cls(
            Scenario.from_json(data["scenario"]), data["cause"], data["share"], data["summary"], data["exhausted"]
        )

    @property
    def is_clear(self) -> bool:
        """Whether one cause holds most of the pool, and the pool was exhausted."""
        return bool(self.scenario.plants) and self.scenario.share >= CLEAR and not self.is_idle

    @property
    def is_idle(self) -> bool:
        """Whether something was planted, and no request noticed."""
        return bool(self.scenario.plants) and self.cause is None and not self.exhausted

    @property
    def is_right(self) -> bool:
        """Whether the largest cause was named; in a healthy scenario, that nothing was."""
        if not self.scenario.plants:
            return self.cause is None
        return self.cause == _id_of(self.scenario.main)

    @property
    def is_wrong_claim(self) -> bool:
        """Whether a cause that was not planted was named with more than half of the pool."""
        if self.cause in (None, MIXED, UNKNOWN):
            return False
        planted = {_id_of(plant.cause) for plant in self.scenario.plants}
        return self.cause not in planted and (self.share > CLAIMED or not planted)


@dataclass(frozen=True)
class Matrix:
    """
    All runs.

    Args:
        results: Them.
    """

    results: Sequence[Result]

    @property
    def clear(self) -> list[Result]:
        """The runs that have one right answer."""
        return [result for result in self.results if result.is_clear]

    @property
    def healthy(self) -> list[Result]:
        """The runs in which nothing is wrong."""
        return [result for result in self.results if not result.scenario.plants]

    @property
    def right_share(self) -> float:
        """The share of clear scenarios whose cause was named."""
        return sum(result.is_right for result in self.clear) / max(1, len(self.clear))

    @property
    def wrong_claims(self) -> list[Result]:
        """The runs in which a cause was claimed that was not there."""
        return [result for result in self.results if result.is_wrong_claim]

    @property
    def false_alarms(self) -> list[Result]:
        """The healthy runs in which anything was found."""
        return [result for result in self.healthy if not result.is_right]

    @property
    def holds(self) -> bool:
        """Whether everything that has to hold does."""
        return self.right_share >= GOAL and not self.wrong_claims and not self.false_alarms

    def counts(self) -> dict[str, Counter[str]]:
        """How often each answer was given, by what was planted; a scenario without a clear cause is ``mixed``."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for result in self.results:
            if result.is_idle:
                continue
            planted = result.scenario.main if result.is_clear or not result.scenario.plants else MIXED
            found[planted][result.cause or NOTHING] += 1
        return dict(sorted(found.items()))

    def lines(self) -> list[str]:
        """The figures, in words."""
        clear, healthy, wrong = self.clear, self.healthy, len(self.wrong_claims)
        right = sum(one.is_right for one in clear)
        of_clear = f"{right} of {len(clear)} ({self.right_share:.3f}; goal {GOAL})"
        return [
            f"right where one cause holds {CLEAR:.0%} or more: {of_clear}",
            f"wrong causes claimed with more than {CLAIMED:.0%} of the pool: {wrong} of {len(self.results)} (goal 0)",
            f"healthy runs with a finding: {len(self.false_alarms)} of {len(healthy)} (goal 0)",
            f"left out, as no request had to wait: {sum(one.is_idle for one in self.results)}",
        ]

    def table(self) -> Table:
        """For the terminal."""
        answers = self._answers()
        table = Table("planted", *answers)
        for planted, counts in self.counts().items():
            table.add_row(planted, *(_cell(counts[answer]) for answer in answers))
        return table

    def markdown(self) -> str:
        """For the documentation."""
        answers = self._answers()
        rows = [["planted", *answers], ["---", *("--:" for _ in answers)]]
        for planted, counts in self.counts().items():
            rows.append([planted, *(_cell(counts[answer]) for answer in answers)])
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def _answers(self) -> list[str]:
        return sorted({answer for counts in self.counts().values() for answer in counts})


def _cell(count: int) -> str:
    return str(count) if count else "·"


def _id_of(planted: str) -> str:
    return LONG_HOLD if planted == LONG_IDLE else planted if planted != HEALTHY else NOTHING
