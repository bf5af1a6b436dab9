"""Findings as events: log records with an event name, and the same as warnings of Python's `logging`."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as otel_logs
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context

from poolscope import __version__, semconv
from poolscope.core.finding_kind import Severity
from poolscope.core.guard import guard
from poolscope.core.location import locate
from poolscope.core.log_lines import log_lines
from poolscope.otel.metrics.observations import identity_attributes

if TYPE_CHECKING:
    from poolscope.core.finding import Finding
    from poolscope.types import LibraryObject

#: What people read; the exporters get records of their own.
_logger: Final = logging.getLogger("poolscope.findings")

_LEVELS: Final = {
    # A leaked connection that was returned: without a line in Python's logging, the warning would seem to hold still.
    Severity.INFO: (logging.WARNING, SeverityNumber.INFO, "INFO"),
    Severity.WARNING: (logging.WARNING, SeverityNumber.WARN, "WARN"),
    Severity.CRITICAL: (logging.ERROR, SeverityNumber.ERROR, "ERROR"),
}

# Attribute values are cut here: an exhaustion report stays below what collectors take.
_LONGEST: Final = 4_000


class Events:
    """
    Emits findings through one LoggerProvider, and to `logging`. A `FindingSink`.

    Args:
        provider: The LoggerProvider, or None for the global one.
    """

    def __init__(self, provider: LibraryObject) -> None:
        self._provider = provider
        self._emitter: Any = None

    def provider(self) -> LibraryObject:
        """The LoggerProvider."""
        return self._provider or otel_logs.get_logger_provider()

    def open(self) -> None:
        """Take the logger; again when a provider was set since."""
        self._emitter = self.provider().get_logger(semconv.SCOPE, __version__, semconv.SCHEMA_URL)

    def report(self, finding: Finding) -> None:
        """Write a finding to the log and emit its event. Called from the background thread."""
        # A logging handler that fails does not keep the finding from the exporter, nor the other way round.
        guard.run("events.log", lambda: _log(finding), None)
        guard.run("events.emit", lambda: self._emit(finding), None)

    def _emit(self, finding: Finding) -> None:
        event = finding.event
        if self._emitter is None or event is None:
            return
        _, number, text = _LEVELS[finding.severity]
        now = time.time_ns()
        around = trace.set_span_in_context(finding.trace) if finding.trace is not None else Context()
        self._emitter.emit(
            _record(
                event.name,
                self._emitter,
                timestamp=now,
                observed_timestamp=now,
                context=around,
                severity_number=number,
                severity_text=text,
                body=finding.report or finding.summary,
                attributes=attributes_of(finding),
            )
        )


def _log(finding: Finding) -> None:
    level, _, _ = _LEVELS[finding.severity]
    log_lines.write(_logger, level, "[%s] %s", finding.id, finding.report or f"{finding.summary}; fix: {finding.fix}")


def attributes_of(finding: Finding) -> dict[str, Any]:
    """
    A finding as attributes of its event.

    Returns:
        Attributes; texts in them are cut at 4,000 characters.
    """
    attributes: dict[str, Any] = dict(identity_attributes(finding.pool)) if finding.pool is not None else {}
    attributes[semconv.FINDING_ID] = finding.id
    attributes[semconv.FINDING_SEVERITY] = finding.severity.value
    attributes[semconv.FINDING_SUMMARY] = _cut(finding.summary)
    attributes[semconv.FINDING_FIX] = _cut(finding.fix)
    attributes[semconv.FINDING_PAGE] = finding.kind.page
    if finding.unit is not None:
        attributes[semconv.UNIT_OF_WORK_KIND] = finding.unit.kind
        attributes[semconv.UNIT_OF_WORK_NAME] = finding.unit.name
    if finding.origin is not None:
        place = locate(*finding.origin)
        attributes[semconv.CODE_FUNCTION] = place.function
        attributes[semconv.CODE_FILE] = place.file
        attributes[semconv.CODE_LINE] = place.line
    for name, value in finding.evidence.items():
        if value not in ("", [], ()):
            attributes[finding.kind.evidence[name].attribute] = _cut(value)
    return attributes


def _cut(value: LibraryObject) -> LibraryObject:
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, (list, tuple)):
        return [str(one)[:_LONGEST] for one in value]
    return value


def _record(event_name: str, emitter: LibraryObject, **fields: LibraryObject) -> LibraryObject:
    try:
        return LogRecord(event_name=event_name, **fields)
    except TypeError:  # an API before records had event names and contexts (1.35)
        from opentelemetry.sdk import _logs  # noqa: PLC0415 - such an API needs the SDK's records
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - the same

        around = trace.get_current_span(fields.pop("context")).get_span_context()
        fields["attributes"] = {**fields["attributes"], "event.name": event_name}
        ids = {"trace_id": around.trace_id, "span_id": around.span_id, "trace_flags": around.trace_flags}
        record: Any = getattr(_logs, "LogRecord")  # noqa: B009 - newer SDKs have none
        # Without one it makes its own, which takes threads, and fails while the interpreter ends.
        resource = getattr(getattr(emitter, "_logger", emitter), "resource", None) or Resource.get_empty()
        return record(resource=resource, **ids, **fields)
