"""What an application does wrong, for each kind of finding that a process can make."""
# ruff: noqa: D103 - what the application does is named for it

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.exhaustion import BURST, POOL_EXHAUSTED, POOL_TOO_SMALL, SLOW_CONNECT
from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD, NESTED_CHECKOUT
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.support.pools import Source
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable


def leaks() -> Scene:
    scene = Scene(1)
    with scene.unit():
        scene.checkout().backend_process_id = 7
        scene.pass_time(70)
    return scene


def gives_up() -> Scene:
    scene = Scene(1)
    scene.checkout()
    scene.timeout()
    return scene


def runs_a_long_query() -> Scene:
    scene = Scene(1)
    scene.request(query=1)
    return scene


def calls_a_service_in_a_transaction() -> Scene:
    scene = Scene(1)
    scene.request(idle=1)
    return scene


def repeats() -> Scene:
    scene = Scene(1)
    with scene.unit():
        lease = scene.checkout()
        for _ in range(9):
            scene.query(lease)
        lease.released()
    return scene


def nests() -> Scene:
    scene = Scene(1)
    with scene.unit():
        scene.checkout()
        scene.checkout()
    return scene


def has_too_few_connections() -> Scene:
    scene = Scene(1)
    for _ in range(100):
        scene.request(query=0.3)
        scene.pass_time(0.01)
    busy = scene.checkout()
    scene.query(busy)
    busy.statement_begins("select 1 from t")
    scene.timeout(waited=0.3)
    return scene


def has_a_burst() -> Scene:
    scene = Scene(15)
    scene.pool.sources = [Source(15, idle=3)]
    for _ in range(30):
        scene.request(query=0.02)
        scene.pass_time(0.5)
    scene.timeout()
    return scene


def waits_for_the_database() -> Scene:
    scene = Scene(10)
    scene.timeout()
    return scene


def makes_a_pool_for_each_request() -> Scene:
    scene = Scene()
    for _ in range(7):
        with scene.unit():
            scene.make_pool()
    return scene


#: What makes a finding of each kind; or, of a kind that is a cause alone, an exhausted pool with that cause.
CAUSES: Final[dict[str, Callable[[], Scene]]] = {
    LEAK: leaks,
    POOL_EXHAUSTED: gives_up,
    LONG_HOLD: runs_a_long_query,
    IDLE_IN_TRANSACTION: calls_a_service_in_a_transaction,
    N_PLUS_ONE: repeats,
    NESTED_CHECKOUT: nests,
    POOL_TOO_SMALL: has_too_few_connections,
    BURST: has_a_burst,
    SLOW_CONNECT: waits_for_the_database,
    POOL_PER_REQUEST: makes_a_pool_for_each_request,
}
