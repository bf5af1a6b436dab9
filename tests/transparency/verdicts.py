"""A suite with and without the hooks, and what is to be said of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from poolscope.semconv import HOLD_SPAN
from tests.transparency.outcomes import PASSED, differences, tally, unexplained
from tests.transparency.runs import Run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from concurrent.futures import Future

    from tests.transparency.outcomes import Difference
    from tests.transparency.runs import Runner
    from tests.transparency.suites import Suite

AT_A_TIME = 3
REPETITIONS = 3
# How often a run is done again of which fewer tests passed than have to. SQLAlchemy's tests share a connection that is
# now and then closed under them, with the hooks or without (see README.md), and hundreds fail at once.
AGAIN = 2
ROUNDS = 3
NOTHING = Run({}, "", 0.0, {})


class Verdict(NamedTuple):
    """
    What came of a suite.

    Args:
        suite: The suite.
        without: The run without the hooks.
        with_hooks: The run with them.
        differences: Tests that the hooks change.
        unstable: Tests that differed in the first runs, but by themselves, as their repetitions showed.
        problems: Why the comparison is not to be trusted.
        again: The runs of which too few tests passed, and which were done again.
    """

    suite: Suite
    without: Run = NOTHING
    with_hooks: Run = NOTHING
    differences: Sequence[Difference] = ()
    unstable: Sequence[Difference] = ()
    problems: Sequence[str] = ()
    again: Sequence[str] = ()

    @property
    def transparent(self) -> bool:
        """Whether the hooks were there and no test noticed."""
        return not self.differences and not self.problems

    def as_json(self) -> dict[str, Any]:
        """The result in JSON's types."""
        return {
            "suite": self.suite.source.project,
            "version": self.suite.source.version,
            "sha256": self.suite.source.sha256,
            "database": self.suite.database,
            "tests": list(self.suite.tests),
            "without": dict(tally(self.without.outcomes)),
            "with": dict(tally(self.with_hooks.outcomes)),
            "seconds": {"without": round(self.without.seconds, 1), "with": round(self.with_hooks.seconds, 1)},
            "seen": self.with_hooks.evidence,
            "differences": [one._asdict() for one in self.differences],
            "unstable": [one._asdict() for one in self.unstable],
            "problems": list(self.problems),
            "again": list(self.again),
            "transparent": self.transparent,
        }


def judge_all(runner: Runner, suites: Sequence[Suite], done: Callable[[Verdict], None]) -> list[Verdict]:
    """
    Run suites with and without the hooks, three processes at a time: they wait more than they work.

    Args:
        runner: Runs them.
        suites: Which.
        done: Called with each result, in the order of the suites.

    Returns:
        All results.
    """
    verdicts = []
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        both = [[pool.submit(runner.run, suite, hooks=hooks) for hooks in (False, True)] for suite in suites]
        for suite, (without, with_hooks) in zip(suites, both, strict=True):
            verdict = _judge(runner, suite, without, with_hooks)
            verdicts.append(verdict)
            done(verdict)
    return verdicts


def _judge(runner: Runner, suite: Suite, first: Future[Run], second: Future[Run]) -> Verdict:
    again: list[str] = []
    try:
        without = _enough(runner, suite, first.result(), again, hooks=False)
        with_hooks = _enough(runner, suite, second.result(), again, hooks=True)
    except Exception as error:
        # One suite that cannot be run leaves the others to be run.
        return Verdict(suite, problems=[f"could not be run: {error!r}"])
    problems = [*_problems_of(suite, without, hooks=False), *_problems_of(suite, with_hooks, hooks=True)]
    problems += [f"with the hooks: {problem}" for problem in evidence_problems(suite, with_hooks.evidence)]
    suspects = differences(without.outcomes, with_hooks.outcomes)
    if problems or not suspects:
        return Verdict(suite, without, with_hooks, suspects, (), problems, again)
    stand = repeated(runner, suite, suspects)
    standing = {one.test for one in stand}
    unstable = [one for one in suspects if one.test not in standing]
    return Verdict(suite, without, with_hooks, stand, unstable, (), again)


def _enough(runner: Runner, suite: Suite, run: Run, again: list[str], *, hooks: bool) -> Run:
    for _ in range(AGAIN):
        passed = tally(run.outcomes)[PASSED]
        is_stopped = run.is_stopped and not again  # one that does not end twice is no accident
        if (passed >= suite.least or run.problem) and not is_stopped:
            break
        what = f"{passed} tests passed, at least {suite.least} have to"
        again.append(f"{_which(hooks=hooks)}: {run.problem or f'{what}; see {run.log}'}")
        run = runner.run(suite, hooks=hooks, first=False)
    return run


def _which(*, hooks: bool) -> str:
    return "with the hooks" if hooks else "without the hooks"


def repeated(runner: Runner, suite: Suite, suspects: Sequence[Difference]) -> list[Difference]:
    """
    Repeat tests without and with the hooks: once amid their suite, for what others leave behind, and three times alone.

    While a difference stands that is done again, up to three times in all, and what was seen before counts: an outcome
    that a test has now and then by itself may come with the hooks first.

    Args:
        runner: Runs them.
        suite: Their suite.
        suspects: The tests on which the first runs did not agree.

    Returns:
        The differences that stand.
    """
    stand = list(suspects)
    runs: dict[bool, list[dict[str, str]]] = {False: [], True: []}
    for _ in range(ROUNDS):
        alone = [suspect.test for suspect in stand]
        for hooks, of_them in runs.items():
            for tests in ((), *[alone] * REPETITIONS):
                of_them.append(runner.run(suite, hooks=hooks, tests=tests, first=False).outcomes)
        stand = unexplained(stand, runs[False], runs[True])
        if not stand:
            break
    return stand


def evidence_problems(suite: Suite, seen: dict[str, Any]) -> list[str]:
    """
    What is wrong with the hooks, from the plugin's report.

    Args:
        suite: The suite.
        seen: The report.

    Returns:
        A sentence each; none when the hooks were active, saw leases, and made no error.
    """
    if not seen:
        return ["they left no report"]
    problems = []
    if seen["adapters"].get(suite.adapter) != "active":
        problems.append(f"the adapter is {seen['adapters'].get(suite.adapter, 'not there')}")
    if not seen["leases"] or not seen["spans"].get(HOLD_SPAN.prefix):
        problems.append(f"they saw {seen['leases']} leases and {seen['spans']} spans")
    if seen["errors"] or seen["exported_errors"]:
        problems.append(f"{seen['exported_errors']} errors of poolscope's own: {seen['errors']}")
    if seen["patches_left"]:
        problems.append(f"they left patches behind: {seen['patches_left']}")
    return problems


def _problems_of(suite: Suite, run: Run, *, hooks: bool) -> list[str]:
    which, passed = _which(hooks=hooks), tally(run.outcomes)[PASSED]
    problems = [f"{which}: {run.problem}"] if run.problem else []
    if passed < suite.least:
        problems.append(f"{which}: {passed} tests passed, at least {suite.least} have to; see {run.log}")
    return problems
