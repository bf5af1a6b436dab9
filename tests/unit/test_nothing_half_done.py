"""What is declared is there as a whole: a kind of finding is found, a metric is fed and shown, a command can be run."""

from __future__ import annotations

import json
import re
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from grafana.prometheus import series
from poolscope import semconv
from poolscope.cli.app import app
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED
from poolscope.core.finding_kind import Source
from poolscope.core.guard import guard
from poolscope.core.lease import Outcome
from poolscope.detectors.registry import DETECTORS
from poolscope.otel.metrics.observations import OBSERVATIONS, histograms
from tests.support.causes import CAUSES
from tests.support.loops import event_loop
from tests.support.scene import Scene
from tools.docs_check import known_names, unknown_names

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding_kind import FindingKind

ROOT = Path(__file__).resolve().parents[2]
DASHBOARDS = ROOT / "grafana" / "generated" / "dashboards"
ALERTS = ROOT / "grafana" / "generated" / "alerts" / "prometheus.yaml"
# A command as readers are to type it: in backticks, or on a line of a block of code.
INLINE = re.compile(r"`(?:python -m )?poolscope +(-{0,2}[a-z][\w-]*)")
TYPED = re.compile(r"^\s*(?:\$ )?(?:\S*python -m )?poolscope +(-{0,2}[a-z][\w-]*)", re.MULTILINE)
KNOWN = lru_cache(known_names)
BLOCK = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


def of_source(source: Source) -> list[FindingKind]:
    """The kinds that are reported in one way."""
    return [kind for kind in KINDS.values() if kind.source is source]


# Findings


@pytest.mark.parametrize("kind", [*of_source(Source.DETECTOR), *of_source(Source.CAUSE)], ids=lambda kind: kind.id)
def test_every_kind_that_a_process_can_find_is_found(kind: FindingKind) -> None:
    """
    An application that does what is wrong gets the finding; a kind that is a cause alone is named
    by the exhaustion.
    """
    findings = CAUSES[kind.id]().found()
    if kind.source is Source.CAUSE:
        assert kind.id in {finding.evidence["cause"] for finding in findings if finding.id == POOL_EXHAUSTED}
    else:
        assert kind.id in {finding.id for finding in findings}


def test_a_detector_claims_what_it_finds_and_every_kind_has_one() -> None:
    """
    The kinds of the registered detectors are those of the catalogue that a detector reports, each
    of one detector.
    """
    claimed = [kind for detector in DETECTORS for kind in detector.kinds]
    assert sorted(claimed) == sorted(kind.id for kind in of_source(Source.DETECTOR))


@pytest.mark.parametrize("kind", of_source(Source.ALERT), ids=lambda kind: kind.id)
def test_a_kind_that_only_alerts_report_has_an_alert(kind: FindingKind) -> None:
    """And no event that would promise one from a process."""
    assert f"finding: {kind.id}\n" in ALERTS.read_text(encoding="utf-8")
    assert kind.event is None


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_has_its_page(kind: FindingKind) -> None:
    """Under its id, with its id as the heading."""
    assert (ROOT / kind.page).read_text(encoding="utf-8").startswith(f"# {kind.id}\n")


# Metrics


@pytest.fixture
def busy() -> Iterator[Scene]:
    """A pool with a bit of everything that is measured."""
    scene = Scene(2)
    scene.source.idle_limits = lambda: (1, 2)  # type: ignore[method-assign, assignment]
    scene.source.idle = lambda: 1  # type: ignore[method-assign]
    outside = scene.checkout()
    with scene.unit():
        lease = scene.checkout()
        for _ in range(9):
            scene.query(lease, seconds=0.1)
        scene.clock.advance(1)
        waiting = scene.begin_checkout()
        scene.clock.advance(1)
        waiting.failed(Outcome.TIMEOUT, "TimeoutError")
        lease.released()
    slow = scene.begin_checkout()
    slow.connected(0.5)
    scene.clock.advance(1)
    slow.acquired()
    scene.pool.created(0.5, slow)
    slow.released(abandoned=True)
    scene.pool.closed("recycled")
    pending = scene.begin_checkout("pending")
    scene.pool_registry.tick()
    with event_loop(scene.pool) as loop:
        held = loop.checkout()
        scene.tick()
        loop.turn()
        scene.tick()
        loop.do(held.released)
    scene.tick()
    guard.count("a place")
    yield scene
    outside.released()
    pending.failed(Outcome.TIMEOUT, "TimeoutError")
    guard.reset()


@pytest.mark.parametrize("metric", semconv.METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_fed(metric: semconv.Metric, busy: Scene) -> None:
    """Where something happened that it measures, it has a point that is not 0."""
    points: list[float] = []
    if metric.kind is semconv.Kind.HISTOGRAM:
        for found, distributions in histograms(busy.pool_registry):
            points += [one.read().count for _, one in distributions if found is metric]
    else:
        points += [value for value, _ in OBSERVATIONS[metric](busy.pool_registry)]
    assert any(points), points


@pytest.mark.parametrize("metric", semconv.METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_on_a_panel(metric: semconv.Metric) -> None:
    """A query of some dashboard reads it."""
    queries = [query for path in DASHBOARDS.glob("*.json") for query in _queries(json.loads(path.read_text("utf-8")))]
    assert any(re.search(rf"\b{name}\b", query) for query in queries for name in series(metric))


def _queries(model: Any) -> Iterator[str]:
    if isinstance(model, dict):
        yield from (text for key, text in model.items() if key == "expr")
        model = list(model.values())
    if isinstance(model, list):
        for part in model:
            yield from _queries(part)


@pytest.mark.parametrize("path", sorted((ROOT / "grafana" / "generated").rglob("*.*")), ids=lambda path: path.name)
def test_what_alerts_and_dashboards_name_is_emitted(path: Path) -> None:
    """Metrics, spans, events and attributes in backticks, as in the documentation."""
    assert list(unknown_names(path.read_text(encoding="utf-8"), KNOWN())) == []


# Commands


def _told() -> Iterator[tuple[str, str]]:
    """Every command that a page, an alert or our own code tells people to run, with where it does."""
    listed = subprocess.run(
        [
            "git",
            "ls-files",
            "-co",
            "--exclude-standard",
            "*.md",
            "src/*.py",
            "grafana/*.py",
            "grafana/generated/alerts/*",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        path = ROOT / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        blocks = "\n".join(BLOCK.findall(text))
        yield from ((word, name) for word in (*INLINE.findall(text), *TYPED.findall(blocks)))


def test_every_command_of_the_pages_exists() -> None:
    """In documentation, alerts and messages."""
    told = set(_told())
    known = {*app.commands, *(option for one in app.params for option in one.opts), "--help", "-h"}
    assert {word for word, _ in told} >= {"report", "doctor"}, "they are found where the pages give them"
    assert {(word, where) for word, where in told if word not in known} == set()


def test_every_command_has_a_section_in_the_documentation() -> None:
    """With its name as people type it."""
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert {name for name in app.commands if f"\n## `poolscope {name}" not in page} == set()
