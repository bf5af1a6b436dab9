"""Exporters that a fault can turn into ones that hang, refuse or are slow."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

#: Seconds that a slow export takes.
SLOW: Final = 0.05


class BackendError(Exception):
    """A backend refuses what it is sent."""


class Backend:
    """Where all exporters send to; it works unless a fault says otherwise."""

    def __init__(self) -> None:
        self._reachable = threading.Event()
        self._reachable.set()
        self._behaviour: Callable[[], object] = self._works
        self.received = 0

    def receive(self, number: int) -> None:
        """
        One export.

        Args:
            number: How many items it has.

        Raises:
            BackendError: It refuses.
        """
        self._behaviour()
        self.received += number

    def hangs(self) -> AbstractContextManager[None]:
        """It does not answer for as long as the block runs."""
        self._reachable.clear()
        return self._while(self._reachable.wait)

    def refuses(self) -> AbstractContextManager[None]:
        """It raises."""
        return self._while(self._refuse)

    def is_slow(self) -> AbstractContextManager[None]:
        """It takes its time."""
        return self._while(lambda: time.sleep(SLOW))

    @contextlib.contextmanager
    def _while(self, behaviour: Callable[[], object]) -> Iterator[None]:
        self._behaviour = behaviour
        try:
            yield
        finally:
            self._behaviour = self._works
            self._reachable.set()

    def _works(self) -> None:
        pass

    def _refuse(self) -> None:
        raise BackendError


class Spans(SpanExporter):
    """
    Sends spans.

    Args:
        backend: Where to.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def export(self, spans: Any) -> SpanExportResult:
        self._backend.receive(len(spans))
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass

    def force_flush(self, timeout_millis: int = 0) -> bool:
        return True


class Metrics(MetricExporter):
    """
    Sends metrics.

    Args:
        backend: Where to.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__()
        self._backend = backend

    def export(self, metrics_data: Any, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        self._backend.receive(1)
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        pass
