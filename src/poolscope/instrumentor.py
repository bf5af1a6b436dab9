"""The entry point of `opentelemetry-instrument`, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from poolscope.config import Settings
from poolscope.core.guard import guard
from poolscope.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.adapters.base import PoolAdapter
    from poolscope.hooks.registry import Hook, Status
    from poolscope.types import LibraryObject


class PoolscopeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """
    Watches every connection pool of the process.

    ``PoolscopeInstrumentor().instrument(tracer_provider=, meter_provider=, **settings)`` and ``.uninstrument()``; the
    settings are the fields of `poolscope.config.Settings`. Providers that are not given are the global ones.
    """

    _session: Session | None = None

    def instrumentation_dependencies(self) -> Collection[str]:
        """None: a pool library that is not there is simply not hooked."""
        return ()

    def flush(self) -> None:
        """Make everything known so far into telemetry: afterwards it is the SDK's to export."""
        if self._session is not None:
            self._session.worker.run_once()

    def statuses(self) -> dict[str, Status[PoolAdapter]]:
        """The state of each adapter, by its name."""
        return dict(self._session.registry.statuses) if self._session is not None else {}

    def framework_statuses(self) -> dict[str, Status[Hook]]:
        """The state of each framework's hooks, by its name."""
        return dict(self._session.frameworks.statuses) if self._session is not None else {}

    def _instrument(self, **kwargs: LibraryObject) -> None:
        # Whatever a provider does when it is called, the application starts.
        guard.run("instrumentor.start", lambda: self._begin(kwargs), None)

    def _begin(self, kwargs: dict[str, Any]) -> None:
        providers = {name: kwargs.pop(name, None) for name in ("tracer_provider", "meter_provider", "logger_provider")}
        settings = Settings.read(kwargs)
        if settings.enabled:
            self._session = Session(settings, **providers)
            self._session.start()

    def _uninstrument(self, **_: LibraryObject) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.stop()
