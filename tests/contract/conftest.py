"""Every driver's pool, open and watched."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

import pytest

from tests.contract.drivers import all_drivers
from tests.contract.subject import Subject
from tests.support.skips import require
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.contract.drivers.base import Driver, Feature

#: Seconds that a checkout waits before it times out, where a law does not need longer.
SHORT = 0.05


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A law runs on every driver whose pool can do what its marker `needs` names."""
    if "driver" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("needs")
        needed: tuple[Feature, ...] = marker.args if marker else ()
        drivers = [kind for kind in all_drivers() if all(one in kind.features for one in needed)]
        metafunc.parametrize("driver", drivers, ids=[kind.label for kind in drivers], indirect=True)


@pytest.fixture(autouse=True)
def _small_heap() -> Iterator[None]:
    """A garbage collection, and poolscope's walk over all objects, see only what the test made."""
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def late(request: pytest.FixtureRequest) -> bool:
    """
    Whether threads are late on purpose (tests/support/late.py): every step costs stalls then, and
    fewer of them do.
    """
    return bool(request.config.getoption("late", None))


@pytest.fixture
def driver(request: pytest.FixtureRequest) -> Driver:
    """One driver, its pool not open yet."""
    kind: type[Driver] = request.param
    require(kind.missing() is None, str(kind.missing()), "make env (and make matrix for other versions)")
    return kind()


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented()


@pytest.fixture
def opened(driver: Driver, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Driver]]:
    """Opens the driver's pool, with two connections unless told otherwise."""
    where = request.getfixturevalue("database") if driver.on_postgres else None

    def open_it(*, size: int = 2, timeout: float = SHORT, **options: Any) -> Driver:
        driver.start(where, tmp_path, size=size, timeout=timeout, **options)
        return driver

    yield open_it
    driver.stop()


@pytest.fixture
def subject(telemetry: Telemetry, opened: Callable[..., Driver]) -> Subject:
    """A pool of two connections, made under poolscope."""
    return Subject(opened(), telemetry)
