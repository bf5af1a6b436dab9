"""Greenlets of one thread: at any statement of a hook another one may go on, which checks out itself."""

from __future__ import annotations

import importlib
import random
from typing import TYPE_CHECKING, Any, Final

import pytest
import sqlalchemy
from sqlalchemy import pool as pools

from poolscope.adapters.sqlalchemy import points
from poolscope.core.execution import running_thread
from poolscope.core.lease import Lease
from poolscope.core.pool import Pool
from tests.support.scale import times
from tests.support.seeds import seed_of_run
from tests.support.skips import is_installed, require
from tests.support.stepping import stepping
from tests.support.watched import at_rest, outcomes, watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What a checkout and a return come through, the library's part between two hooks included.
FOLLOWED: Final = (
    *((point, "make") for point in (points.Checkout, points.Handover, points.Checkin)),
    (Pool, "checkout"),
    (Lease, "handed_over"),
    (Lease, "acquired"),
    (Lease, "released"),
    (pools.base._ConnectionFairy, "_checkout"),
)
#: Pairs of statements at which the one greenlet gives way, and then the other.
PAIRS = times(60, whole=100_000)


def _greenlets() -> Any:
    return importlib.import_module("greenlet")


class Switches:
    """Greenlets, of which each gives way to another one at one statement of a hook."""

    def __init__(self) -> None:
        self._seen: dict[Any, int] = {}
        self._others: dict[Any, tuple[Any, int]] = {}

    def statements(self, application: Callable[[], None]) -> int:
        """How many statements of hooks an application comes to."""
        counting = _greenlets().greenlet(application)
        self._seen, self._others = {counting: 0}, {}
        counting.switch()
        return self._seen[counting]

    def run(self, *applications: tuple[Callable[[], None], int]) -> None:
        """
        Run two applications, each in a greenlet.

        Args:
            applications: What each does, and the statement at which it gives way.
        """
        (first, line), (second, other_line) = ((_greenlets().greenlet(what), line) for what, line in applications)
        self._seen = {first: 0, second: 0}
        self._others = {first: (second, line), second: (first, other_line)}
        for one in (first, second):
            while not one.dead:
                one.switch()

    def step(self) -> None:
        """A statement is to be executed."""
        current = _greenlets().getcurrent()
        if current in self._seen:
            self._seen[current] += 1
            other, line = self._others.get(current, (None, 0))
            if other is not None and self._seen[current] == line and not other.dead:
                other.switch()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sqlalchemy.Engine]:
    """An engine with more connections than there are greenlets."""
    require(is_installed("greenlet"), "greenlet missing", "make env")
    made = sqlalchemy.create_engine(
        f"sqlite:///{tmp_path / 'greenlets.db'}", poolclass=pools.QueuePool, pool_size=3, max_overflow=0, pool_timeout=0
    )
    yield made
    made.dispose()


def _check(ours: Pool, held: int, checkouts: int) -> None:
    assert ours.used() == held
    assert [source.in_use() for source in ours.live_sources()] == [held]
    assert ours.pending == set()
    assert outcomes(ours) == {"": checkouts}
    assert ours.holds.read().count == checkouts - held


@pytest.mark.reliability(
    fault="another greenlet of the same thread goes on at any statement of a hook around a checkout or a return, and "
    "checks out itself",
    application="both get their connections",
    lost="nothing; the wait may be attributed to the queue in place of the validation",
)
def test_no_checkout_is_mixed_up_with_another_greenlets(engine: sqlalchemy.Engine) -> None:
    """
    Wherever two greenlets give way to each other, each lease is the one of its own connection: in use until that comes
    back, one point of wait, one point of use. Nothing is kept for the thread afterwards.
    """
    switches = Switches()
    draw = random.Random(f"{seed_of_run()} greenlets")
    with stepping(*FOLLOWED, step=switches.step), watched("sqlalchemy") as seen:
        engine.connect().close()
        ours, checkouts = seen.only(), 1
        hands: list[Any] = []

        def take() -> None:
            hands.append(engine.raw_connection())

        def give() -> None:
            hands.pop().close()

        def use() -> None:
            connection = engine.raw_connection()
            connection.close()

        statements = switches.statements(use)
        checkouts += 1
        assert statements > 20, "nothing was followed: the test tests nothing"
        pairs = [(one, other) for one in range(1, statements + 1) for other in range(1, statements + 2)]
        for one, other in draw.sample(pairs, min(PAIRS, len(pairs))):
            at = f"at statements {one} and {other} of {statements}"
            try:
                switches.run((take, one), (take, other))
                checkouts += 2
                _check(ours, 2, checkouts)
                assert {lease.carrier is None for lease in ours.leases} == {True}
                switches.run((give, one), (give, other))
                _check(ours, 0, checkouts)
                switches.run((use, one), (use, other))
                checkouts += 2
                _check(ours, 0, checkouts)
                at_rest(ours)
                assert running_thread().checkout is None
            except BaseException as error:
                raise AssertionError(f"{at}: {type(error).__name__} {error}") from error
