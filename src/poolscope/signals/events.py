"""
Findings as events: log records with an event name, and the same as warnings of Python's `logging`.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import _logs as otel_logs
from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context

from poolscope import __version__
from poolscope.core import finding as findings
from poolscope.core.origin import locate
from poolscope.signals import names
from poolscope.signals.readings import pool_attributes

if TYPE_CHECKING:
    from poolscope.core.finding import Finding

#: What people read; the exporters get records of their own.
_logger: Final = logging.getLogger("poolscope.findings")

_EVENTS: Final = {
    findings.LEAK: names.LEAK_EVENT,
    findings.POOL_EXHAUSTED: names.EXHAUSTED_EVENT,
    findings.N_PLUS_ONE: names.N_PLUS_ONE_EVENT,
    findings.NESTED_CHECKOUT: names.NESTED_CHECKOUT_EVENT,
    findings.LONG_HOLD: names.LONG_HOLD_EVENT,
    findings.IDLE_IN_TRANSACTION: names.LONG_HOLD_EVENT,
}

# Evidence that has an attribute of its own; the rest goes under the prefix.
_EVIDENCE: Final = {
    "statement": names.DB_QUERY_TEXT,
    "checkout_stack": names.CODE_STACKTRACE,
    "stands_at": names.STANDS_AT,
    "holders": names.HOLDERS,
    "holders_omitted": names.HOLDERS_OMITTED,
    "verdict": names.VERDICT,
    "limit": names.POOL_LIMIT,
    "used": names.POOL_USED,
    "pending": names.POOL_PENDING,
    "leak_kind": names.LEAK_KIND,
    "age": names.LEASE_AGE,
    "queries": names.LEASE_QUERIES,
    "backend_process_id": names.BACKEND_PROCESS_ID,
    "repetitions": names.STATEMENT_REPETITIONS,
    "seconds": names.STATEMENT_TIME,
}

_LEVELS: Final = {
    # A leak that came back: without a word from Python's logging, the warning about it would stand.
    findings.Severity.INFO: (logging.WARNING, SeverityNumber.INFO, "INFO"),
    findings.Severity.WARNING: (logging.WARNING, SeverityNumber.WARN, "WARN"),
    findings.Severity.CRITICAL: (logging.WARNING, SeverityNumber.WARN, "WARN"),
}

# Attribute values are cut here: a blame report stays below what collectors take.
_LONGEST: Final = 4_000


class Events:
    """
    Emits findings through one LoggerProvider, and to `logging`. A `FindingSink`.

    Args:
        provider: The LoggerProvider, or None for the global one.
    """

    def __init__(self, provider: Any) -> None:  # noqa: ANN401
        self._provider = provider
        self._emitter: Any = None

    def open(self) -> None:
        """
        Take the logger; again when a provider was set since.
        """
        provider = self._provider or otel_logs.get_logger_provider()
        self._emitter = provider.get_logger(names.SCOPE, __version__, names.SCHEMA_URL)

    def report(self, finding: Finding) -> None:
        """
        See `FindingSink.report`. Called from the background thread.
        """
        level, number, text = _LEVELS[finding.severity]
        _logger.log(level, "[%s] %s", finding.id, finding.report or f"{finding.summary}; cure: {finding.cure}")
        if self._emitter is None:
            return
        event = names.LEAK_RESOLVED_EVENT if finding.resolved else _EVENTS[finding.id]
        now = time.time_ns()
        around = trace.set_span_in_context(finding.trace) if finding.trace is not None else Context()
        self._emitter.emit(
            _record(
                event.name,
                timestamp=now,
                observed_timestamp=now,
                context=around,
                severity_number=number,
                severity_text=text,
                body=finding.report or finding.summary,
                attributes=attributes_of(finding),
            )
        )


def attributes_of(finding: Finding) -> dict[str, Any]:
    """
    A finding as attributes of its event.

    Returns:
        Attributes; texts in them are cut at 4,000 characters.
    """
    attributes: dict[str, Any] = dict(pool_attributes(finding.pool)) if finding.pool is not None else {}
    attributes[names.FINDING_ID] = finding.id
    attributes[names.FINDING_SEVERITY] = finding.severity.value
    attributes[names.FINDING_SUMMARY] = _cut(finding.summary)
    attributes[names.FINDING_CURE] = _cut(finding.cure)
    attributes[names.FINDING_PAGE] = finding.page
    if finding.unit is not None:
        attributes[names.UNIT_OF_WORK_KIND] = finding.unit.kind
        attributes[names.UNIT_OF_WORK_NAME] = finding.unit.name
    if finding.origin is not None:
        place = locate(*finding.origin)
        attributes[names.CODE_FUNCTION] = place.function
        attributes[names.CODE_FILE] = place.file
        attributes[names.CODE_LINE] = place.line
    for key, value in finding.evidence.items():
        if value in ("", [], ()):
            continue
        attributes[_EVIDENCE.get(key, names.EVIDENCE_PREFIX + key)] = _cut(value)
    return attributes


def _cut(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, str):
        return value[:_LONGEST]
    if isinstance(value, (list, tuple)):
        return [str(one)[:_LONGEST] for one in value]
    return value


def _record(event_name: str, **fields: Any) -> Any:  # noqa: ANN401
    try:
        return LogRecord(event_name=event_name, **fields)
    except TypeError:  # an API before records had event names and contexts (1.35)
        from opentelemetry.sdk import _logs  # noqa: PLC0415 - such an API needs the SDK's records

        around = trace.get_current_span(fields.pop("context")).get_span_context()
        fields["attributes"] = {**fields["attributes"], "event.name": event_name}
        ids = {"trace_id": around.trace_id, "span_id": around.span_id, "trace_flags": around.trace_flags}
        record: Any = getattr(_logs, "LogRecord")  # noqa: B009 - newer SDKs have none
        return record(**ids, **fields)
