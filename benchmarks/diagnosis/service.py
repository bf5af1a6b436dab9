"""What a service of threads and one of tasks have in common."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.catalogue.exhaustion import BURST, POOL_TOO_SMALL
from poolscope.core.catalogue.holds import FAN_OUT, NESTED_CHECKOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.diagnosis.scenarios import Scenario

#: How long a checkout waits, in seconds.
PATIENCE: Final = 2.0
#: How long the work of a scenario has to end, in seconds.
LAST: Final = 10.0
#: The usual load runs alone for so many seconds before a burst.
CALM: Final = 5.0
# The usual load begins so many seconds after causes that hold connections from then on.
_LEAD: Final = 1.0
# Causes that are the load, or that come and go with each request.
_FROM_THE_START: Final = (POOL_TOO_SMALL, BURST, FAN_OUT, NESTED_CHECKOUT)


class Service(ABC):
    """
    A scenario at work.

    Args:
        scenario: The scenario.
    """

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        self._chance = random.Random(f"{scenario.seed}/{scenario.number}/load")
        self._kept: list[Any] = []
        #: How long a checkout waited, in seconds; infinite where one failed.
        self.longest_wait = 0.0

    @abstractmethod
    def run(self, until: Callable[[], bool], most: float) -> None:
        """
        Run it.

        Args:
            until: Whether enough was seen.
            most: Seconds that it runs at the most.
        """

    @property
    def _lead(self) -> float:
        # After how many seconds the usual load begins.
        return 0.0 if not self._scenario.plants or self._scenario.main in _FROM_THE_START else _LEAD

    @property
    def _at_once(self) -> int:
        # How many requests a burst has.
        return round(1.8 * self._scenario.size / self._scenario.hold)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        # Around a checkout.
        began = time.monotonic()
        try:
            yield
        except Exception:
            self.longest_wait = float("inf")
            raise
        finally:
            self.longest_wait = max(self.longest_wait, time.monotonic() - began)
