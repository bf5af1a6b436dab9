"""What the adapters share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from poolscope.adapters.connects import PENDING_CHECKOUT, connect_begins, connect_ends, connect_fails
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool

ENDS: dict[str, Callable[[Pool, Lease | None, float], None]] = {
    "in a connection": connect_ends,
    "in an error": lambda pool, lease, began: connect_fails(pool, lease, began, ConnectionError()),
    "cancelled": lambda pool, lease, began: connect_fails(pool, lease, began, KeyboardInterrupt()),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS)
def test_a_checkout_connects_from_the_beginning_of_a_connect_to_its_end(
    end: Callable[[Pool, Lease | None, float], None],
) -> None:
    """However it ends; and what it took is the checkout's connect phase."""
    scene = Scene()
    asked = scene.begin_checkout()
    token = PENDING_CHECKOUT.set(asked)
    try:
        lease, began = connect_begins(scene.pool)
    finally:
        PENDING_CHECKOUT.reset(token)
    assert lease is asked
    assert asked.connecting
    scene.clock.advance(2)
    end(scene.pool, lease, began)
    assert (asked.connecting, asked.connect_time) == (False, 2.0)


def test_a_connect_that_no_checkout_waits_for_has_no_lease() -> None:
    """A worker of the pool's, and a task that inherited the context of a checkout that has long been served."""
    scene = Scene()
    acquired = scene.checkout()
    for checkout in (None, acquired):
        token = PENDING_CHECKOUT.set(checkout)
        try:
            lease, _ = connect_begins(scene.pool)
        finally:
            PENDING_CHECKOUT.reset(token)
        assert lease is None
    assert not acquired.connecting
