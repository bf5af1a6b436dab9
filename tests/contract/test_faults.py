"""
An error of ours never reaches the application, wherever in poolscope it is raised; it leaves nothing behind, and what
it says stays in the process.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from poolscope.adapters.registry import load
from poolscope.core.guard import guard
from poolscope.core.lease import Lease
from poolscope.core.pool import Pool
from poolscope.core.pool_registry import open_pool_registries
from poolscope.frameworks.registry import load as load_frameworks
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import Driver, Feature, Handle, PendingCheckout
from tests.contract.stand_ins import STAND_INS
from tests.support.scale import times
from tests.support.secrets import SECRET, Heard, SecretiveError, exported
from tests.support.seeds import is_drawn
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.postgres import Postgres

ROOT = Path(__file__).resolve().parents[2]
#: Methods of an adapter that are no part of a hook: the registry calls them, and guards them.
OUTSIDE = {"hook", "release"}
#: What every checkout passes: a law that does not reach it proves nothing.
ALWAYS = {"Pool.checkout", "Lease.acquired", "Lease.released"}
#: One in so many places fails in a run.
ONE_IN = times(4, whole=1)
#: Seconds that a checkout waits for a connection that is not returned.
PATIENCE = 0.02


class OursError(SecretiveError):
    """An error in poolscope."""


class ReachedError(Exception):
    """It reached the application."""


class Place:
    """
    One method of ours, which raises while it is armed.

    Args:
        owner: The class.
        name: The method.
    """

    def __init__(self, owner: type, name: str) -> None:
        self.owner, self.name = owner, name
        self.label = f"{owner.__name__}.{name}"
        self.armed = False
        self.strikes = 0
        self._original = vars(owner)[name]

    def method(self) -> Callable[..., Any]:
        """What stands in its place."""

        @functools.wraps(self._original)
        def call(*args: Any, **kwargs: Any) -> Any:
            if self.armed:
                self.strikes += 1
                raise OursError(self.label)
            return self._original(*args, **kwargs)

        return call


class Told(NamedTuple):
    """
    What the application saw of a step.

    Args:
        step: What it did.
        outcome: A value, or the name of what was raised.
    """

    step: str
    outcome: object


class Story:
    """
    What an application does with a pool, and what it sees.

    Args:
        driver: The pool, open.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.told: list[Told] = []

    def run(self) -> None:
        """Check out, query and return; beyond the limit; and whatever else this pool can do."""
        driver = self.driver
        with self._held() as handle:
            self._step("query", driver.query, handle)
            if Feature.MANY in driver.features:
                with self._held():
                    self._ask_for_more()
        for feature, step in (
            (Feature.INVALIDATE, driver.invalidate),
            (Feature.SOFT_INVALIDATE, functools.partial(driver.invalidate, soft=True)),
            (Feature.DETACH, driver.detach),
        ):
            if feature in driver.features:
                with self._held(leave=feature is not Feature.SOFT_INVALIDATE) as handle:
                    self._step(str(feature), step, handle)
                if feature is Feature.DETACH:
                    self._step("close the detached one", driver.close_detached, handle)
        if Feature.DISPOSE in driver.features:
            self._step("dispose", driver.dispose)
        with self._held() as handle:
            self._step("query again", driver.query, handle)
        if Feature.ABANDON in driver.features:
            with self._held(leave=True) as handle:
                self._step("abandon", driver.abandon, handle)

    def step(self, name: str, function: Callable[..., object], *args: object) -> Any:
        """
        Do something, and write down what came of it.

        Raises:
            ReachedError: An error of ours came of it.
        """
        return self._step(name, function, *args)

    @contextlib.contextmanager
    def _held(self, *, leave: bool = False) -> Iterator[Handle]:
        handle = self._step("check out", self.driver.acquire)
        yield handle
        if not leave:
            self._step("return", self.driver.release, handle)

    def _ask_for_more(self) -> None:
        features = self.driver.features
        if Feature.SHARED in features or not self.driver.limit:
            return
        if Feature.LIMIT in features or Feature.REJECTS in features:
            self._step("check out beyond the limit", self.driver.acquire)
        elif Feature.CANCEL in features:
            self._step("cancel a wait", self._cancel, self.driver.begin())

    @staticmethod
    def _cancel(checkout: PendingCheckout) -> None:
        checkout.cancel()
        checkout.wait()

    def _step(self, name: str, function: Callable[..., object], *args: object) -> Any:
        try:
            result = function(*args)
        except OursError as error:
            raise ReachedError(name) from error
        except BaseException as error:
            self.told.append(Told(name, type(error).__name__))
            return None
        self.told.append(Told(name, "a connection" if isinstance(result, Handle) else result))
        return result


