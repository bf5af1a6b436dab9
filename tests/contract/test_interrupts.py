"""An interrupt anywhere in a hook of ours: it reaches the application, no connection is lost, the account is right."""

from __future__ import annotations

import contextlib
import gc
import inspect
import logging
import os
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.registry import load
from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work import CURRENT_UNIT
from poolscope.frameworks.registry import load as load_frameworks
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import Driver, Feature, Handle, LoopThread
from tests.contract.stand_ins import STAND_INS
from tests.support.scale import times
from tests.support.seeds import is_drawn
from tests.support.skips import require
from tests.support.striking import ASYNC_INTERRUPTS, INTERRUPTS, ExitError, Place, Spot, Striker, unreachable
from tests.support.telemetry import Telemetry
from tests.support.trials import Interrupts, deeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres

#: One in so many places is interrupted in a run.
ONE_IN = int(os.environ.get("ONE_IN", times(1500, whole=1)))
#: How often a run may come to one line until that is no other place any more.
OFTEN = 3
#: The places that are meant, by the beginning of their module's path.
ONLY = os.environ.get("ONLY", "")
#: Seconds that a checkout waits for a connection that is not returned.
PATIENCE = 0.02
#: Seconds after which a checkout will not be served any more.
GIVEN_UP = 5.0
#: Whether the application runs, or what it awaits: a task that it starts has it from there. A worker that a library
#: starts with a pool has not. Without that worker the library serves no request any more, with poolscope or not.
IN_APPLICATION: ContextVar[bool] = ContextVar("in_application", default=False)


