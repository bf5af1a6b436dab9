"""Errors that hold a secret wherever an exception can hold a text, and what was logged and exported meanwhile."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from typing_extensions import Self

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tests.support.telemetry import Telemetry

#: What must not leave the process.
SECRET: Final = "hunter2-of-the-tests"


class SecretiveError(Exception):
    """
    An error with a secret in its arguments, notes, attributes and cause; whoever formats it fails.

    Args:
        label: What it is.
    """

    #: Who formatted one.
    formatted: Final[list[str]] = []

    def __init__(self, label: str) -> None:
        super().__init__(label, SECRET)
        self.secret = SECRET
        self.__notes__ = [SECRET]
        self.__cause__ = ValueError(SECRET)
        self.__context__ = KeyError(SECRET)

    def __str__(self) -> str:
        self.formatted.append(self.args[0])
        raise RuntimeError(SECRET)

    __repr__ = __str__


class Heard(logging.Handler):
    """What all loggers say meanwhile, in full: with tracebacks, in which the messages of causes are."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{self.format(record)}\n"

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the name is logging's
        self.text += f"{record.msg} could not be formatted\n"

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self)


def exported(telemetry: Telemetry) -> str:
    """Everything that leaves through OpenTelemetry now: metrics, and the spans since the last time."""
    telemetry.instrumentor.flush()
    spans = telemetry.exporter.get_finished_spans()
    telemetry.exporter.clear()
    return f"{telemetry.reader.get_metrics_data()!r} {[_in_full(span) for span in spans]}"


def _in_full(span: ReadableSpan) -> tuple[Any, ...]:
    events = [(event.name, dict(event.attributes or {})) for event in span.events]
    return span.name, dict(span.attributes or {}), events, span.status.description
