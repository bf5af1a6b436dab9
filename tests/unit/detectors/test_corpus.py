"""
The corpus: what must be found, and what must not, as data in ``tests/data/findings``, each with its public reference.

`tests.support.corpus` says what a case's steps are. What a case ``finds`` is the ids of all findings; its ``cause`` is
that of the exhausted pool. Where more than one answer is right, it has what must ``never`` be said in place of them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import pytest

from poolscope.core.catalogue import FINDING_IDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from tests.support.corpus import Player, cases

CASES: Final = tuple(cases())

#: Cases that the detectors do not yet get right, with the reason. One that comes right fails until its line goes.
NOT_YET: Final[dict[str, str]] = {
    "sessions deleted by primary keys, a bunch at a time": "the same keys read again, because the rows are deleted",
    "jobs removed in small batches of keys": "only from a limit of 100 on are rows that are worked off a batch",
}


def _marked(case: dict[str, Any]) -> Any:
    name = case["name"]
    marks = [pytest.mark.xfail(strict=True, reason=NOT_YET[name])] if name in NOT_YET else []
    return pytest.param(case, id=name, marks=marks)


@pytest.mark.parametrize("case", [_marked(case) for case in CASES])
def test_the_corpus(case: dict[str, Any]) -> None:
    """Exactly what is to be found is found: nothing less, and nothing else."""
    findings = Player(case).play()
    found = {finding.id for finding in findings}
    causes = [finding.evidence["cause"] for finding in findings if finding.id == POOL_EXHAUSTED]
    if "never" in case:
        assert POOL_EXHAUSTED in found
        assert not (found | set(causes)) & set(case["never"])
        return
    assert found == set(case["finds"])
    assert causes[:1] == ([case["cause"]] if "cause" in case else [])


def test_the_corpus_is_large_enough() -> None:
    """A hundred and fifty cases and more, of which about half must not be found; each has a name of its own."""
    must_not = [case for case in CASES if not case.get("finds")]
    assert len(CASES) >= 150
    assert len(must_not) >= 75
    assert 0.4 <= len(must_not) / len(CASES) <= 0.6
    assert not [name for name, count in Counter(case["name"] for case in CASES).items() if count > 1]


def test_each_case_has_a_public_reference() -> None:
    """Of the form owner/repository#number: an issue or a pull request at GitHub that a reader can look up."""
    assert not [case["name"] for case in CASES if not re.fullmatch(r"[\w.-]+/[\w.-]+#\d+", case["source"])]


def test_what_is_not_yet_right_is_in_the_corpus() -> None:
    """No mark outlives its case, and a case's ids are those of the catalogue."""
    assert set(NOT_YET) <= {case["name"] for case in CASES}
    for case in CASES:
        named = {*case.get("finds", ()), *case.get("never", ()), *([case["cause"]] if "cause" in case else ())}
        assert named <= {*FINDING_IDS}, case["name"]
