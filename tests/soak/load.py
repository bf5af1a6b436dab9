"""What a service does with its pools, at full speed, and its own count of it."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from poolscope.api import unit_of_work
from tests.contract.drivers.base import Feature
from tests.contract.subject import error_name

if TYPE_CHECKING:
    from tests.contract.drivers.base import Driver, Handle

#: Connections of each pool, and seconds that a checkout waits for one.
LIMIT: Final = 4
PATIENCE: Final = 0.5
#: One in so many leases, which each end in another way than a plain return.
ODD: Final = 200
#: Leases of one request.
REQUEST: Final = 20


class InterruptError(Exception):
    """What a signal handler raises in the application's main thread."""


@dataclass
class Count:
    """
    What happened in one thread.

    Args:
        acquired: Checkouts that succeeded.
        returned: Leases that ended.
        failed: Checkouts that failed, by the name of the exception.
        interrupted: How often a signal handler raised amid it.
        odd: What else the library raised, by name: on a broken connection.
    """

    acquired: int = 0
    returned: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    interrupted: int = 0
    odd: Counter[str] = field(default_factory=Counter)

    def add(self, other: Count) -> None:
        """Add what happened elsewhere."""
        self.acquired += other.acquired
        self.returned += other.returned
        self.failed += other.failed
        self.interrupted += other.interrupted
        self.odd += other.odd


class Caller:
    """
    One thread's use of one pool.

    Args:
        driver: The pool.
        seed: For what it draws.
    """

    def __init__(self, driver: Driver, seed: str) -> None:
        self.driver = driver
        self.count = Count()
        self._draw = random.Random(seed)
        self._held: Handle | None = None

    def request(self) -> None:
        """Some leases, one after the other, in one unit of work."""
        with unit_of_work(f"route {self._draw.randrange(40)}"):
            for _ in range(REQUEST):
                self.lease()

    def lease(self) -> None:
        """One lease."""
        count, driver = self.count, self.driver
        try:
            handle = self._held = driver.acquire()
        except InterruptError:
            raise
        except BaseException as error:
            count.failed[error_name(error)] += 1
            return
        count.acquired += 1
        end = driver.release
        drawn = self._draw.randrange(ODD)
        features = driver.features
        if drawn == 0 and Feature.ABANDON in features and Feature.LIMIT not in features:
            end = driver.abandon
        elif drawn == 1 and Feature.INVALIDATE in features:
            end = driver.invalidate
        elif drawn == 2 and Feature.DETACH in features:
            end = self._detach
        elif drawn < ODD // 10:
            self._tries(driver.query, handle)
        self._held = None
        count.returned += 1
        self._tries(end, handle)

    def cancel(self) -> None:
        """A checkout that is cancelled meanwhile, or not."""
        checkout = self.driver.begin()
        checkout.cancel()
        try:
            handle = checkout.wait()
        except BaseException as error:
            self.count.failed[error_name(error)] += 1
            return
        self.count.acquired += 1
        self.count.returned += 1
        self._tries(self.driver.release, handle)

    def give_back(self) -> None:
        """After an interrupt: what it had in hand goes back, if the library still takes it."""
        handle, self._held = self._held, None
        if handle is not None:
            with contextlib.suppress(Exception):
                self.driver.release(handle)

    def _detach(self, handle: Handle) -> None:
        self.driver.detach(handle)
        self.driver.close_detached(handle)

    def _tries(self, function: Any, handle: Handle) -> None:
        # A connection may be broken: the server was told to close it.
        try:
            function(handle)
        except InterruptError:
            raise
        except Exception as error:
            self.count.odd[error_name(error)] += 1


class Load:
    """
    Threads that use pools until `stop`; the caller's thread is one more, see `work_here`.

    Args:
        drivers: The pools, open.
        seed: For what the threads draw.
        threads: How many for each pool.
    """

    def __init__(self, drivers: list[Driver], seed: str, threads: int) -> None:
        self.callers: list[Caller] = []
        self.stopping = threading.Event()
        self._threads = []
        for driver in drivers:
            for number in range(threads if driver.threads else 1):
                caller = Caller(driver, f"{seed} {driver.label} {number}")
                self.callers.append(caller)
                self._threads.append(threading.Thread(target=self._work, args=(caller,), name=f"soak {driver.label}"))
        for thread in self._threads:
            thread.start()

    def work_here(self, caller: Caller, until: float, inside: list[bool]) -> None:
        """
        Use a pool in the calling thread, where signal handlers run.

        Args:
            caller: Its use of the pool.
            until: When to stop, on the monotonic clock, in seconds.
            inside: Its one item is true while a signal handler may raise.
        """
        self.callers.append(caller)
        while time.monotonic() < until:
            try:
                inside[0] = True
                caller.lease()
                inside[0] = False
            except InterruptError:
                caller.count.interrupted += 1
                caller.give_back()

    def stop(self, within: float) -> list[str]:
        """
        Let the threads end.

        Args:
            within: Seconds that they have for it.

        Returns:
            The names of those that did not.
        """
        self.stopping.set()
        deadline = time.monotonic() + within
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return [thread.name for thread in self._threads if thread.is_alive()]

    def count(self, driver: Driver) -> Count:
        """What happened with one pool."""
        total = Count()
        for caller in self.callers:
            if caller.driver is driver:
                total.add(caller.count)
        return total

    def _work(self, caller: Caller) -> None:
        cancels = Feature.CANCEL in caller.driver.features
        while not self.stopping.is_set():
            caller.request()
            if cancels:
                caller.cancel()
