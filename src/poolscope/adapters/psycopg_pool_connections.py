"""
What is kept of psycopg_pool's pools and connections: the library keeps no list of the connections that callers hold,
and never learns that one was dropped.
"""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.connects import limit_changed
from poolscope.adapters.leases import ConnectionState, recover
from poolscope.adapters.marks import ACCOUNT_KEY, CONNECTION_KEY, KEY
from poolscope.adapters.stats import StatsSource
from poolscope.core.failure import raised_by_a_signal
from poolscope.types import override

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.types import LibraryObject

# libpq's CONNECTION_OK.
_OK: Final = 0


class Account:
    """
    What is kept of one pool.

    Args:
        library_pool: The pool.
    """

    def __init__(self, library_pool: LibraryObject) -> None:
        self.reference = weakref.ref(library_pool)
        self.connections: dict[PooledConnection, weakref.ref[Any]] = {}
        #: Slots that the library never gets back, since it was not told that their connections are gone.
        self.lost = 0

    @classmethod
    def of(cls, library_pool: LibraryObject, *, keep: bool = False) -> Account:
        """
        That of a pool.

        Args:
            library_pool: The pool.
            keep: Whether the pool keeps a new one, where it has none.
        """
        account: Account | None = library_pool.__dict__.get(ACCOUNT_KEY)
        if account is None:
            account = cls(library_pool)
            if keep:
                account = library_pool.__dict__.setdefault(ACCOUNT_KEY, account)
        return account

    def state(self, connection: LibraryObject) -> PooledConnection:
        """The state of a connection of the pool, made where there is none."""
        found: PooledConnection | None = connection.__dict__.get(CONNECTION_KEY)
        if found is not None:
            return found
        made = PooledConnection(self, connection)
        state: PooledConnection = connection.__dict__.setdefault(CONNECTION_KEY, made)
        if state is made:  # no other thread was faster
            self.connections[state] = weakref.ref(connection, partial(_collected, state))
        return state

    def held(self) -> list[tuple[PooledConnection, LibraryObject]]:
        """The connections that the library has marked as held, each with its state."""
        library_pool = self.reference()
        there = [(state, reference()) for state, reference in self.connections.copy().items()]
        return [
            (state, connection)
            for state, connection in there
            if connection is not None and connection._pool is library_pool
        ]

    def in_use(self) -> int:
        """
        How many connections callers hold by the library's marks.

        Not ``_nconns - len(_pool)``, which also counts those that are being made, and those that are lost. A broken
        connection keeps its mark after its return: the library drops it as it is.
        """
        return sum(state.lease is not None or not connection.closed for state, connection in self.held())

    def vanished(self, *, lost: bool) -> None:
        """
        A connection was collected that the pool had not closed.

        Args:
            lost: Whether the library still counts it: its caller dropped it.
        """
        library_pool = self.reference()
        pool = library_pool.__dict__.get(KEY) if library_pool is not None else None
        self.lost += lost
        if pool is not None:
            pool.closed("abandoned" if lost else "invalidated")
            if lost:
                limit_changed(pool)


class PooledConnection(ConnectionState):
    """
    What is known of one connection.

    Args:
        account: Of its pool.
        connection: The connection.
    """

    __slots__ = ("account", "closed", "connect", "pgconn")

    def __init__(self, account: Account, connection: LibraryObject) -> None:
        super().__init__(None)
        self.account = account
        self.pgconn = connection.pgconn
        try:
            self.backend_process_id = connection.pgconn.backend_pid
        except Exception as error:
            if raised_by_a_signal(error):
                raise  # any other is of one that is closed just now: no process id is no loss
        #: When a worker of the pool began to connect it and when it was done, in seconds of the clock; None once
        #: a caller had it.
        self.connect: tuple[float, float] | None = None
        #: Whether the pool has closed it.
        self.closed = False

    def was_made_for(self, lease: Lease) -> None:
        """
        Add the connect to the wait of the checkout that is the first to get the connection, as far as it lasted during
        that.
        """
        connect, self.connect = self.connect, None
        if connect is None or lease.handed_over_at is not None or lease.connect_time:
            return
        began, ended = connect
        if ended > lease.requested_at:
            lease.connected(ended - max(began, lease.requested_at))


def _collected(state: PooledConnection, _: object) -> None:
    # The garbage collector calls this wherever it happens to run.
    lease, state.lease = state.lease, None
    try:
        state.account.connections.pop(state, None)
        if not state.closed:
            # An open connection that vanishes never came back: its slot is lost.
            state.account.vanished(lost=lease is not None or state.pgconn.status == _OK)
        if lease is not None:
            lease.released(abandoned=True)
    except BaseException:  # noqa: BLE001 - ours, or a signal handler's
        recover("psycopg_pool.collected", lease, quietly=True)


class PsycopgSource(StatsSource):
    """
    What reports of a pool. A closed one cannot be opened again: it stays until what callers held by then is back, and
    leaves its name to the next.
    """

    @override
    def alive(self) -> bool:
        if super().alive():
            return True
        self.retired = True
        return bool(self.in_use())
