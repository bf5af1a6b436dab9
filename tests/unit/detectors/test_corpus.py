"""
The corpus: what must be found, and what must not, as data in ``tests/data/findings/corpus.json``.

A case is a list of steps of one unit of work (or of as many as `requests` says). Connections have names; what names
none runs on one that is returned at the end. A query's text is a template: `{i}` is the number of the run, from 1, and
`{list}`, `{rows}` and the others grow with it. So are its parameters, as the driver gets them: a list or an object.
"""

from __future__ import annotations

import json
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.sql.repetition import EXPECTED_REPETITION
from poolscope.core.work import EXPECTED_LONG_HOLD
from tests.support.scene import Scene

if TYPE_CHECKING:
    from poolscope.core.lease import Lease

CORPUS = json.loads((Path(__file__).parents[2] / "data" / "findings" / "corpus.json").read_text(encoding="utf-8"))
CASES = [*CORPUS["found"], *CORPUS["not_found"]]


def texts(template: str, i: int) -> str:
    """A statement's text at its run of that number."""
    values = {
        "i": i,
        "letter": chr(ord("a") + i),
        "list": ", ".join(str(number) for number in range(i)) or "0",
        "parameters": ", ".join(f"%(id_{number})s" for number in range(i)),
        "tuples": ", ".join(f"('sku {number}', {number})" for number in range(i)),
        "long_list": ", ".join(str(number) for number in range(100 * i, 100 * i + 100 + i)),
        "rows": ", ".join(f"({number}, 'row {number}')" for number in range(i + 1)),
        "many_rows": ", ".join(f"({number}, 'row {number} of a long chunk {i}')" for number in range(i, i + 500)),
        "columns": ", ".join(f"wide.a_column_with_a_long_name_{number}" for number in range(100)),
    }
    for name, value in values.items():
        template = template.replace("{" + name + "}", str(value))
    return template


def parameters(templates: Any, i: int) -> Any:
    """A statement's parameters at its run of that number: texts are templates, of which numbers become numbers."""
    if isinstance(templates, dict):
        return {name: parameters(value, i) for name, value in templates.items()}
    if isinstance(templates, list):
        return tuple(parameters(value, i) for value in templates)
    if templates in {"{array}", "{short_array}"}:
        return list(range(i, i + (500 if templates == "{array}" else 3)))
    if isinstance(templates, str):
        text = texts(templates, i)
        return int(text) if text.lstrip("-").isdigit() else text
    return templates


class Player:
    """
    Plays cases.

    Args:
        scene: Where.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.leases: dict[str, Lease] = {}
        self._number = 0

    def play(self, steps: list[dict[str, Any]]) -> None:
        """A list of steps."""
        for step in steps:
            if "repeat" in step:
                for _ in range(step["repeat"]):
                    self.play(step["steps"])
            elif "query" in step:
                self._query(step)
            elif "checkout" in step:
                token = EXPECTED_LONG_HOLD.set(step.get("expected_long_hold"))
                self.leases[step["checkout"]] = self.scene.checkout(step.get("at", "view"))
                EXPECTED_LONG_HOLD.reset(token)
            elif "return" in step:
                self.leases.pop(step["return"]).released()
            elif "abandon" in step:
                self.leases.pop(step["abandon"]).released(abandoned=True)
            elif "watch" in step:
                self.scene.pass_time(step["watch"])
            else:
                self.scene.clock.advance(step["wait"])

    def _query(self, step: dict[str, Any]) -> None:
        lease = self.leases.get(step.get("on", "main"))
        if lease is None:
            lease = self.leases["main"] = self.scene.checkout("view")
        token = EXPECTED_REPETITION.set(step.get("expected"))
        templates = [step["query"]] if isinstance(step["query"], str) else step["query"]
        at = step.get("at", "loop")
        for number, template in enumerate(islice(cycle(templates), step.get("times", 1)), 1):
            for before in step.get("before", ()):
                self.scene.query(lease, texts(before, number), at)
            self.scene.query(
                lease,
                texts(template, number),
                at,
                step.get("seconds", 0.0),
                many=step.get("many", False),
                parameters=parameters(step.get("parameters"), number),
            )
            for after in step.get("after", ()):
                self.scene.query(lease, texts(after, number), at)
        EXPECTED_REPETITION.reset(token)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_the_corpus(case: dict[str, Any]) -> None:
    """Exactly what is to be found is found: nothing less, and nothing else."""
    scene = Scene(20, case.get("system", "postgresql"))
    for _ in range(case.get("requests", 1)):
        player = Player(scene)
        with scene.unit():
            player.play(case["steps"])
            main = player.leases.pop("main", None)
            if main is not None:
                main.released()
        if "returned_after" in case:
            scene.clock.advance(case["returned_after"])
            for lease in player.leases.values():
                lease.released()
    scene.pass_time(3)
    found = {finding.id for finding in scene.found() if not finding.resolved}
    assert found == set(case["finds"])


def test_the_corpus_is_large_enough() -> None:
    """At least thirty of each, each with a name of its own and where it comes from."""
    assert len(CORPUS["found"]) >= 30
    assert len(CORPUS["not_found"]) >= 30
    assert len({case["name"] for case in CASES}) == len(CASES)
    assert all(case["source"] for case in CASES)
    assert not any(case["finds"] for case in CORPUS["not_found"])
    assert all(case["finds"] for case in CORPUS["found"])
