"""
Poolscope comes and goes at any moment: `instrument()` and `uninstrument()` while other threads are in the midst of a
hook, and hooks while another thread is in the midst of those. The application notices nothing; the account is right.
"""

from __future__ import annotations

import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.base import Capability
from poolscope.adapters.registry import load
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from poolscope.frameworks.registry import load as load_frameworks
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import DEADLINE, Feature
from tests.contract.subject import error_name
from tests.contract.test_faults import Story, Told
from tests.support.moments import Elsewhere, Moments
from tests.support.scale import WHOLE, times
from tests.support.seeds import is_drawn
from tests.support.skips import require
from tests.support.telemetry import Telemetry
from tests.support.toggles import Toggles
from tests.support.trials import some_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.contract.drivers.base import Driver, Handle

#: Kinds of pool that each run tries.
ALWAYS = ("sqlalchemy-QueuePool-sqlite", "psycopg_pool-ConnectionPool")
#: Their connections are shared by threads, which SQLite does not survive.
SHARED_BY_THREADS = ("sqlalchemy-StaticPool-sqlite", "sqlalchemy-SingletonThreadPool-sqlite")
#: How many places of a kind of pool are tried in each way.
PLACES = times(1, whole=200)
#: How often poolscope starts or stops under a load.
TOGGLES = times(3, whole=200)
#: Seconds that a checkout waits for a connection that is not returned.
PATIENCE = 0.02
#: What has a part in starting and stopping that a pool can notice.
STARTING = ("session", "instrumentor", "hooks/", "adapters/", "core/pool", "core/lease", "core/guard")


class Toggled(Toggles):
    """
    A kind of pool, and poolscope beside it.

    Args:
        kind: Of pool.
        where: The database, where it needs one.
        folder: For its files.
        elsewhere: Another thread.
    """

    def __init__(self, kind: type[Driver], where: Postgres | None, folder: Path, elsewhere: Elsewhere) -> None:
        self.kind = kind
        self._where = where
        self._folder = folder
        self.elsewhere = elsewhere
        # The other adapters and the frameworks would only cost time, at each place anew.
        others = [one.name for one in load() if one.name != kind.adapter]
        frameworks = [one.name for one in load_frameworks()]
        super().__init__(Telemetry(disabled_adapters=others, disabled_frameworks=frameworks))

    def opened(self) -> Driver:
        """A new pool of two connections."""
        driver = self.kind()
        driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
        return driver

    def toggle(self) -> None:
        """Start or stop poolscope, whichever it is not."""
        super().toggle()
        self.within_bounds()

    def within_bounds(self) -> None:
        """No pool has more connections in use than it may have."""
        for registry in tuple(open_pool_registries):
            for pool in tuple(registry.pools.values()):
                if pool.limit is not None and pool.used() > pool.limit:
                    self.fails(f"{pool.used()} of {pool.limit} connections in use")

    def at_rest(self, driver: Driver) -> None:
        """What holds when nothing is checked out, with poolscope there."""
        if not self.is_on:
            self.telemetry.start()
        for _ in range(2):
            driver.release(driver.acquire())
        for pool in open_pool_registries[-1].pools.values():
            pool.settle()  # as once a second
            if pool.leases or pool.pending:
                self.fails(f"{len(pool.leases)} leases and {len(pool.pending)} checkouts are left")
        collected = self.telemetry.collect()
        if Capability.DRIFT in driver.capabilities and collected.value(semconv.DRIFT, driver.pool) not in (0, None):
            self.fails(f"drift of {collected.value(semconv.DRIFT, driver.pool)}")

    def ends(self) -> None:
        """Poolscope goes for good, and leaves nothing."""
        if self.is_on:
            self.telemetry.stop()
        self.leaves_nothing()

    def compare(self, told: list[Told], bare: list[Told]) -> None:
        """The application saw the same."""
        if told != bare:
            seen, expected = next((pair for pair in zip(told, bare, strict=False) if pair[0] != pair[1]), (told, bare))
            self.fails(f"the application saw {seen} in place of {expected}")


def _kinds() -> list[type[Driver]]:
    # In CI half of them, and always the two that most applications use.
    kinds = all_drivers()
    return [kind for kind in kinds if WHOLE or kind.label in ALWAYS or is_drawn(kind.label, 2)]


@pytest.fixture(params=_kinds(), ids=lambda kind: kind.label)
def toggled(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Toggled]:
    """Each kind of pool."""
    kind: type[Driver] = request.param
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    where = request.getfixturevalue("database") if kind.on_postgres else None
    elsewhere = Elsewhere()
    made = Toggled(kind, where, tmp_path, elsewhere)
    gc.collect()
    gc.freeze()  # each start looks for pools among all objects: those of other tests are set aside
    yield made
    gc.unfreeze()
    made.telemetry.shutdown()
    elsewhere.close()
    guard.reset()


