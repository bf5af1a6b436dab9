"""The connection of the server probe beside a pool, by what the pool's library was given."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from poolscope.core.pool_registry import open_pool_registries

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.contract.drivers.base import Driver
    from tests.support.telemetry import Telemetry

_WHERE = {"postgresql": "select current_database()", "mysql": "select database()", "mariadb": "select database()"}


def test_a_connection_beside_the_pool_is_to_the_same_database(
    opened: Callable[..., Driver], telemetry: Telemetry
) -> None:
    """Of every library whose pools know how they connect, to every server that the probe can ask."""
    del telemetry
    driver = opened()
    driver.release(driver.acquire())
    pool = open_pool_registries[-1].pools[driver.pool]
    (source,) = pool.sources
    connect = source.aside(pool.identity.system)
    if pool.identity.system not in _WHERE or driver.label.startswith("django"):
        assert connect is None
        return
    assert connect is not None
    with closing(connect()) as connection, closing(connection.cursor()) as cursor:
        cursor.execute(_WHERE[pool.identity.system])
        assert cursor.fetchone() == (pool.identity.namespace,)
