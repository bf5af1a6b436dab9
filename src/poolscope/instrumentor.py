"""The entry point of `opentelemetry-instrument`, and nothing else."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]

from poolscope.config import Settings
from poolscope.core.guard import guard
from poolscope.core.interpreters import is_subinterpreter
from poolscope.core.serially import toggling
from poolscope.session import Session

if TYPE_CHECKING:
    from collections.abc import Collection

    from poolscope.adapters.base import PoolAdapter
    from poolscope.hooks.registry import Hook, Status
    from poolscope.types import LibraryObject


_logger: Final = logging.getLogger("poolscope")


class PoolscopeInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """
    Watches every connection pool of the process.

    ``PoolscopeInstrumentor().instrument(tracer_provider=, meter_provider=, **settings)`` and ``.uninstrument()``; the
    settings are the fields of `poolscope.config.Settings`. Providers that are not given are the global ones.
    """

    _session: Session | None = None
    # What was asked last, and what was done last: the settings, as they were given; None for no session. The second
    # follows the first once a start or stop that is under way has ended.
    _wanted: dict[str, Any] | None = None
    _done: dict[str, Any] | None = None

    @property
    def _is_instrumented_by_opentelemetry(self) -> bool:
        return self._wanted is not None

    @_is_instrumented_by_opentelemetry.setter
    def _is_instrumented_by_opentelemetry(self, _: bool) -> None:
        # The base class says so after the fact, when another thread may have asked for the opposite.
        pass

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
        self._wanted = kwargs
        toggling.do(self._settle)

    def _uninstrument(self, **_: LibraryObject) -> None:
        self._wanted = None
        toggling.do(self._settle)

    def _settle(self) -> None:
        # By then another thread may have asked for something else, and that may be done already.
        wanted = self._wanted
        if wanted is self._done:
            return
        self._done = wanted
        guard.run("instrumentor.stop", self._end, None)
        if wanted is not None:
            # Whatever a provider does when it is called, the application starts.
            guard.run("instrumentor.start", lambda: self._begin(dict(wanted)), None)

    def _begin(self, kwargs: dict[str, Any]) -> None:
        if is_subinterpreter():
            # Its end ends the process where a daemon thread runs, and most pool libraries cannot be imported there.
            _logger.warning("poolscope does not work in a subinterpreter: nothing is instrumented in this one")
            return
        providers = {name: kwargs.pop(name, None) for name in ("tracer_provider", "meter_provider", "logger_provider")}
        settings = Settings.read(kwargs)
        if settings.enabled:
            self._session = Session(settings, **providers)
            self._session.start()

    def _end(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.stop()
