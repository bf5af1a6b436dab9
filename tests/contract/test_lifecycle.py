"""Instrumenting before and after, taking everything back, and doing it again; on every kind of pool."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.base import Capability
from poolscope.core.guard import guard
from poolscope.hooks.patching import active_patches
from tests.contract.drivers.base import DEADLINE, Feature
from tests.contract.subject import Subject, error_name
from tests.support.marks import marks
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.drivers.base import Driver


@pytest.fixture
def later() -> Iterator[Telemetry]:
    """A telemetry that the test turns on."""
    made = Telemetry()
    yield made
    made.shutdown()


def test_a_pool_from_before_is_watched(later: Telemetry, opened: Callable[..., Driver]) -> None:
    """A pool that was made and used before poolscope came is exact from then on."""
    driver = opened()
    driver.release(driver.acquire())
    later.start()
    subject = Subject(driver, later)
    handle = subject.acquire()
    subject.check()
    subject.release(handle)
    subject.check_at_rest()


def test_a_connection_that_was_out_before(later: Telemetry, opened: Callable[..., Driver], driver: Driver) -> None:
    """It is in use until it comes back; how long it was held is not known, and it is no point of use."""
    require(driver.tells_what_is_out, f"{driver.adapter} keeps no account of checkouts", "none: it is in the docs")
    opened(timeout=DEADLINE)
    handle = driver.acquire()
    later.start()
    if Feature.MANY in driver.features:
        other = driver.acquire()
        expected = 1 if Feature.SHARED in driver.features else 2
        assert later.collect().used(driver.pool) == expected
        driver.release(other)
    driver.release(handle)
    driver.release(driver.acquire())
    collected = later.collect()
    assert collected.used(driver.pool) == 0
    if Capability.DRIFT in driver.capabilities:
        assert collected.value(semconv.DRIFT, driver.pool) in (0, None)
    asked = 2 if Feature.MANY in driver.features else 1
    assert collected.counts(semconv.USE_TIME, driver.pool) == {"": asked}


def test_uninstrumenting_with_connections_out(subject: Subject) -> None:
    """What was checked out comes back as if we had never been there, and the pool works on."""
    driver = subject.driver
    handle = driver.acquire()
    subject.telemetry.stop()
    assert active_patches() == ()
    assert driver.query(handle) == (1,)
    driver.release(handle)
    driver.release(driver.acquire())
    assert guard.counts() == {}


def test_nothing_of_ours_stays_behind(subject: Subject) -> None:
    """No patch, no thread, no mark on any object of the library, also on those that were checked out."""
    driver = subject.driver
    driver.query(handle := driver.acquire())
    assert marks() != []
    subject.telemetry.stop()
    assert active_patches() == ()
    assert [thread.name for thread in threading.enumerate() if thread.name == "poolscope"] == []
    assert marks() == []
    driver.release(handle)
    assert marks() == []


def test_it_can_be_done_again(subject: Subject) -> None:
    """Instrumented again on the same provider, the same pool is exact again; sums start anew."""
    driver, telemetry = subject.driver, subject.telemetry
    subject.release(subject.acquire())
    subject.check_at_rest()
    for _ in range(2):
        telemetry.stop()
        driver.release(driver.acquire())
        telemetry.start()
        again = Subject(driver, telemetry)
        handle = again.acquire()
        again.check()
        again.release(handle)
        again.check_at_rest()


def test_a_pool_without_references_is_forgotten(telemetry: Telemetry, opened: Callable[..., Driver]) -> None:
    """We keep no pool of the library alive, and it is no longer reported once it is gone."""
    subject = Subject(opened(), telemetry)
    subject.release(subject.acquire())
    subject.check_at_rest()
    references = [weakref.ref(thing) for thing in subject.driver.library_objects()]
    assert references
    subject.driver.stop()
    subject.driver.forget()
    # Not at once: our background thread may look at it just then, and while it collects nobody else does.
    wait_until(lambda: gc.collect() >= 0 and not any(reference() for reference in references), DEADLINE, "it to go")
    assert telemetry.collect().used(subject.driver.pool) is None


def scenario(driver: Driver) -> list[object]:
    """What an application sees of a pool, whatever it does to it."""
    seen: list[object] = []

    def attempt(what: str, action: Callable[[], Any]) -> Any:
        try:
            result = action()
        except Exception as error:
            words = str(error).replace(driver.pool, "POOL").partition("\n")[0]  # what follows is a stack
            seen.append((what, error_name(error), words))
            return None
        seen.append((what, type(result.connection).__qualname__ if hasattr(result, "connection") else result))
        return result

    def status(after: str) -> None:
        seen.append((after, str(driver.status()).replace(driver.pool, "POOL")))

    first = attempt("acquire", driver.acquire)
    attempt("query", lambda: driver.query(first))
    status("one out")
    second = attempt("acquire", driver.acquire)
    if Feature.LIMIT in driver.features:
        attempt("acquire too many", driver.acquire)
    if second is not None:
        attempt("release", lambda: driver.release(second))
    connection = first.connection
    attempt("release", lambda: driver.release(first))
    attempt("query after release", lambda: driver.query(first))
    again = attempt("acquire", driver.acquire)
    seen.append(("the same object", again.connection is connection))
    if Feature.INVALIDATE in driver.features:
        attempt("invalidate", lambda: driver.invalidate(again))
        status("invalidated")
        attempt("query after invalidation", lambda: driver.query(again))
    attempt("release", lambda: driver.release(again))
    if Feature.DETACH in driver.features:
        detached = attempt("acquire", driver.acquire)
        attempt("detach", lambda: driver.detach(detached))
        status("detached")
        attempt("close", lambda: driver.close_detached(detached))
    if Feature.DISPOSE in driver.features:
        attempt("dispose", driver.dispose)
        status("disposed")
    attempt("release", lambda: driver.release(driver.acquire()))
    status("at rest")
    return seen


def test_the_application_sees_no_difference(later: Telemetry, opened: Callable[..., Driver]) -> None:
    """The same values, types, exceptions with their words, and states of the pool, with and without poolscope."""
    driver = opened()
    bare = scenario(driver)
    driver.stop()
    later.start()
    driver = opened()
    assert scenario(driver) == bare
