"""Findings as events, and in the log for those without a log pipeline."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry._logs import SeverityNumber

from poolscope import semconv
from poolscope.core.catalogue import KINDS, UNITS
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.finding import Finding
from poolscope.core.finding_kind import FindingKind, Severity, Unit
from poolscope.core.guard import guard
from poolscope.otel.logs import Events
from tests.support.pools import identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding import Evidence

VALUES: dict[Unit, Evidence] = {
    Unit.SECONDS: 1.5, Unit.PER_SECOND: 20.0, Unit.SHARE: 0.5, Unit.COUNT: 3, Unit.NONE: "text",
}  # fmt: skip


class Provider:
    """A LoggerProvider that keeps records, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.records: list[Any] = []
        self._error = error

    def get_logger(self, *_: object, **__: object) -> Provider:
        return self

    def emit(self, record: Any) -> None:
        if self._error is not None:
            raise self._error
        self.records.append(record)


@pytest.fixture(autouse=True)
def _counts() -> Iterator[None]:
    """What is caught here is no other test's."""
    yield
    guard.reset()


def finding_of(kind: FindingKind, severity: Severity | None = None, *, resolved: bool = False) -> Finding:
    """A finding with every piece of evidence that its kind may have."""
    evidence = {name: VALUES[part.unit] for name, part in kind.evidence.items()}
    level = severity or kind.severity
    return Finding(kind, level, "what", kind.fix, identity("shop"), evidence, resolved=resolved)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_finding_of_any_kind_is_the_event_of_the_catalogue(kind: FindingKind) -> None:
    """
    With its id, page, fix and evidence under the attributes of the catalogue; a kind that alerts alone report has no
    event, and passing it on raises nothing and is no error of ours.
    """
    provider = Provider()
    events = Events(provider)
    events.open()
    events.report(finding_of(kind))
    assert guard.counts() == {}
    if kind.event is None:
        assert provider.records == []
        return
    (record,) = provider.records
    # Records of an API before 1.35 carry it as an attribute.
    assert getattr(record, "event_name", record.attributes.get("event.name")) == kind.event.name
    said = (record.attributes[semconv.FINDING_ID], record.attributes[semconv.FINDING_PAGE])
    assert said == (kind.id, f"docs/findings/{kind.id}.md")
    assert record.attributes[semconv.FINDING_FIX] == kind.fix
    for part in kind.evidence.values():
        assert record.attributes[part.attribute] == VALUES[part.unit]


def test_the_catalogue_and_the_dictionary_know_the_same_events() -> None:
    """Every event of the dictionary is some finding's, and every finding's event is in the dictionary."""
    used = {event for kind in KINDS.values() for event in (kind.event, kind.resolved_event) if event is not None}
    assert used == set(semconv.EVENTS)


def test_an_attribute_is_measured_in_one_unit() -> None:
    """Whichever finding it belongs to."""
    assert all(UNITS[part.attribute] is part.unit for kind in KINDS.values() for part in kind.evidence.values())


@pytest.mark.parametrize(
    ("severity", "level", "number"),
    [
        (Severity.CRITICAL, logging.ERROR, SeverityNumber.ERROR),
        (Severity.WARNING, logging.WARNING, SeverityNumber.WARN),
        (Severity.INFO, logging.WARNING, SeverityNumber.INFO),
    ],
)
def test_critical_findings_are_errors(
    severity: Severity, level: int, number: SeverityNumber, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log and in the event; warnings are warnings. That an earlier one is over is a warning in the log."""
    provider = Provider()
    events = Events(provider)
    events.open()
    events.report(finding_of(KINDS[N_PLUS_ONE], severity))
    assert [record.levelno for record in caplog.records] == [level]
    assert provider.records[0].severity_number is number


def test_an_exporter_that_fails_takes_nothing_but_the_event(caplog: pytest.LogCaptureFixture) -> None:
    """The sink does not raise: the log has the finding, and the failure is counted as ours."""
    events = Events(Provider(OSError("disk full")))
    events.open()
    events.report(finding_of(KINDS[LEAK]))
    assert caplog.messages[0].startswith("[connection_leak] what; fix: return the connection")
    assert guard.counts() == {"events.emit": 1}


@pytest.mark.parametrize("resolved", [False, True])
def test_who_reads_of_a_leak_reads_that_it_is_none(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, resolved: bool
) -> None:
    """Both are shown where the application has not configured logging: Python's last resort shows warnings only."""
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    Events(None).report(finding_of(KINDS[LEAK], Severity.INFO if resolved else None, resolved=resolved))
    assert "[connection_leak] what" in capfd.readouterr().err
