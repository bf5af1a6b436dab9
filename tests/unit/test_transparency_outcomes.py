"""The comparison of the transparency runs: it has to be able to fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.transparency.outcomes import ABSENT, Difference, differences, read, tally, unexplained
from tests.transparency.suites import SUITES
from tests.transparency.verdicts import evidence_problems

if TYPE_CHECKING:
    from pathlib import Path

GOOD = {
    "leases": 3,
    "spans": {"hold": 2},
    "errors": {},
    "exported_errors": 0,
    "adapters": {"sqlalchemy": "active"},
    "patches_left": [],
}


def _log(folder: Path, *reports: dict[str, Any]) -> Path:
    log = folder / "report.jsonl"
    log.write_text(
        "".join(json.dumps({"$report_type": "TestReport", "longrepr": None, **one}) + "\n" for one in reports)
    )
    return log


def _phases(test: str, **other: str) -> list[dict[str, Any]]:
    return [
        {"nodeid": test, "when": when, "outcome": other.get(when, "passed")} for when in ("setup", "call", "teardown")
    ]


def test_what_is_not_a_pass_wins_over_the_phases_that_pass(tmp_path: Path) -> None:
    """A test whose teardown failed is an error though its call passed, and one that failed stays so."""
    log = _log(tmp_path, *_phases("a"), *_phases("b", call="failed"), *_phases("c", teardown="failed"))
    assert read(log) == {"a": "passed", "b": "failed", "c": "error"}


def test_a_test_that_its_session_did_not_finish_is_an_error(tmp_path: Path) -> None:
    """A test that hung or crashed the process left no report of its teardown; it does not count as passed."""
    log = _log(tmp_path, *_phases("a"), *_phases("b")[:2])
    log.write_text(log.read_text() + '{"$report_type": "TestRep')
    assert read(log) == {"a": "passed", "b": "error"}


def test_no_log_is_no_outcome(tmp_path: Path) -> None:
    """A process that died before its first test has no outcomes at all."""
    assert read(tmp_path / "never-written") == {}


def test_a_skip_is_a_skip_whatever_its_reason(tmp_path: Path) -> None:
    """A test that is skipped counts as skipped and not as passed, and its reason is left aside."""
    skip = {"nodeid": "a", "when": "setup", "outcome": "skipped"}
    end = {"nodeid": "a", "when": "teardown", "outcome": "passed"}
    one = read(_log(tmp_path, {**skip, "longrepr": ["x.py", 1, "no savepoints"]}, end))
    other = read(_log(tmp_path, {**skip, "longrepr": ["x.py", 1, "no server"]}, end))
    assert one == other == {"a": "skipped"}
    assert tally(one) == {"skipped": 1}
    assert differences(one, {"a": "passed"}) == [Difference("a", "skipped", "passed")]


def test_expected_failures_are_distinguished_from_skips(tmp_path: Path) -> None:
    """An expected failure is reported as a skip, and an unexpected pass as a pass; here they are neither."""
    expected = [{**one, "wasxfail": "known"} for one in _phases("a", call="skipped")]
    unexpected = [{**one, "wasxfail": "known"} for one in _phases("b")]
    assert read(_log(tmp_path, *expected, *unexpected)) == {"a": "xfailed", "b": "xpassed"}


def test_a_test_that_only_one_run_has_is_a_difference() -> None:
    """The hooks may neither hide a test nor bring one forth."""
    assert differences({"a": "passed", "b": "passed"}, {"b": "passed", "c": "passed"}) == [
        Difference("a", "passed", ABSENT),
        Difference("c", ABSENT, "passed"),
    ]


def test_what_also_happens_without_the_hooks_is_the_tests_own_instability() -> None:
    """
    A difference goes away only when each outcome that the repetitions had with the hooks was also
    seen without them.
    """
    suspect = Difference("a", "passed", "failed")
    passed, failed = {"a": "passed"}, {"a": "failed"}
    assert unexplained([suspect], [passed, failed, passed], [failed, passed, passed]) == []
    assert unexplained([suspect], [passed] * 3, [passed] * 3) == []
    assert unexplained([suspect], [passed] * 3, [passed, passed, failed]) == [suspect]
    assert unexplained([suspect], [passed] * 3, [passed, passed, {}]) == [Difference("a", "passed", ABSENT)]
    assert unexplained([suspect], [], []) == [suspect]


@pytest.mark.parametrize(
    "bad",
    [
        {"leases": 0},
        {"spans": {"checkout": 5}},
        {"errors": {"sqlalchemy.checkin": 1}},
        {"exported_errors": 1},
        {"adapters": {"sqlalchemy": "refused"}},
        {"adapters": {}},
        {"patches_left": ["sqlalchemy.pool.base._ConnectionRecord.checkin"]},
    ],
)
def test_hooks_that_were_not_there_prove_nothing(bad: dict[str, Any]) -> None:
    """A run counts only when the adapter was active, saw leases, made no error and left nothing behind."""
    suite = next(suite for suite in SUITES if suite.adapter == "sqlalchemy")
    assert evidence_problems(suite, GOOD) == []
    assert evidence_problems(suite, {**GOOD, **bad})
    assert evidence_problems(suite, {})


def test_every_source_is_pinned() -> None:
    """The suites are distinguished by their titles, and each names an exact version with its hash."""
    assert len({suite.title for suite in SUITES}) == len(SUITES)
    assert all(len(suite.source.sha256) == 64 and suite.source.version[0].isdigit() for suite in SUITES)
    assert all("==" in pin for suite in SUITES for pin in suite.pins)