class Trial:
    """
    One kind of pool, with every place of ours ready to fail.

    Args:
        kind: Of the pool.
        where: The database, where it needs one.
        folder: For its files.
        places: The places.
    """

    def __init__(self, kind: type[Driver], where: Postgres | None, folder: Path, places: list[Place]) -> None:
        self._kind = kind
        self.adapter = kind.adapter
        self._where = where
        self._folder = folder
        self.places = places
        self.failures: list[str] = []
        self.logged = 0

    def driver(self) -> Driver:
        """A new pool of two connections."""
        driver = self._kind()
        driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
        return driver

    def without(self) -> list[Told]:
        """What the application sees when poolscope is not there."""
        story = Story(driver := self.driver())
        story.run()
        story.step("close", driver.stop)
        return story.told

    def fails(self, place: Place, before: list[Told], telemetry: Telemetry, *, first: bool = False) -> None:
        """
        Let a place fail from the beginning, or once the pool exists, and see what comes of it.

        Args:
            place: The place.
            before: What the application sees without poolscope.
            telemetry: Poolscope; on, unless the pool comes first.
            first: Whether the pool exists, with a connection that a caller holds, before poolscope comes.
        """
        guard.reset()  # the first error of each site is logged
        OursError.formatted.clear()
        place.strikes = 0
        with Heard() as heard:
            self._fails_at(place, before, telemetry, first=first)
            told = exported(telemetry)
        if SECRET in heard.text or SECRET in told:
            self._fails(place, f"told a secret: {heard.text}")
        if OursError.formatted:
            self._fails(place, "was formatted")
        self.logged += heard.text.count("OursError at ")

    def _fails_at(self, place: Place, before: list[Told], telemetry: Telemetry, *, first: bool) -> None:
        driver = self._kind()
        story = Story(driver)
        try:
            if first:
                driver.start(self._where, self._folder, size=2, timeout=PATIENCE)
                held = driver.acquire()
                place.armed = True
                telemetry.start()
                story.step("return what was held before", driver.release, held)
                del held  # it may be what is dropped later on
                story.told.clear()
            else:
                place.armed = True
                story.step("open", functools.partial(driver.start, size=2, timeout=PATIENCE), self._where, self._folder)
                story.told.clear()
            story.run()
            story.step("close", driver.stop)
        except ReachedError as reached:
            place.armed = False
            self._fails(place, f"reached the application, which wanted to {reached}")
            with contextlib.suppress(Exception):
                driver.stop()
            return
        finally:
            place.armed = False
        if story.told != before:
            (seen, expected) = next(pair for pair in zip(story.told, before, strict=False) if pair[0] != pair[1])
            self._fails(place, f"the application saw {seen} in place of {expected}")
        if place.strikes and not guard.counts():
            self._fails(place, "was not counted")
        self._leaves_nothing(place)

    def _leaves_nothing(self, place: Place) -> None:
        for pool in open_pool_registries[-1].pools.values():
            for leases, what in ((pool.leases, "held"), (pool.pending, "waiting")):
                if leases:
                    self._fails(place, f"left {len(leases)} leases {what}")
                    leases.clear()

    def _fails(self, place: Place, text: str) -> None:
        self.failures.append(f"{place.label} {text}")


def _places(adapter: str) -> list[Place]:
    # Each method where it is defined: an adapter is still seen to say something of its own, or not.
    (ours,) = [one for one in load() if one.name == adapter]
    owners = [Lease, Pool, *(kind for kind in type(ours).__mro__ if kind.__module__.startswith("poolscope.adapters."))]
    return [
        Place(owner, name)
        for owner in owners
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in OUTSIDE
    ]


KINDS: list[type[Driver]] = [*all_drivers(), *STAND_INS]


def _drawn(places: list[Place], label: str) -> list[Place]:
    return [place for place in places if place.label in ALWAYS or is_drawn(f"{label} {place.label}", ONE_IN)]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.label)
def trial(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A trial of each kind of pool."""
    kind: type[Driver] = request.param
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    where = request.getfixturevalue("database") if kind.on_postgres else None
    places = _drawn(_places(kind.adapter), kind.label)
    # Each time poolscope comes it looks for pools among all objects: those of other tests are set aside.
    gc.collect()
    gc.freeze()
    yield Trial(kind, where, tmp_path, places)
    gc.unfreeze()
    guard.reset()


def _alone(adapter: str) -> Telemetry:
    # The other adapters and the frameworks would only cost time, for each place anew.
    others = [one.name for one in load() if one.name != adapter]
    return Telemetry(disabled_adapters=others, disabled_frameworks=[one.name for one in load_frameworks()])


def _let_fail(places: list[Place], monkeypatch: pytest.MonkeyPatch) -> None:
    for place in places:
        monkeypatch.setattr(place.owner, place.name, place.method())


@pytest.mark.reliability(
    fault="a method of poolscope raises whenever it is called",
    application="the same values and exceptions",
    lost="what that method is for; the error is counted and logged once",
)
@pytest.mark.timeout(300)
def test_an_error_of_ours_never_reaches_the_application(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """
    Whichever method of ours raises whenever it is called, from the making of the pool to its end: the application gets
    the values and exceptions that it gets without poolscope. Afterwards no lease is left, and the error was counted.
    """
    before = trial.without()
    _let_fail(trial.places, monkeypatch)
    telemetry = _alone(trial.adapter)
    telemetry.start()
    try:
        for place in trial.places:
            trial.fails(place, before, telemetry)
    finally:
        telemetry.shutdown()
    assert trial.failures == []
    reached = {place.label for place in trial.places if place.strikes}
    assert reached >= ALWAYS
    assert trial.logged >= len(ALWAYS)


@pytest.mark.reliability(
    fault="a method of poolscope raises while poolscope starts beside a pool in use",
    application="the same values and exceptions",
    lost="what that method is for; the error is counted and logged once",
)
@pytest.mark.timeout(300)
def test_nor_does_one_while_poolscope_comes(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the pool exists already, and a caller holds a connection of it, when poolscope comes and fails."""
    before = trial.without()
    _let_fail(trial.places, monkeypatch)
    for place in trial.places:
        telemetry = _alone(trial.adapter)
        try:
            trial.fails(place, before, telemetry, first=True)
        finally:
            telemetry.shutdown()
    assert trial.failures == []
