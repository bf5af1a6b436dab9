"""What became of each test, and whether two runs agree."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

PASSED = "passed"
FAILED = "failed"
SKIPPED = "skipped"
ERROR = "error"
XFAILED = "xfailed"
XPASSED = "xpassed"
ABSENT = "absent"

Outcomes = dict[str, str]


class Difference(NamedTuple):
    """
    A test that two runs do not agree on.

    Args:
        test: Its node id.
        without: What became of it without the hooks.
        with_hooks: What became of it with them.
    """

    test: str
    without: str
    with_hooks: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.test}: {self.without} without, {self.with_hooks} with the hooks"


def read(log: Path) -> Outcomes:
    """
    The outcome of each test in a file that pytest-reportlog wrote.

    Args:
        log: JSON lines; a last line that was cut off is left out.

    Returns:
        By node id. A test without a report of its last phase (`teardown`) ended with its session: an error. Reasons of
        skips are left aside: where several hold, SQLAlchemy gives one of them, or another.
    """
    outcomes: Outcomes = {}
    finished: set[str] = set()
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else ():
        try:
            report = json.loads(line)
        except json.JSONDecodeError:
            continue
        kind, test = report.get("$report_type"), report.get("nodeid")
        if kind == "CollectReport" and report["outcome"] == FAILED:
            outcomes[test] = ERROR
            finished.add(test)
        elif kind == "TestReport":
            outcomes[test] = _joined(outcomes.get(test), _outcome(report))
            if report["when"] == "teardown":
                finished.add(test)
    return {test: outcome if test in finished else ERROR for test, outcome in outcomes.items()}


def differences(without: Mapping[str, str], with_hooks: Mapping[str, str]) -> list[Difference]:
    """The tests on which two runs do not agree, also those that only one of them has."""
    return [
        Difference(test, without.get(test, ABSENT), with_hooks.get(test, ABSENT))
        for test in sorted({*without, *with_hooks})
        if without.get(test) != with_hooks.get(test)
    ]


def unexplained(
    suspects: Iterable[Difference], without: Sequence[Mapping[str, str]], with_hooks: Sequence[Mapping[str, str]]
) -> list[Difference]:
    """
    Of the differences, those that repetitions do not show to be the test's own instability.

    A test is unstable by itself when every outcome that its repetitions with the hooks had was also seen without them,
    in the first run or in a repetition.

    Args:
        suspects: Differences between the first two runs.
        without: Repetitions of these tests without the hooks.
        with_hooks: Repetitions with them.

    Returns:
        The differences that stand; each shows an outcome that was never seen without the hooks.
    """
    stands = []
    for suspect in suspects:
        seen = {suspect.without, *(run.get(suspect.test, ABSENT) for run in without)}
        new = [outcome for run in with_hooks if (outcome := run.get(suspect.test, ABSENT)) not in seen]
        if new or not with_hooks:
            stands.append(suspect._replace(with_hooks=new[0] if new else suspect.with_hooks))
    return stands


def tally(outcomes: Mapping[str, str]) -> Counter[str]:
    """How many tests had each outcome."""
    return Counter(outcomes.values())


def _outcome(report: Mapping[str, object]) -> str:
    outcome = str(report["outcome"])
    if report.get("wasxfail") is not None and report["when"] == "call":
        return XFAILED if outcome == SKIPPED else XPASSED
    if outcome == FAILED and report["when"] != "call":
        return ERROR
    return outcome


def _joined(before: str | None, now: str) -> str:
    # Setup, call and teardown in turn: what is not a pass wins, and the first of these.
    return now if before in (None, PASSED) else str(before)
