"""One page for each finding: it exists, its code is true, and it explains every field of the evidence."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from poolscope.config import PREFIX, rules
from poolscope.core.catalogue import FINDING_IDS, KINDS
from poolscope.core.catalogue.exhaustion import BURST, POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.catalogue.holds import FAN_OUT, IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT, THREAD_STARVATION
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL
from poolscope.core.finding_kind import Source
from poolscope.detectors.diagnosis.rules import RULES
from tests.support.causes import CAUSES
from tests.support.pages import BLOCK, PAGES, blocks, page

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.scene import Scene

ROOT = Path(__file__).resolve().parents[3]
# What they show is a matter of rates and of the network: tests make the finding on a clock that does not advance.
NOT_RUN = (BURST, SLOW_CONNECT)
# What each rule names, of connections that are held.
OF_RULES: dict[str, tuple[str, ...]] = {
    "foreign": (FORKED_POOL, FOREIGN_EVENT_LOOP),
    "leaks": (LEAK,),
    "listeners": (LISTENER_HOLD,),
    "validation": (SLOW_CONNECT,),
    "lock_waits": (LOCK_WAIT,),
    "nested": (NESTED_CHECKOUT,),
    "blocked_loop": (BLOCKED_EVENT_LOOP,),
    "starvation": (THREAD_STARVATION,),
    "fan_out": (FAN_OUT,),
    "left_over": (LEAK,),
    "long_holds": (IDLE_IN_TRANSACTION, LONG_HOLD),
    "blocked_wait": (BLOCKED_EVENT_LOOP,),
    "refusals": (),  # of a pool that is not full
}
ALERT = re.compile(r"- alert: (\w+)\n(?:(?!- alert).)*?finding: \"?(\w+)", re.DOTALL)


def test_every_finding_has_its_page_and_every_page_its_finding() -> None:
    """The id is the name; a finding leads to its page."""
    assert {path.stem for path in PAGES.glob("*.md")} == set(FINDING_IDS)
    for identity in FINDING_IDS:
        assert page(identity).startswith(f"# {identity}\n")
        assert (ROOT / KINDS[identity].page).exists()


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_a_page_teaches_the_cause_and_the_repair(identity: str) -> None:
    """How it is known, what it is wrong about, its evidence, its alert; with code for the bad and the repaired."""
    headings = set(re.findall(r"^## (.+)$", page(identity), re.MULTILINE))
    assert {"Known wrong alarms", "Evidence", "Alerts and settings"} <= headings
    assert headings & {"How poolscope knows", "How poolscope finds the cause"}
    blocks = [ast.dump(ast.parse(block["code"])) for block in BLOCK.finditer(page(identity))]
    assert len(set(blocks)) == len(blocks) >= 2


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_the_code_of_a_page_is_true(identity: str) -> None:
    """Each block compiles; one that names a file is that function, word for word."""
    for block in BLOCK.finditer(page(identity)):
        ast.parse(block["code"])
        if block["file"]:
            source = (ROOT / block["file"]).read_text(encoding="utf-8")
            functions = [
                ast.get_source_segment(source, node)
                for node in ast.walk(ast.parse(source))
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == block["name"]
            ]
            assert functions == [block["code"].rstrip("\n")], f"{block['file']}: {block['name']}"


def test_the_arithmetic_of_the_fleet_is_right() -> None:
    """Its blocks assert what they say."""
    assert len(blocks("fleet_budget")) == 2


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_the_code_of_a_page_is_run(identity: str) -> None:
    """By the tests of the file that it names, or as it stands on the page."""
    if any(block["file"] for block in BLOCK.finditer(page(identity))) or identity in NOT_RUN:
        return
    runs = re.compile(rf'\b(?:run_block|blocks)\(\s*(?:"{identity}"|{identity.upper()}\b)')
    assert any(runs.search(path.read_text(encoding="utf-8")) for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_a_page_explains_the_evidence_of_the_catalogue(identity: str) -> None:
    """Every field of it, and where the evidence is that of an exhausted pool, it says so."""
    of_cause = KINDS[identity].source is Source.CAUSE
    assert not of_cause or "[pool_exhausted](pool_exhausted.md#evidence)" in page(identity)
    words = set(re.findall(r"`(\w+)`", page(POOL_EXHAUSTED if of_cause else identity)))
    assert set(KINDS[identity].evidence) <= words, set(KINDS[identity].evidence) - words


@pytest.mark.parametrize(("identity", "cause"), CAUSES.items())
def test_the_evidence_of_a_finding_is_that_of_the_catalogue(identity: str, cause: Callable[[], Scene]) -> None:
    """Of a finding that was really made: no field has no unit and no attribute."""
    for finding in cause().found():
        assert set(finding.evidence) <= set(finding.kind.evidence), identity


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_a_page_names_the_alerts_that_lead_to_it(identity: str) -> None:
    """All of them, and none that does not exist."""
    rules_file = (ROOT / "grafana" / "generated" / "alerts" / "prometheus.yaml").read_text(encoding="utf-8")
    alerts = ALERT.findall(rules_file)
    named = set(re.findall(r"`((?=\w*[a-z])[A-Z][A-Za-z]*[A-Z][A-Za-z]*)`", page(identity)))
    assert {alert for alert, finding in alerts if finding == identity} <= named
    assert named <= set(re.findall(r"- alert: (\w+)", rules_file))


def test_the_causes_of_an_exhausted_pool_are_in_the_order_of_the_rules() -> None:
    """What each rule names is in the table of its place; and every cause there is, on the page."""
    text, diagnosis = page(POOL_EXHAUSTED), (ROOT / "docs" / "diagnosis.md").read_text(encoding="utf-8")
    assert set(OF_RULES) == {rule.__name__ for rule in RULES}
    for account in (
        text[text.index("| cause | when |") :].split("\n\n", 1)[0],
        diagnosis[diagnosis.index("The rules run in this order") :].split("Where\nthe pool is not full", 1)[0],
    ):
        named = re.findall(r"\[(\w+)\]\((?:findings/)?\w+\.md\)", account)
        assert named == [identity for rule in RULES for identity in OF_RULES[rule.__name__]]
    assert {identity for identity in FINDING_IDS if KINDS[identity].source is Source.CAUSE} <= set(
        re.findall(r"\]\((\w+)\.md\)", text)
    )


@pytest.mark.parametrize("identity", FINDING_IDS)
def test_the_settings_of_a_page_exist(identity: str) -> None:
    """By the name of their variable."""
    known = {PREFIX + name.upper() for name in rules()}
    assert set(re.findall(rf"{PREFIX}\w+", page(identity))) <= known
