"""Which lease a connection has, and what is known of it: kept in its `ConnectionState`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.adapters.identity import learn
from poolscope.adapters.leases import ConnectionState, end_earlier
from poolscope.adapters.marks import CONNECTION_KEY, KEY, LEASES_KEY
from poolscope.types import override

if TYPE_CHECKING:
    import weakref

    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.pool_identity import Identity
    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.types import LibraryObject


class Connections:
    """
    The part of an adapter that is about connections. As it stands, it serves those that have a ``__dict__``;
    `ConnectionsById` serves the others.
    """

    #: The adapter's name, which its sites of guarded errors start with; also its name in settings.
    name: str
    #: Makes the state of a connection.
    state_class: type[ConnectionState] = ConnectionState
    #: The registry of pools; None while the library is not hooked.
    pool_registry: PoolRegistry | None
    _marked: weakref.WeakSet[LibraryObject]

    # What an adapter says of its library's connections

    def in_transaction(self, connection: LibraryObject) -> bool | None:
        """
        Whether a transaction is open; None when the driver does not know: a statement then opens one, as PEP 249 has
        it, and a `Call` ends it.
        """
        raise NotImplementedError

    def connection_of(self, hooked: LibraryObject) -> LibraryObject:
        """The connection of a cursor, or of what else a `Statement` or `Call` is hooked on."""
        return hooked

    def connects_for(self, hooked: LibraryObject) -> LibraryObject:
        """The pool that a `Connect` makes a connection for; None for none."""
        return hooked

    def connects_in(self, hooked: LibraryObject, pool: Pool) -> Lease | None:  # noqa: ARG002
        """
        The checkout that a `Connect` is part of, where the running code's context does not tell.

        Args:
            hooked: What the point is hooked on.
            pool: The pool that the connection is made for.
        """
        return None

    def identify_by(self, library_pool: LibraryObject, connection: LibraryObject) -> Identity | None:  # noqa: ARG002
        """What a pool is, by a connection of it, where `identify` did not find the server."""
        return None

    def backend_process_id(self, connection: LibraryObject) -> int | None:  # noqa: ARG002
        """The server's process for a connection, where the driver knows it."""
        return None

    def physical(self, connection: LibraryObject) -> LibraryObject:
        """The driver's connection inside of what the pool handles, or a number by which the server knows that."""
        return connection

    def loop_of_connection(self, connection: LibraryObject) -> LibraryObject:  # noqa: ARG002
        """The event loop that a connection was made in, where it works in no other one."""
        return None

    # What follows from it

    def state(self, connection: LibraryObject, pool: Pool | None) -> ConnectionState:
        """
        A connection's state, made where there is none.

        Args:
            connection: The connection.
            pool: The pool that it belongs to.
        """
        state: ConnectionState | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None:
            state = self.put(connection, self.state_class(pool))
        return state

    def put(self, connection: LibraryObject, state: LibraryObject) -> LibraryObject:
        """
        Mark a connection with its state. Cold.

        Args:
            connection: The connection.
            state: What is known of it.

        Returns:
            Its state: the one that another thread was faster to make, if there is.
        """
        self._marked.add(connection)  # first: whatever marks are put on it by now, `release` takes off
        state = connection.__dict__.setdefault(CONNECTION_KEY, state)
        if self.pool_registry is None:  # released meanwhile
            self.forget_connection(connection)
        return state

    def prepare(self, anchor: LibraryObject) -> None:
        """A pool is about to be entered: make room for marks of ours, which `forget_pool` takes off."""

    def belongs(self, connection: LibraryObject, pool: Pool) -> None:
        """A connection that no caller holds was found in a pool that is being entered."""
        self.state(connection, pool)

    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:  # noqa: ARG002
        """A caller gets a connection by this lease, which is granted next. Hot."""
        state: ConnectionState = connection.__dict__.get(CONNECTION_KEY) or self.state(connection, lease.pool)
        earlier, state.lease = state.lease, lease
        if earlier is not None:
            end_earlier(earlier)
        if state.backend_process_id is not None:
            lease.backend_process_id = state.backend_process_id

    def claim(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> bool:  # noqa: ARG002
        """
        A connection that a caller held before is adopted by this lease, unless a checkout was faster.

        Returns:
            Whether it has this lease now.
        """
        state = self.state(connection, lease.pool)
        state.lease = state.lease or lease  # no other thread runs meanwhile: nothing is called
        return state.lease is lease

    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:
        """
        A caller returns a connection. Hot.

        Args:
            library_pool: The pool that it is returned to; None where the connection itself was hooked.
            connection: The connection.

        Returns:
            Its lease; None when it has none of this pool.
        """
        state: ConnectionState | None = connection.__dict__.get(CONNECTION_KEY)
        if state is None:
            return None
        lease = state.lease
        if lease is not None:
            if library_pool is not None and library_pool.__dict__.get(KEY) is not lease.pool and not lease.pool.ended:
                return None  # it is another pool's, which the library will refuse
            state.lease = None
        return lease

    def give_back(self, library_pool: LibraryObject, connection: LibraryObject) -> LibraryObject:  # noqa: ARG002
        """
        A caller will never get what was checked out for it: return that as callers do. Cold.

        Args:
            library_pool: The pool.
            connection: What its checkout has made.

        Returns:
            What has to be awaited for that, if anything has.
        """
        return connection.close()

    def lost(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:  # noqa: ARG002
        """
        The lease of a connection, looked for in another way than by `untie`, as where that failed. Cold.

        Args:
            library_pool: The pool that it is of; None where the connection itself was hooked.
            connection: The connection.
        """
        return self.lease_of(connection)

    def lease_of(self, connection: LibraryObject) -> Lease | None:
        """The lease of a connection; also asked of other libraries' connections. Hot."""
        try:
            state: ConnectionState | None = connection.__dict__.get(CONNECTION_KEY)
        except AttributeError:  # no connection of this library
            return None
        return state.lease if state is not None else None

    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:  # noqa: ARG002
        """
        The pool whose connection a `Close` closes, once for each connection; None for none.

        Args:
            hooked: What the point is hooked on: here, the connection.
            args: The call's first argument, if any.
        """
        marks = getattr(hooked, "__dict__", None)
        state: ConnectionState | None = marks.get(CONNECTION_KEY) if type(marks) is dict else None
        if state is None:
            return None
        pool, state.pool = state.pool, None
        return pool

    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        """
        A physical connection was made.

        Args:
            library_pool: The pool that it was made for.
            pool: Ours.
            connection: The connection.
            lease: The checkout that it was made for, if it was.
        """
        state = self.state(connection, pool)
        state.pool = pool
        state.backend_process_id = self.backend_process_id(connection)
        learn(pool, f"{self.name}.learn", lambda: self.identify_by(library_pool, connection))
        if lease is not None:
            lease.backend_process_id = state.backend_process_id

    def forget_connection(self, connection: LibraryObject) -> None:
        """Take our mark off a connection."""
        marks = getattr(connection, "__dict__", None)
        if type(marks) is dict:
            marks.pop(CONNECTION_KEY, None)

    def forget_pool(self, anchor: LibraryObject) -> None:
        """Take our marks off a pool, but for `KEY`."""


class ConnectionsById(Connections):
    """
    For connections that carry no marks, such as those that are made in C: the pool's marks hold their leases by the
    connection's id, for as long as the pool itself refers to the connection.
    """

    @override
    def prepare(self, anchor: LibraryObject) -> None:
        anchor.__dict__.setdefault(LEASES_KEY, {})

    def belongs(self, connection: LibraryObject, pool: Pool) -> None:
        """Nothing: an idle connection has nothing to be known of."""

    @override
    def tie(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> None:
        leases: dict[int, Lease] | None = library_pool.__dict__.get(LEASES_KEY)
        if leases is None:  # poolscope was released during the checkout
            return
        earlier = leases.get(id(connection))
        leases[id(connection)] = lease
        if earlier is not None:
            end_earlier(earlier)

    @override
    def claim(self, library_pool: LibraryObject, connection: LibraryObject, lease: Lease) -> bool:
        leases: dict[int, Lease] | None = library_pool.__dict__.get(LEASES_KEY)
        return leases is not None and leases.setdefault(id(connection), lease) is lease

    @override
    def untie(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:
        leases: dict[int, Lease] | None = library_pool.__dict__.get(LEASES_KEY)
        return leases.pop(id(connection), None) if leases else None

    @override
    def lost(self, library_pool: LibraryObject, connection: LibraryObject) -> Lease | None:
        leases: dict[int, Lease] | None = library_pool.__dict__.get(LEASES_KEY)
        return leases.get(id(connection)) if leases else None

    @override
    def closing(self, hooked: LibraryObject, *args: LibraryObject) -> Pool | None:  # noqa: ARG002
        # Hooked on the pool: the call's argument is the connection.
        marks = getattr(hooked, "__dict__", {})
        pool: Pool | None = marks.get(KEY)
        return pool

    @override
    def connected(
        self, library_pool: LibraryObject, pool: Pool, connection: LibraryObject, lease: Lease | None
    ) -> None:
        learn(pool, f"{self.name}.learn", lambda: self.identify_by(library_pool, connection))
        if lease is not None:
            lease.backend_process_id = self.backend_process_id(connection)

    @override
    def forget_pool(self, anchor: LibraryObject) -> None:
        anchor.__dict__.pop(LEASES_KEY, None)
