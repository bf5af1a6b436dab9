"""Accounts that an interrupt left wrong: what is set right, and what is left alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.accounts import Accounts
from poolscope.core.pool import Pool
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from poolscope.core.lease import Lease


class Library(Source):
    """A library's pool that keeps a list of what callers hold."""

    def __init__(self) -> None:
        super().__init__(2, in_use=0)
        self.leases: list[Lease | None] | None = []

    def in_use(self) -> int | None:
        return len(self.leases or ())

    def held(self) -> list[Lease | None] | None:
        return self.leases

    def adopt(self, pool: Pool) -> None:
        self.leases = [pool.adopt(0.0) if lease is None else lease for lease in self.leases or ()]


def _pool() -> tuple[Pool, Library]:
    pool, library = Pool(identity(), [1.0]), Library()
    pool.sources = [library]
    return pool, library


def _held(pool: Pool) -> Lease:
    lease = pool.checkout()
    lease.acquired()
    return lease


def test_a_checkout_that_no_hook_refers_to_is_forgotten() -> None:
    """A hook that was cut off leaves its checkout pending: it is found. One that waits is left alone."""
    pool, _ = _pool()
    waits = pool.checkout()
    pool.checkout()
    assert len(pool.pending) == 2
    Accounts().look(pool, 0.0)
    assert pool.pending == {waits}


def test_a_lease_whose_connection_is_back_ends_at_the_third_look() -> None:
    """The library counts fewer than we do, in the same way for two seconds: the lease of no caller is forgotten."""
    pool, library = _pool()
    held, over = _held(pool), _held(pool)
    library.leases = [held]
    accounts = Accounts()
    for seconds in range(2):
        accounts.look(pool, float(seconds))
        assert pool.leases == {held, over}
    accounts.look(pool, 2.0)
    assert pool.leases == {held}


def test_a_second_in_which_the_process_had_no_processor_does_not_count() -> None:
    """A hook that is late, since nothing ran meanwhile, looks like one that was cut off: nothing is set right."""
    pool, library = _pool()
    library.leases = [None]
    accounts = Accounts()
    moment = 0.0
    for _ in range(9):
        accounts.look(pool, moment)
        assert not pool.leases
        moment += 3.0
    for _ in range(3):
        accounts.look(pool, moment)
        moment += 1.0
    assert len(pool.leases) == 1


def test_a_connection_without_a_lease_gets_one() -> None:
    """The library counts more than we do: what a caller holds without a lease is adopted."""
    pool, library = _pool()
    library.leases = [_held(pool), None]
    accounts = Accounts()
    for seconds in range(3):
        accounts.look(pool, float(seconds))
    assert pool.leases == set(library.leases)
    assert len(pool.leases) == 2


def test_what_moves_is_left_alone() -> None:
    """An account that differs while connections come and go is amid a change: it is not touched."""
    pool, library = _pool()
    library.leases = []
    accounts = Accounts()
    for seconds in range(4):
        lease = _held(pool)
        accounts.look(pool, float(seconds))
        assert lease in pool.leases
        lease.released()


def test_a_lease_in_the_place_of_another_is_not_taken_for_it() -> None:
    """
    Python gives a new lease the place in memory, and so the id, of one that is gone: the account has moved all the
    same. Here, one lease stands for both.
    """
    pool, library = _pool()
    lease = _held(pool)
    library.leases = []
    accounts = Accounts()
    for seconds in range(5):
        lease.requested_at = float(seconds)
        accounts.look(pool, float(seconds))
        assert pool.leases == {lease}


def test_what_a_caller_gets_meanwhile_is_left_alone() -> None:
    """Another thread may check out after the library's list was read: its lease is not on that, and goes on."""
    pool, library = _pool()
    held, _ = _held(pool), _held(pool)
    library.leases = [held]
    accounts = Accounts()
    for seconds in range(2):
        accounts.look(pool, float(seconds))
    got: list[Lease] = []

    def then_check_out() -> list[Lease | None] | None:
        got.append(_held(pool))
        return [held]

    library.held = then_check_out  # type: ignore[method-assign]
    accounts.look(pool, 2.0)
    assert pool.leases == {held, *got}
    assert len(got) == 1


def test_without_a_list_nothing_is_guessed() -> None:
    """A library that counts connections and keeps no list of them tells not which lease is over."""
    pool, library = _pool()
    lease = _held(pool)
    library.leases = None
    accounts = Accounts()
    for seconds in range(3):
        accounts.look(pool, float(seconds))
    assert pool.leases == {lease}