def _story(toggled: Toggled, moments: Moments) -> list[Told]:
    driver = toggled.kind()
    story = Story(driver)
    with moments:
        story.step("open", lambda: driver.start(toggled._where, toggled._folder, size=2, timeout=PATIENCE))
        story.told.clear()
        story.run()
        toggled.elsewhere.settle()
    toggled.at_rest(driver)
    driver.stop()
    return story.told


@pytest.mark.reliability(
    fault="poolscope is stopped, or stopped and started again, at any line of any hook",
    application="the same values and exceptions",
    lost="the checkout that is under way at that moment",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["toggle", "restart"])
def test_at_any_line_of_a_hook(toggled: Toggled, how: str) -> None:
    """
    While a thread of the application is about to execute a line of a hook, poolscope is stopped in another thread, or
    stopped and started again.
    """
    bare = _bare(toggled)
    toggled.telemetry.start()
    recorded = Moments()
    toggled.compare(_story(toggled, recorded), bare)
    toggled.ends()
    happens: Callable[[], Any] = getattr(toggled, how)
    for place in some_of(list(recorded.places), PLACES, f"{toggled.kind.label} {how}"):
        with toggled.at(place):
            toggled.telemetry.start()
            moments = Moments({place: lambda: toggled.elsewhere.happens(happens)})
            toggled.compare(_story(toggled, moments), bare)
            toggled.ends()
    toggled.report()


def _bare(toggled: Toggled) -> list[Told]:
    driver = toggled.opened()
    story = Story(driver)
    story.run()
    driver.stop()
    return story.told


def _changes(toggled: Toggled, moments: Moments, *, starts: bool) -> None:
    if toggled.is_on is starts:
        toggled.toggle()
    driver = toggled.opened()
    held: list[Handle] = [driver.acquire()]

    def uses() -> None:
        driver.release(held.pop())
        held.append(driver.acquire())
        driver.query(held[0])

    for place in moments.pending:
        moments.pending[place] = lambda: toggled.elsewhere.happens(uses)
    with moments:
        toggled.toggle()
    toggled.elsewhere.settle()
    if not toggled.is_on:
        toggled.toggle()
    toggled.within_bounds()
    driver.query(held[0])
    driver.release(held.pop())
    toggled.at_rest(driver)
    driver.stop()
    toggled.ends()


@pytest.mark.reliability(
    fault="a pool is used at any line of a start or stop of poolscope",
    application="the same values and exceptions",
    lost="what is checked out at that moment, until it is returned",
)
@pytest.mark.timeout(600)
@pytest.mark.parametrize("starts", [True, False], ids=["start", "stop"])
def test_at_any_line_of_a_start_or_stop(toggled: Toggled, *, starts: bool) -> None:
    """
    While poolscope is about to execute a line of its start, or of its stop, another thread returns a connection, checks
    one out and uses it.
    """
    recorded = Moments(parts=STARTING)
    _changes(toggled, recorded, starts=starts)
    for place in some_of(list(recorded.places), PLACES, f"{toggled.kind.label} {starts}"):
        with toggled.at(place):
            _changes(toggled, Moments(dict.fromkeys([place], lambda: None), parts=STARTING), starts=starts)
    toggled.report()


class Load:
    """
    An application that goes on using a pool, in threads of its own.

    Args:
        driver: The pool, open.
        threads: How many.
    """

    def __init__(self, driver: Driver, threads: int) -> None:
        self._driver = driver
        self._over = threading.Event()
        self.done = [0] * threads
        self.errors: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> Load:  # noqa: PYI034 - no class derives from it
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in self._threads)

    def goes_on(self) -> None:
        """Wait until each thread has done something more."""
        before = list(self.done)
        wait_until(
            lambda: all(now > was for now, was in zip(self.done, before, strict=True)), DEADLINE, "the load to go on"
        )

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                self._once()
            except BaseException as error:
                self.errors.append(error)
            self.done[number] += 1

    def _once(self) -> None:
        driver = self._driver
        try:
            handle = driver.acquire()
        except BaseException as error:
            if error_name(error) not in (driver.refusal, driver.timeout_error):
                raise
            return
        driver.query(handle)
        driver.release(handle)


@pytest.mark.reliability(
    fault="instrument() and uninstrument() again and again while threads use every pool",
    application="the same values and exceptions",
    lost="checkouts that are under way at that moment",
)
@pytest.mark.timeout(600)
def test_under_load(toggled: Toggled) -> None:
    """Started and stopped again and again while threads use the pool: never too many in use, and right at rest."""
    driver = toggled.opened()
    alone = driver.stalls or not driver.threads or driver.label in SHARED_BY_THREADS
    threads = 1 if alone or Feature.MANY not in driver.features else 3
    with Load(driver, threads) as load:
        for number in range(TOGGLES):
            with toggled.at(f"toggle {number}"):
                toggled.toggle()
                load.goes_on()
                toggled.within_bounds()
    assert load.errors == []
    toggled.at_rest(driver)
    driver.stop()
    toggled.ends()
    toggled.report()
