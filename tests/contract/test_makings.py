"""Each pool that the application makes is noted once, with the line that made it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.origin import stack_of
from poolscope.detectors.watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from poolscope.core.making import Making
    from tests.contract.drivers.base import Driver
    from tests.support.telemetry import Telemetry


def test_a_pool_is_noted_where_it_is_made(
    opened: Callable[..., Driver], telemetry: Telemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    By the function of the application, with what the pool is, and a source that counts its connections. Pools that keep
    nothing, and Django's connections, are not made by a line.
    """
    noted: list[Making] = []
    monkeypatch.setattr(Watchdog, "made", lambda _, making: noted.append(making))
    driver = opened()
    del telemetry
    if "Null" in driver.label or driver.label.startswith("django"):
        assert noted == []
        return
    (making,) = noted
    assert stack_of(making.packed_stack)[0][0].co_filename.startswith(__file__.rpartition("/")[0])
    assert making.identity.name == driver.pool
    handle = driver.acquire()
    assert making.source.alive()
    assert making.connections() >= int("Static" not in driver.label)
    driver.release(handle)
