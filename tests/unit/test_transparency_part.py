"""The part of the transparency runs that a seed draws: small, and over time everything."""

from __future__ import annotations

import json
import shlex
import sys
from collections import Counter
from typing import TYPE_CHECKING, cast

import pytest

from examples.lab.processes import Child
from poolscope.semconv import HOLD_SPAN
from tests.transparency import run, runs
from tests.transparency.outcomes import PASSED
from tests.transparency.runs import Run
from tests.transparency.suites import SUITES, draw
from tests.transparency.verdicts import Verdict, judge_all

if TYPE_CHECKING:
    from pathlib import Path

    from tests.transparency.runs import Runner
    from tests.transparency.suites import Suite

SEEDS = [str(number) for number in range(900)]
QUICK = {suite.title: suite for suite in SUITES if suite.quick}


@pytest.fixture
def judged(monkeypatch: pytest.MonkeyPatch) -> list[Suite]:
    """The suites that would have run."""
    seen: list[Suite] = []

    def judge(suites: list[Suite]) -> list[Verdict]:
        seen.extend(suites)
        return [Verdict(suite) for suite in suites]

    monkeypatch.setattr(run, "_judge", judge)
    return seen


def test_a_seed_draws_the_same_again() -> None:
    """
    Each part has asyncpg's suite and one of SQLAlchemy's, none of which the short run has not, and a seed gives the
    same at any time.
    """
    parts = [draw(seed) for seed in SEEDS]
    assert parts == [draw(seed) for seed in SEEDS]
    assert {tuple(suite.adapter for suite in part) for part in parts} == {("asyncpg", "sqlalchemy")}
    assert {suite.title for part in parts for suite in part} == set(QUICK)


def test_everything_of_the_short_run_is_drawn_before_long() -> None:
    """
    What the parts run of a suite is all that it has: any part of it once in three draws, a long
    test once in nine.
    """
    drawn = Counter((suite.title, test) for seed in SEEDS for suite in draw(seed) for test in suite.tests)
    for suite in QUICK.values():
        one_in = 1 if suite.adapter == "asyncpg" else 3
        for test in suite.short or suite.tests:
            assert drawn[suite.title, test] == pytest.approx(len(SEEDS) / one_in, rel=0.3)
        for test in (test for group in suite.long for test in group):
            assert drawn[suite.title, test] == pytest.approx(len(SEEDS) / one_in / len(suite.long), rel=0.3)


def test_a_part_needs_as_many_passes_as_it_has_tests_left() -> None:
    """A suite without some of its long tests has to pass as many fewer, one for each; a whole one as many as ever."""
    for suite in QUICK.values():
        long = {test for group in suite.long for test in group}
        assert len(long) == sum(map(len, suite.long))
        for group in range(len(suite.long)):
            part = suite.part(group)
            assert suite.least - part.least == len(long - set(part.tests)) > 0
            assert set(part.tests) - long == set(suite.short)
        if not long:
            assert suite.part(0) is suite


def test_what_a_part_runs_is_of_the_whole() -> None:
    """Each file of the short tests and each long test lies below what the whole suite runs."""
    for suite in QUICK.values():
        for test in (*suite.short, *(test for group in suite.long for test in group)):
            assert test.startswith(suite.tests)
        whole = {test for test in suite.tests if test.endswith(".py")}
        assert not suite.short or whole <= set(suite.short)


def test_a_part_is_printed_with_its_seed(judged: list[Suite], capsys: pytest.CaptureFixture[str]) -> None:
    """The suites, the long tests and the command are printed beside the result, which stays JSON."""
    seed = next(seed for seed in SEEDS if draw(seed)[1].long)
    assert run.main(["--part", seed, "--json"]) == 0
    printed = capsys.readouterr()
    assert judged == draw(seed)
    assert [suite["tests"] for suite in json.loads(printed.out)] == [list(suite.tests) for suite in judged]
    for suite in judged:
        assert suite.title in printed.err
    for test in judged[1].long[0]:
        assert test.rpartition("::")[2] in printed.err
    assert f"drawn by the seed {seed}: " in printed.err
    assert shlex.split(printed.err.partition("ARGS=")[2]) == [f"--part {seed}"]


