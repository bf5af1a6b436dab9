"""A pool, units of work and the watchdog on a clock that stands still, with an application whose lines have names."""

from __future__ import annotations

import contextlib
import contextvars
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from poolscope.config import Settings
from poolscope.core.event_loops import EventLoops
from poolscope.core.lease import Outcome
from poolscope.core.making import Making
from poolscope.core.origin import Origins
from poolscope.core.pool_identity import Identity
from poolscope.core.pool_registry import PoolRegistry
from poolscope.core.work import CURRENT_UNIT, UnitOfWork
from poolscope.detectors.detector import Context
from poolscope.detectors.registry import detectors
from poolscope.detectors.watchdog import Watchdog
from tests.support.clocks import FakeClock
from tests.support.pools import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

BOUNDS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

_places: dict[str, Callable[[Callable[[], Any]], Any]] = {}


def line(name: str) -> Callable[[Callable[[], Any]], Any]:
    """
    A line of the application: a function in a file of that name, which calls what it is given.

    Args:
        name: Of the file and the function. The same name is the same line.
    """
    if name not in _places:
        made: dict[str, Any] = {}
        code = f"def {name}(hook):\n    return hook()\n"
        exec(compile(code, f"/application/{name}.py", "exec"), made)
        _places[name] = made[name]
    return _places[name]


class Sink:
    """Keeps findings."""

    def __init__(self) -> None:
        self.findings: list[Finding] = []

    def report(self, finding: Finding) -> None:
        self.findings.append(finding)


class Scene:
    """
    One pool and everything that looks at it.

    Args:
        limit: The most connections of the pool.
        system: The database.
        settings: Poolscope's.
    """

    def __init__(self, limit: int | None = 2, system: str = "postgresql", **settings: object) -> None:
        self.clock = FakeClock()
        self.settings = Settings.read(settings, {})
        self.sink = Sink()
        self.spans: list[Lease] = []
        origins = Origins(self.settings.stack_depth)
        self.event_loops = EventLoops(
            self.clock,
            bounds=BOUNDS,
            origins=origins,
            heartbeat=self.settings.event_loop_heartbeat,
            threshold=self.settings.blocked_event_loop_threshold,
            sleep=self.clock.advance,
        )
        made = detectors(Context(self.settings, self.clock, self.spans.append, self.event_loops, pools=self.pools))
        self.watchdog = Watchdog(made, self.sink, self.settings.finding_interval, self.clock)
        self.pool_registry = PoolRegistry(
            BOUNDS,
            count_bounds=(1.0, 10.0, 100.0),
            origins=origins,
            repetition_threshold=self.settings.n_plus_one_threshold,
            now=self.clock,
            listener=self.watchdog,
            long_hold=self.settings.long_hold_threshold,
            on_diagnose=self.watchdog.diagnose_unit,
            event_loops=self.event_loops,
        )
        self.pool_registry.findings = self.watchdog.counts
        self.pool_registry.units.on_end = self.watchdog.unit_ended
        #: Waits until the application's event loops have done what they can do.
        self.settle: Callable[[], None] = lambda: None
        self.source = Source(limit)
        self.source.uses = lambda: self.pool.leases | self.pool.pending
        self.pool = self.pool_registry.register(Identity("shop", system, "shop", "db", 5432), self.source)

    def pools(self) -> Iterable[Pool]:
        """Every pool."""
        return tuple(self.pool_registry.pools.values())

    # What an application does ------------------------------------------------------------

    @contextlib.contextmanager
    def unit(self, name: str = "GET /orders", kind: str = "http") -> Iterator[UnitOfWork]:
        """A unit of work around the block."""
        unit = self.pool_registry.units.begin(kind, name)
        token = CURRENT_UNIT.set(unit)
        try:
            yield unit
        finally:
            CURRENT_UNIT.reset(token)
            self.pool_registry.units.end(unit)

    def begin_unit(self, name: str, kind: str = "http") -> UnitOfWork:
        """A unit of work begins in the running thread or task, and is its current one."""
        unit = self.pool_registry.units.begin(kind, name)
        CURRENT_UNIT.set(unit)
        return unit

    def begin_checkout(self, at: str = "view") -> Lease:
        """Ask, and wait."""

        def hook() -> Lease:
            return self.pool.checkout()

        return line(at)(hook)  # type: ignore[no-any-return]

    def checkout(self, at: str = "view") -> Lease:
        """Ask and have."""
        lease = self.begin_checkout(at)
        lease.acquired()
        return lease

    def at_once(self, count: int) -> list[Lease]:
        """As many parts of the current unit of work, each in a thread of its own, check out and run a statement."""
        leases = []
        for _ in range(count):
            with ThreadPoolExecutor(1) as thread:
                leases.append(thread.submit(contextvars.copy_context().run, self.checkout, "resolver").result(60))
            leases[-1].statement_begins("select 1 from t")
        return leases

    def make_pool(self, at: str = "factory", *, login: int = 0, identity: Identity | None = None) -> Source:
        """Make a pool of the scene's server that has one idle connection, within the current unit of work."""
        source = Source(5, idle=1)

        def hook() -> None:
            made = Making.now(self.pool_registry, sys._getframe(1), identity or self.pool.identity, login, source)
            self.watchdog.made(made)

        line(at)(hook)
        return source

    def query(
        self, lease: Lease, statement: str = "select 1 from t", at: str = "view", seconds: float = 0.0, **kind: Any
    ) -> None:
        """Run a statement; a transaction is open afterwards."""

        def hook() -> None:
            lease.statement_begins(statement, **kind)

        line(at)(hook)
        self.clock.advance(seconds)
        lease.call_ends(in_transaction=True)

    def request(self, name: str = "GET /orders", *, query: float = 0.0, idle: float = 0.0, at: str = "view") -> None:
        """A whole request: one connection, one query, and something else within the transaction."""
        with self.unit(name):
            lease = self.checkout(at)
            self.query(lease, at=at, seconds=query)
            self.clock.advance(idle)
            lease.released()

    def timeout(self, at: str = "other", waited: float = 1.0, name: str | None = "GET /users") -> Lease:
        """Ask, wait and give up."""
        with self.unit(name) if name is not None else contextlib.nullcontext():
            lease = self.begin_checkout(at)
            self.clock.advance(waited)
            lease.failed(Outcome.TIMEOUT, "TimeoutError")
        return lease

    # What poolscope does -----------------------------------------------------------------

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with the watchdog at work every second."""
        self.tick()
        while seconds > 0:
            self.clock.advance(min(1.0, seconds))
            seconds -= 1.0
            self.tick()

    def tick(self) -> None:
        """One turn of the background thread."""
        self.event_loops.tick(self.pool_registry.pools.values())
        self.settle()
        self.watchdog.tick(self.pool_registry.pools.values())

    def found(self, identity: str | None = None) -> list[Finding]:
        """The findings so far, of that id or of all."""
        self.tick()
        return [finding for finding in self.sink.findings if identity is None or finding.id == identity]

    def ids(self) -> list[str]:
        """The ids of all findings so far, in order."""
        return [finding.id for finding in self.found()]
