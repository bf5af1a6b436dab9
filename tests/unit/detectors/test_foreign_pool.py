"""Pools and connections of another process or event loop: when they are used, and what an exhausted one says."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.catalogue.exhaustion import POOL_EXHAUSTED, SLOW_CONNECT
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL
from poolscope.core.lease import Outcome
from poolscope.core.pool import Pool
from poolscope.core.pool_identity import Foreign
from poolscope.detectors.detector import Suspected
from poolscope.detectors.foreign_pool import ForeignPoolDetector, Use, found
from tests.support.likeness import Like
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.core.lease import Lease


def of_process(leases: tuple[Lease, ...]) -> Foreign:
    """Connections that were opened in another process."""
    return Foreign("process", False, leases)


def pool_of_process(leases: tuple[Lease, ...]) -> Foreign:
    """A pool that was."""
    return Foreign("process", True, leases)


def test_the_first_checkout_of_a_child_is_found() -> None:
    """
    However short it is: the pool is suspected since the fork. Afterwards its checkouts are not slowed any more. Where
    nothing was open at the fork, nothing is suspected.
    """
    scene = Scene(2)
    usual = scene.pool.slow_wait
    scene.request()
    scene.pass_time(1)
    assert (scene.found(), scene.pool.slow_wait) == ([], usual)
    scene.source.elsewhere = of_process
    scene.pool.suspect()
    scene.pool.suspect()
    assert scene.pool.slow_wait < 0
    with scene.unit("GET /devices") as unit:
        lease = scene.begin_checkout("view")
        lease.backend_process_id = 7
        lease.acquired()
        lease.released()
    assert unit.findings == {FORKED_POOL}
    assert scene.pool.slow_wait == usual
    (finding,) = scene.found()
    assert finding.id == FORKED_POOL
    assert finding.summary.startswith("http GET /devices uses pool shop at /application/view.py:2 in view in process ")
    assert finding.summary.endswith("two processes use one socket (the server's process 7)")
    assert "dispose(close=False)" in finding.fix
    scene.pass_time(3)
    assert (len(scene.found()), scene.pool.slow_wait) == (1, usual)


@pytest.mark.parametrize("instruction", range(20))
def test_a_pool_may_be_suspected_while_it_is(instruction: int) -> None:
    """By another thread or the garbage collector: once it is trusted, it reports as before."""
    pool = Scene(2).pool
    usual, before, left = pool.slow_wait, sys.gettrace(), [instruction]

    def meanwhile(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        if frame.f_code is not Pool.suspect.__code__:
            return None
        frame.f_trace_opcodes = True
        left[0] -= event == "opcode"
        if left[0] < 0:
            left[0] = sys.maxsize
            pool.suspect()
        return meanwhile

    sys.settrace(meanwhile)
    try:
        pool.suspect()
    finally:
        sys.settrace(before)
    assert pool.slow_wait < 0
    pool.trust()
    assert pool.slow_wait == usual


def test_what_is_disposed_of_after_the_fork_is_trusted() -> None:
    """The pool is suspected until nothing foreign is left of it."""
    scene = Scene(2)
    usual = scene.pool.slow_wait
    scene.source.elsewhere = of_process
    scene.pass_time(1)
    assert scene.pool.slow_wait < 0
    scene.source.elsewhere = None
    scene.pass_time(1)
    assert scene.pool.slow_wait == usual
    scene.request()
    assert scene.found() == []


def test_a_suspected_checkout_that_is_not_slow_is_not_reported_as_slow() -> None:
    """It has no span, and counts for no peak of pending checkouts."""
    scene = Scene(1)
    waited = []
    scene.watchdog.waited = lambda lease, _: waited.append(lease)  # type: ignore[method-assign]
    scene.pool.suspect()
    scene.request()
    assert waited == []
    slow = scene.begin_checkout()
    scene.clock.advance(1)
    slow.acquired()
    assert waited == [slow]


def test_a_checkout_that_hangs_is_found_by_looking() -> None:
    """No checkout got a connection, and none has failed yet."""
    scene = Scene(2)
    scene.source.elsewhere = lambda leases: Foreign("loop", True, leases, is_closed=True)
    with scene.unit():
        scene.begin_checkout()
        scene.pass_time(1)
    finding = scene.found(FOREIGN_EVENT_LOOP)[0]
    assert "the pool was opened in an event loop that is closed" in finding.summary


@pytest.mark.parametrize("outcome", [Outcome.ERROR, Outcome.TIMEOUT, Outcome.CANCELLED])
def test_a_checkout_that_fails_is_a_use(outcome: Outcome) -> None:
    """As with an error of the driver that a future is attached to a different loop."""
    scene = Scene(2)
    scene.source.elsewhere = lambda leases: Foreign("loop", True, leases)
    scene.begin_checkout().failed(outcome, "RuntimeError")
    assert len(scene.found(FOREIGN_EVENT_LOOP)) == 1


def test_an_exhausted_pool_of_a_child_is_not_slow_to_connect() -> None:
    """It has room and no thread makes connections; in the parent, a pool with room is slow to connect."""
    scene = Scene(4)
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == SLOW_CONNECT
    scene = Scene(4)
    scene.source.elsewhere = pool_of_process
    scene.checkout()
    scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] == FORKED_POOL
    assert "open the pool after the fork" in finding.fix


def test_a_full_pool_of_a_child_has_the_cause_of_any_other() -> None:
    """All connections that it may have are checked out: that it cannot make more is not why."""
    scene = Scene(1)
    scene.source.elsewhere = pool_of_process
    with scene.unit():
        lease = scene.checkout()
        scene.query(lease, seconds=20)
        scene.clock.advance(20)
        scene.timeout()
    (finding,) = scene.found(POOL_EXHAUSTED)
    assert finding.evidence["cause"] != FORKED_POOL


def test_whoever_shares_a_socket_waits_for_the_others_answers() -> None:
    """That holds the connection for long, and is no long hold; with a socket of its own it is one."""
    for elsewhere, ids in ((None, {LONG_HOLD}), (of_process, {FORKED_POOL})):
        scene = Scene(2)
        scene.source.elsewhere = elsewhere
        scene.pass_time(1)
        scene.request(query=60)
        assert set(scene.ids()) == ids


def lease_of(pool: Any, requested_at: float, process: int | None = None) -> Any:
    """What is like a lease of a pool."""
    return Like(
        pool=pool, requested_at=requested_at, backend_process_id=process, silent=False, unit=None, origin=(),
        trace=None, task=None, adopted=True,
    )  # fmt: skip


class Suspect:
    """A pool of which it is known what is foreign in it."""

    def __init__(self, foreign: Foreign | None, *, has: bool = True, known: bool = False) -> None:
        self.identity = Scene().pool.identity
        self.is_foreign = known
        self.did: list[str] = []
        self._foreign, self._has = foreign, has

    def foreign(self, *_: Any) -> Foreign | None:
        return self._foreign

    def has_foreign(self) -> bool:
        return self._has

    def suspect(self) -> None:
        self.did.append("suspect")

    def trust(self) -> None:
        self.did.append("trust")


def detector() -> ForeignPoolDetector:
    """A new one."""
    return ForeignPoolDetector(Like())  # type: ignore[arg-type]


def test_a_checkout_of_a_foreign_pool_is_enough() -> None:
    """It is kept where it uses what is foreign, else another one that does; one that is not to be watched is not."""
    other = lease_of(None, 1.0)
    for uses, silent in ((True, False), (False, False), (True, True)):
        pool = Suspect(None)
        lease = lease_of(pool, 2.0)
        lease.silent = silent
        pool._foreign = Foreign("process", False, (other, lease) if uses else (other,))
        made = detector()
        made.observe(Suspected(lease))
        assert [one.lease for one in made.observations] == ([] if silent else [lease if uses else other])
        assert (pool.is_foreign, pool.did) == ((False, []) if silent else (True, ["trust"]))
    made = detector()
    made.observe(Suspected(lease_of(Suspect(None), 1.0)))
    assert not made.observations


@pytest.mark.parametrize(
    ("foreign", "has", "known", "then", "does"),
    [
        (True, True, False, True, "trust"),
        (True, False, False, False, "trust"),
        (False, True, False, False, "suspect"),
        (False, True, True, True, "trust"),
        (False, False, True, False, "trust"),
        (False, False, False, False, "trust"),
    ],
)
def test_checkouts_are_suspected_while_something_foreign_is_not_used(
    foreign: bool, has: bool, known: bool, then: bool, does: str
) -> None:
    """What is used is found at once, by its oldest use; what is gone is not foreign any more."""
    pool: Any = Suspect(None, has=has, known=known)
    leases = tuple(lease_of(pool, moment) for moment in (3.0, 1.0, 2.0))
    pool._foreign = Foreign("process", False, leases) if foreign else None
    occurrences = list(detector().look(pool))
    assert len(occurrences) == foreign
    assert (pool.is_foreign, pool.did) == (then, [does])
    for one in occurrences:
        assert one.place == (FORKED_POOL, "shop")
        assert one.describe is not None
        assert one.describe(4).evidence["repeated"] == 4


def test_the_servers_processes_are_said_as_far_as_they_are_known() -> None:
    """In order, each once, and not too many; of a pool there are none."""
    pool = Suspect(None)
    numbers = [*range(30, 5, -1), 30, None]
    leases = tuple(lease_of(pool, 1.0, number) for number in numbers)
    known = found(Use(leases[0], Foreign("process", False, leases)), 0)
    listed = [str(number) for number in range(6, 26)]
    assert known.evidence["backend_process_ids"] == listed
    assert known.evidence["connections_used"] == len(leases)
    assert known.summary.endswith(f" (the server's process {', '.join(listed)})")
    whole = found(Use(leases[0], Foreign("process", True, leases)), 0)
    unknown = found(Use(leases[0], Foreign("process", False, leases[-1:])), 0)
    assert "the server's process" not in whole.summary
    assert "the server's process" not in unknown.summary
