"""What the adapters share."""

from __future__ import annotations

import contextvars
import gc
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters.connects import PENDING_CHECKOUT, connect_begins, connect_ends, connect_fails
from poolscope.adapters.points.checkout import Settling, _checkout_async, _plain_checkout_async
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

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


class _Waiting:
    """What a coroutine waits for that nothing ends."""

    def __await__(self) -> Generator[None, None, None]:
        yield


async def _wait(*_: object) -> None:
    await _Waiting()


_SETTLING = Settling("tests.checkout", lambda *_: None)


@pytest.mark.parametrize(
    "hook",
    [
        lambda begin: _plain_checkout_async(_wait, begin, lambda *_: None, lambda *_: None, _SETTLING),
        lambda begin: _checkout_async(_wait, begin, lambda *_: None, lambda *_: None, lambda *_: (_SETTLING, 0, 0)),
    ],
    ids=["plain", "any other"],
)
def test_a_checkout_that_is_collected_leaves_the_running_one_alone(hook: Callable[..., Callable[..., Any]]) -> None:
    """The garbage collector closes a coroutine in whichever context runs just then, amid another checkout perhaps."""
    scene = Scene()
    left = hook(lambda *_: scene.begin_checkout())(scene.pool)
    contextvars.copy_context().run(left.send, None)
    cycle = [left]
    cycle.append(cycle)
    running = scene.begin_checkout()
    token = PENDING_CHECKOUT.set(running)
    try:
        del left, cycle
        gc.collect()
        assert PENDING_CHECKOUT.get() is running
    finally:
        PENDING_CHECKOUT.reset(token)


def test_a_checkout_that_fails_is_the_running_one_no_more() -> None:
    """Where its own context goes on, the checkout around it is the running one again."""
    scene = Scene()

    async def fail(*_: object) -> None:
        raise ConnectionError

    checkout = _plain_checkout_async(
        fail, lambda *_: scene.begin_checkout(), lambda *_: None, lambda *_: None, _SETTLING
    )
    with pytest.raises(ConnectionError):
        checkout(scene.pool).send(None)
    assert PENDING_CHECKOUT.get() is None