def test_without_arguments_every_suite_runs(judged: list[Suite], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left out unless it is asked for."""
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == 0
    assert judged == list(SUITES)
    judged.clear()
    assert run.main(["--quick"]) == 0
    assert judged == list(QUICK.values())


def test_a_part_is_of_nothing_else(judged: list[Suite]) -> None:
    """A part of named suites, or of the short run, is no choice."""
    for more in ("--quick", "--only=sqlite"):
        with pytest.raises(SystemExit):
            run.main(["--part", "a", more])
    assert not judged


class OneAfterTheOther:
    """
    Runs that end as planned.

    Args:
        passes: How many tests pass in each run, by whether the hooks are in.
        problem: What is wrong with each.
    """

    def __init__(self, passes: dict[bool, list[int]], problem: str = "") -> None:
        self._passes, self._problem = passes, problem

    def run(self, suite: Suite, *, hooks: bool, tests: object = (), first: bool = True) -> Run:
        passes = self._passes[hooks].pop(0)
        seen = {"adapters": {suite.adapter: "active"}, "leases": 1, "spans": {HOLD_SPAN.prefix: 1}}
        well = {"errors": {}, "exported_errors": 0, "patches_left": []}
        outcomes = {f"test_{number}": PASSED for number in range(passes)}
        return Run(outcomes, self._problem, 1.0, {**seen, **well} if hooks else {}, "the.log")


@pytest.mark.parametrize("hooks", [False, True])
def test_a_run_in_which_too_few_passed_is_done_again(hooks: bool) -> None:
    """
    Once or twice: the last one counts, as if the others had not been. A third is not tried, and the
    output is named.
    """
    suite = SUITES[0]._replace(least=3)
    for passes, transparent in (([0, 3], True), ([2, 1, 3], True), ([2, 2, 2, 3], False)):
        runner = OneAfterTheOther({hooks: passes.copy(), not hooks: [3]})
        (verdict,) = judge_all(cast("Runner", runner), [suite], lambda _: None)
        assert verdict.transparent == transparent
        assert len(verdict.again) == min(len(passes) - 1, 2)
        assert all("tests passed, at least 3 have to; see the.log" in told for told in verdict.again)
        if not transparent:
            assert any("2 tests passed, at least 3 have to; see the.log" in told for told in verdict.problems)


def test_a_run_that_ends_badly_is_not_done_again() -> None:
    """As where pytest crashed."""
    runner = OneAfterTheOther({True: [3], False: [0, 3]}, problem="it crashed")
    (verdict,) = judge_all(cast("Runner", runner), [SUITES[0]._replace(least=3)], lambda _: None)
    assert (verdict.transparent, verdict.again) == (False, [])


@pytest.mark.parametrize(("stops", "transparent"), [(1, True), (2, False)])
def test_a_run_in_which_a_test_does_not_end_is_done_again_once(stops: int, transparent: bool) -> None:
    """SQLAlchemy's tests do so now and then, without the hooks as well; twice is no accident."""

    class Stops(OneAfterTheOther):
        def run(self, suite: Suite, *, hooks: bool, tests: object = (), first: bool = True) -> Run:
            run, left = super().run(suite, hooks=hooks, tests=tests, first=first), len(self._passes[True])
            is_stopped = hooks and left >= 3 - stops
            return run._replace(problem="it did not end" if is_stopped else "", is_stopped=is_stopped)

    runner = Stops({True: [1, 3, 3] if stops == 1 else [1, 1, 3], False: [3]})
    (verdict,) = judge_all(cast("Runner", runner), [SUITES[0]._replace(least=3)], lambda _: None)
    assert (verdict.transparent, verdict.again) == (transparent, ["with the hooks: it did not end"])


def test_a_test_that_does_not_end_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what the report no longer gets, long before the run has taken its time; one that ends has its exit code."""
    report = tmp_path / "report.jsonl"
    ends = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text('{}'); sys.exit(1)"
    with Child([sys.executable, "-c", ends, report], log=tmp_path / "log") as child:
        assert runs._code_of(child, report) == 1
    monkeypatch.setattr(runs, "STOPPED_SECONDS", 1.0)
    with Child([sys.executable, "-c", "import signal; signal.pause()"], log=tmp_path / "log") as child:
        assert runs._code_of(child, report) is None
        assert child.exit_code() is None