class Application:
    """
    What an application does with a pool; an interrupt ends it.

    Args:
        driver: The pool, open.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.hands: list[Handle] = []
        self.told: list[str] = []
        self.interrupted = ""

    def run(self) -> None:
        """Check out, query and return; beyond the limit; and whatever else this pool can do."""
        with contextlib.suppress(_Interrupted):
            self._run()

    def _run(self) -> None:
        driver = self.driver
        handle = self._check_out()
        self._step("query", driver.query, handle)
        if Feature.MANY in driver.features:
            other = self._check_out()
            if Feature.SHARED not in driver.features and driver.limit and _ends(driver):
                self._step("check out beyond the limit", driver.acquire)
            self._give("return", driver.release, other)
        self._give("return", driver.release, handle)
        for feature, step in (
            (Feature.INVALIDATE, driver.invalidate),
            (Feature.DETACH, driver.detach),
        ):
            if feature in driver.features:
                handle = self._check_out()
                self._give(str(feature), step, handle)
                if feature is Feature.DETACH:
                    self._give("close the detached one", driver.close_detached, handle)
        if Feature.DISPOSE in driver.features:
            self._step("dispose", driver.dispose)
        handle = self._check_out()
        self._step("query again", driver.query, handle)
        self._give("return", driver.release, handle)
        if Feature.ABANDON in driver.features:
            handle = self._check_out()
            self._give("abandon", driver.abandon, handle)

    def clean_up(self) -> None:
        """Return what is in hand still, as a ``finally`` does."""
        while self.hands:
            handle = self.hands.pop()
            try:
                self.driver.release(handle)
            except Exception as error:
                self.told.append(f"clean up: {type(error).__name__} {error}")

    def _check_out(self) -> Handle:
        handle: Handle = self._step("check out", self.driver.acquire)
        if handle is not None:
            self.hands.append(handle)
        return handle

    def _give(self, name: str, function: Callable[..., object], handle: Handle) -> None:
        if handle in self.hands:
            self.hands.remove(handle)  # whatever becomes of the call, an application does not give it twice
        try:
            self._step(name, function, handle)
        except _Interrupted:
            handle.connection = None
            raise

    def _step(self, name: str, function: Callable[..., object], *args: object) -> Any:
        try:
            return function(*args)
        except INTERRUPTS:
            self.interrupted = name
            raise _Interrupted from None
        except BaseException as error:
            self.told.append(f"{name}: {type(error).__name__}")
            return None


class _Interrupted(Exception):  # noqa: N818
    """The application goes no further."""


def _ends(driver: Driver) -> bool:
    return Feature.LIMIT in driver.features or Feature.REJECTS in driver.features


def _loop_of(driver: Driver) -> LoopThread | None:
    found = [value for value in vars(driver).values() if isinstance(value, LoopThread)]
    return found[0] if found else None


class Outcome(NamedTuple):
    """
    What an interrupt did to a run.

    Args:
        lost: Whether a connection of the pool cannot be checked out any more, and why.
        step: What the application was at when the interrupt reached it; empty where it never did.
    """

    lost: str
    step: str


class Trial(Interrupts):
    """
    One kind of pool.

    Args:
        kind: Of the pool.
        where: The database, where it needs one.
        folder: For its files.
        telemetry: Poolscope; on.
    """

    def __init__(self, kind: type[Driver], where: Postgres | None, folder: Path, telemetry: Telemetry) -> None:
        super().__init__()
        self._kind = kind
        self._where = where
        self._folder = folder
        self._telemetry = telemetry
        self.striker = Striker(IN_APPLICATION.get)
        #: What the same interrupts do without poolscope: many lines of ours are called from one of a library's.
        self._known_bare: dict[tuple[Spot | None, type[BaseException]], list[Outcome]] = {}
        self._unraisable = False

    def _driver(self) -> Driver:
        driver = self._kind()
        driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
        return driver

    def places(self) -> list[Place]:
        """All places that the story passes, each line up to its third time."""
        self.striker.target = None
        for _ in range(3):  # at first, what is cached is not
            driver = self._driver()
            # An event loop's own end by ``KeyboardInterrupt`` would end the test's.
            self.errors = INTERRUPTS if _loop_of(driver) is None else ASYNC_INTERRUPTS
            self._follow(driver, Application(driver))
            driver.stop()
        return [
            one
            for one in self.striker.seen
            if one.nth <= OFTEN and one.line not in unreachable(one.file) and one.file.startswith(ONLY)
        ]

    def interrupt(self, place: Place, error: type[BaseException]) -> None:
        """Interrupt a run at a place, and see what comes of it."""
        self.striker.target, self.striker.spot, self.striker.error = place, None, error
        errors_of_ours = sum(guard.counts().values())
        outcome = self._outcome(f"{place} {error.__name__}", watched=True)
        if outcome is None:
            return
        self.counts["tried"] += 1
        at = f"{place} {error.__name__}, {outcome.step or 'swallowed'}"
        if sum(guard.counts().values()) != errors_of_ours and not self.striker.was_collecting:
            self.fails("counted as an error of ours", at)
        swallowed = not outcome.step and not self.striker.was_collecting and not self._unraisable
        if not outcome.lost and not swallowed:
            return
        was_at_entry = self.striker.was_at_entry
        bare = self._bare(self.striker.caller, place, outcome.step)
        if outcome.lost and not outcome.step.startswith("query"):  # then the application has it, and returns it
            as_bare = was_at_entry or any(one.lost for one in bare)
            self.counts["lost"] += 1
            self.counts["lost bare"] += as_bare
            if not as_bare:
                self.fails("lost", f"{at} {outcome.lost}")
        if swallowed and all(one.step for one in bare):
            self.fails("swallowed", at)

    def places_of_making(self) -> list[Place]:
        """All places that the making of a pool passes."""
        self.errors = INTERRUPTS
        self.striker.target = None
        for _ in range(2):
            driver = self._kind()
            with _in_application():
                self.striker.begin()
                driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
                self.striker.end()
            driver.stop()
        return [one for one in self.striker.seen if one.nth <= OFTEN and one.line not in unreachable(one.file)]

    def interrupt_making(self, place: Place, error: type[BaseException]) -> None:
        """Interrupt the making of a pool at a place, and see whether the next one is all right."""
        self.striker.target, self.striker.spot, self.striker.error = place, None, error
        at = f"{place} {error.__name__}"
        errors_of_ours = sum(guard.counts().values())
        driver, has_reached = self._kind(), False
        before, sys.unraisablehook = sys.unraisablehook, self._ignore
        try:
            with _in_application():
                self.striker.begin()
                driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
        except INTERRUPTS:
            has_reached = True
        finally:
            self.striker.end()
            sys.unraisablehook = before
        self.counts["tried"] += self.striker.struck
        if not self.striker.was_collecting and self.striker.struck:
            if sum(guard.counts().values()) != errors_of_ours:
                self.fails("counted as an error of ours", at)
            if not has_reached:
                self.fails("swallowed", at)
        with contextlib.suppress(Exception):  # it may not be there
            driver.close()
        driver = self._driver()
        self.striker.target = None
        application = Application(driver)
        self._follow(driver, application)
        application.clean_up()
        self._check_account(at)
        if lost := self._lost(driver, at, watched=True):
            self.fails("lost", f"{at} {lost}")
        driver.stop()

    def _outcome(self, at: str, *, watched: bool, looks: bool = True) -> Outcome | None:
        driver = self._driver()
        application = Application(driver)
        self._unraisable = False
        before, sys.unraisablehook = sys.unraisablehook, self._ignore
        try:
            self._follow(driver, application)
        finally:
            sys.unraisablehook = before
        self.striker.raised = None  # its frames keep connections
        if not self.striker.struck:  # what is remembered from other runs took another way
            application.clean_up()
            driver.stop()
            return None
        if watched:
            self._check("a call runs that has ended", at, [one for one in self._leases() if one.running])
        application.clean_up()
        gc.collect()
        if watched:
            self._check_account(at)
        lost = self._lost(driver, at, watched=watched) if looks else ""
        with contextlib.suppress(Exception, ExitError):  # also what a worker of the library's has ended with
            driver.stop()
        return Outcome(lost, application.interrupted)

    def _bare(self, caller: Spot | None, place: Place, step: str) -> list[Outcome]:
        # The same interrupt without poolscope, where the library called what was hooked: before that, and once it is
        # done. A checkout and a return that the application itself calls lose nothing by our hook at all.
        if (
            caller is None
            or self.striker.was_collecting
            or ("tests" in Path(caller.file).parts and step in ("check out", "return"))
        ):
            return []
        self.striker.spot = caller
        self._outcome("again", watched=False, looks=False)  # how often it had been there by then
        caller = self.striker.caller
        self.striker.target = None
        known = caller, self.striker.error
        if known in self._known_bare:
            self.striker.spot = None
            return self._known_bare[known]
        self._telemetry.stop()
        try:
            outcomes = []
            for once_done in (False, True):
                self.striker.spot, self.striker.once_done = caller, once_done
                outcomes.append(self._outcome("bare", watched=False))
            self._known_bare[known] = [one for one in outcomes if one is not None]
            return self._known_bare[known]
        finally:
            self.striker.spot, self.striker.once_done = None, False
            self._telemetry.start()

    def run_deep(self, room: int) -> Outcome:
        """
        A run whose calls are near Python's limit of recursion.

        Args:
            room: The frames that are left.
        """
        driver = self._driver()
        application = Application(driver)
        watched = bool(open_pool_registries)
        depth = len(inspect.stack(0))
        try:
            deeper(sys.getrecursionlimit() - depth - room, application.run)
        except RecursionError:
            application.told.append("story: RecursionError")
        application.clean_up()
        gc.collect()
        if watched:
            self._check_account(f"{room} frames left")
        lost = self._lost(driver, f"{room} frames left", watched=watched)
        with contextlib.suppress(Exception):
            driver.stop()
        return Outcome(lost, "; ".join(application.told))

    def run_deep_bare(self, room: int) -> Outcome:
        """The same without poolscope."""
        self._telemetry.stop()
        try:
            return self.run_deep(room)
        finally:
            self._telemetry.start()

    def _ignore(self, unraisable: object) -> None:
        self._unraisable = True

    def _pools(self) -> list[Any]:
        return list(open_pool_registries[-1].pools.values())

    def _leases(self) -> list[Any]:
        return [one for pool in self._pools() for one in pool.leases]

    def _check_account(self, at: str) -> None:
        for seconds in range(3):  # as the background thread does, once a second
            for pool in self._pools():
                open_pool_registries[-1]._accounts.look(pool, float(seconds))
        for pool in self._pools():
            in_use = [source.in_use() for source in pool.live_sources()]
            # Else the library counts what it has lost, or was never told that it is returned.
            if not self.striker.was_at_entry and (None in in_use or sum(in_use) != len(pool.leases)):
                self._check("a lease is left", at, pool.leases)
            self._check("a checkout is pending for ever", at, pool.pending)
        if PENDING_CHECKOUT.get() is not None or running_thread().checkout is not None:
            self.fails("a context is left", at)
            PENDING_CHECKOUT.set(None)
            running_thread().checkout = None

    def _check(self, what: str, at: str, leases: Any) -> None:
        if leases:
            self.fails(what, at)
            leases.clear()

    def _lost(self, driver: Driver, at: str, *, watched: bool) -> str:
        features = driver.features
        if Feature.SHARED in features or not driver.limit or Feature.MANY not in features or not _ends(driver):
            return ""
        handles: list[Handle] = []
        lost = ""
        try:
            while len(handles) < driver.limit:
                handles.append(driver.acquire())
        except Exception as error:
            lost = type(error).__name__
        if watched and not lost and sum(pool.used() for pool in self._pools()) != len(handles):
            self.fails("a wrong number in use", f"{at} {[pool.used() for pool in self._pools()]}")
        for handle in handles:
            driver.release(handle)
        for pool in self._pools() if watched else ():
            in_use = [source.in_use() for source in pool.live_sources()]
            if len(pool.leases) != sum(one or 0 for one in in_use) and not lost:
                self.fails("drift at rest", f"{at} {len(pool.leases)} {in_use}")
                pool.leases.clear()
        return lost

    def _follow(self, driver: Driver, application: Application) -> None:
        # In a unit of work, as a request is one.
        loop = _loop_of(driver)
        units = open_pool_registries[-1].units if open_pool_registries else None
        unit = units.begin("http", "GET /") if units is not None else None
        token = CURRENT_UNIT.set(unit)
        try:
            with _in_application():
                if loop is None:
                    self.striker.begin(elsewhere=driver.holds_in_threads)
                    try:
                        application.run()
                    finally:
                        self.striker.end()
                else:
                    loop.run(_call(self.striker.begin))
                    application.run()
                    loop.run(_call(self.striker.end))
        finally:
            CURRENT_UNIT.reset(token)
            if units is not None:
                units.end(unit)


@contextlib.contextmanager
def _in_application() -> Iterator[None]:
    token = IN_APPLICATION.set(True)
    try:
        yield
    finally:
        IN_APPLICATION.reset(token)


async def _call(function: Callable[[], None]) -> None:
    function()


def _label(kind: type[Driver]) -> str:
    return kind.label


#: Kinds of pools whose calls are tried near the limit of recursion, in the thread of the test.
DEEP_LABELS = ("sqlalchemy-QueuePool-sqlite", "peewee-PooledSqliteDatabase", "dbutils-PooledDB-blocking")
#: Kinds of pools that are made in the thread of the test, without an event loop.
MADE_LABELS = (
    *(*DEEP_LABELS, "psycopg2-ThreadedConnectionPool", "psycopg_pool-ConnectionPool"),
    "mysql-connector-MySQLConnectionPool",
)
MAKINGS_ONE_IN = int(os.environ.get("ONE_IN", times(120, whole=1)))
#: The most frames that are left, where everything works.
DEEPEST = 200
ROOMS_ONE_IN = int(os.environ.get("ONE_IN", times(40, whole=1)))

KINDS: list[type[Driver]] = [*all_drivers(), *STAND_INS]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.label)
def trial(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A trial of each kind of pool."""
    kind: type[Driver] = request.param
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    where = request.getfixturevalue("database") if kind.on_postgres else None
    # What pytest keeps of the log has the frames that an error came through, and with them connections.
    for name in ("poolscope", "poolscope.findings"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    for module in {sys.modules[one.__module__] for one in (*kind.__mro__, Driver)}:
        if hasattr(module, "DEADLINE"):
            monkeypatch.setattr(module, "DEADLINE", GIVEN_UP)
    others = [one.name for one in load() if one.name != kind.adapter]
    telemetry = Telemetry(
        disabled_adapters=others, disabled_frameworks=[one.name for one in load_frameworks()], max_pools=100_000
    )
    trial = Trial(kind, where, tmp_path, telemetry)
    gc.collect()
    gc.freeze()
    # What interrupts leave half-done, such as a coroutine, complains when it is collected.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    telemetry.start()
    with trial.striker.installed():
        yield trial
    telemetry.shutdown()
    gc.unfreeze()
    gc.collect()
    guard.reset()


@pytest.mark.reliability(
    fault="an interrupt (Ctrl-C, a time limit's signal) at any line of poolscope's inside a call into a pool library",
    application="the interrupt, and no connection lost that is not lost without poolscope too",
    lost="the figures of that checkout or call; the account of the pool is right again within three seconds",
)
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_loses_nothing(trial: Trial, request: pytest.FixtureRequest) -> None:
    """
    Whichever line of a hook an interrupt comes at: it reaches the application, every connection can be checked out
    afterwards unless the library itself loses it at that moment, no lease and no pending checkout is left, and at rest
    our account is the library's.
    """
    trial.interrupt_some(trial.places(), trial.interrupt, name=request.node.name, one_in=ONE_IN)


@pytest.mark.reliability(
    fault="the limit of recursion is reached in or near poolscope's code",
    application="``RecursionError``, some frames earlier; no connection is lost that is not lost without poolscope too",
    lost="the figures of that checkout or call",
)
@pytest.mark.parametrize("trial", [kind for kind in KINDS if kind.label in DEEP_LABELS], ids=_label, indirect=True)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_stack_loses_nothing(trial: Trial, request: pytest.FixtureRequest) -> None:
    """However few frames are left: as without poolscope, but for how many it takes."""
    rooms = [room for room in range(4, DEEPEST) if is_drawn(f"{request.node.name} {room}", ROOMS_ONE_IN)]
    outcomes = {room: (trial.run_deep(room), trial.run_deep_bare(room)) for room in rooms}
    assert trial.run_deep(DEEPEST).step == trial.run_deep_bare(DEEPEST).step
    lost = {room: ours.lost for room, (ours, _) in outcomes.items() if ours.lost}
    bare = {room: theirs.lost for room, (_, theirs) in outcomes.items() if theirs.lost}
    trial.report(f"{request.node.name}: {len(rooms)} numbers of frames, lost {lost} bare {bare}")
    for room in lost:  # ours takes some frames: without it, it may be lost where fewer are left
        assert any(trial.run_deep_bare(less).lost for less in range(4, room + 1)), lost


@pytest.mark.reliability(
    fault="an interrupt at any line of poolscope's while a pool is made or opened",
    application="the interrupt; the next pool works",
    lost="nothing of the next pool",
)
@pytest.mark.parametrize("trial", [kind for kind in KINDS if kind.label in MADE_LABELS], ids=_label, indirect=True)
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupted_making_leaves_nothing(trial: Trial, request: pytest.FixtureRequest) -> None:
    """It reaches the application, and of the pool that is made next every figure is right."""
    trial.interrupt_some(
        trial.places_of_making(), trial.interrupt_making, name=request.node.name, one_in=MAKINGS_ONE_IN
    )
