"""
Our own bugs never reach the application: they are caught, counted, and logged once for each place.

What a signal handler raises while our code runs is no bug of ours: it is the application's, such as the time limit of a
Celery task or an RQ job, and passes. So does what another greenlet throws into this one, such as gevent's timeout.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from typing import TYPE_CHECKING, Final, TypeVar

from poolscope.core.failure import raised_by_a_signal, type_and_place
from poolscope.core.log_lines import log_lines

if TYPE_CHECKING:
    from collections.abc import Callable

_logger: Final = logging.getLogger("poolscope")
_Result = TypeVar("_Result")


class SessionEndedError(Exception):
    """Poolscope was stopped while a hook of it ran. That is no error: what the hook was about is no longer kept."""


class Guard:
    """Where caught errors of poolscope's own are counted."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def caught(self, component: str) -> None:
        """
        Count the exception that is being handled; the first of each site is logged, by its type and place.

        Its message is not: it may be a library's, and hold a password. So are no causes, and no values of variables.

        Args:
            component: The part of poolscope, such as ``sqlalchemy.checkin``, of a fixed set: it becomes an attribute.

        Raises:
            Exception: The one that is being handled, if a signal handler raised it.
        """
        error = sys.exc_info()[1]
        if raised_by_a_signal(error):
            raise  # noqa: PLE0704 - it is called from exception handlers
        if isinstance(error, SessionEndedError):
            return
        self._counts[component] += 1
        if self._counts[component] == 1:
            log_lines.write(
                _logger,
                logging.WARNING,
                "poolscope caught an error of its own at %s; the application is not affected, but figures may be wrong"
                ": %s",
                component,
                type_and_place(error),
            )

    def caught_quietly(self, component: str) -> None:
        """
        Count the exception that is being handled and log nothing: for what the garbage collector calls, which may run
        while this thread is in the midst of logging.
        """
        if not isinstance(sys.exc_info()[1], SessionEndedError):
            self._counts[component] += 1

    def count(self, component: str) -> None:
        """Count something lost without an exception; it is logged once."""
        self._counts[component] += 1
        if self._counts[component] == 1:
            text = "poolscope dropped data at %s; its figures are incomplete"
            log_lines.write(_logger, logging.WARNING, text, component)

    def count_quietly(self, component: str, number: int = 1) -> None:
        """Count something lost and log nothing: for where the log may be what is stuck."""
        self._counts[component] += number

    def run(self, component: str, function: Callable[[], _Result], default: _Result) -> _Result:
        """
        Call the function; on an exception count it and return the default. For cold paths.

        Raises:
            Exception: What a signal handler raised meanwhile.
        """
        try:
            return function()
        except Exception:  # noqa: BLE001 - whatever it is, it is ours and must not reach the application
            self.caught(component)
            return default

    def counts(self) -> dict[str, int]:
        """How many errors were caught, by site."""
        return dict(self._counts)

    def reset(self) -> None:
        """Forget all counts; a child process after a fork starts at none."""
        self._counts.clear()


#: The one guard of the process.
guard: Final = Guard()
