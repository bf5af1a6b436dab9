"""
What the adapters share: asking, failing, lending and giving back, and what a library's pool tells of itself.
"""

from __future__ import annotations

import gc
import os
import weakref
from contextvars import ContextVar
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from poolscope.core.guard import guard
from poolscope.core.lease import KEY, Outcome
from poolscope.core.ledger import OVERFLOW
from poolscope.core.pool import POOL_NAME, Identity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from poolscope.core.lease import Lease
    from poolscope.core.ledger import Ledger
    from poolscope.core.pool import Pool, PoolSource

#: The ask that the running code is part of: physical connects inside it count as its connect phase.
ASK: Final[ContextVar[Lease | None]] = ContextVar("poolscope_ask", default=None)

#: By adapter: how the lease of a driver's connection is found, for a pool that sits on top of that adapter's.
LEASE_FINDERS: Final[dict[str, Callable[[Any], Lease | None]]] = {}

#: By adapter: how a framework that makes pools names one of them.
NAMERS: Final[dict[str, Callable[[Any], str | None]]] = {}

#: Under this key the ``__dict__`` of a driver's connection holds what ties it to its lease. Not `KEY`: the proxies of a
#: pool above may pass a look into their ``__dict__`` on to the connection.
DRIVER_KEY: Final = "_poolscope_driver"

#: The names that the application gave to pools by `poolscope.pool_name`, by their anchor; they outlive our presence.
NAMES: Final[weakref.WeakKeyDictionary[Any, str]] = weakref.WeakKeyDictionary()

_PORTS: Final = {"postgresql": 5432, "mysql": 3306, "mariadb": 3306, "oracle.db": 1521, "microsoft.sql_server": 1433}


class Adapter:
    """
    The base of the adapters that mark a library's pools in their ``__dict__``.

    A library's pool becomes known when it is first asked, or earlier where an adapter sees it made. From then on
    the ``__dict__`` of its anchor holds its `Pool`.
    """

    #: The adapter's name, which its sites of guarded errors start with.
    name: str
    #: Exceptions that are the pool's own timeout, and those by which it turns an ask away without a wait.
    timeouts: tuple[type[BaseException], ...] = ()
    rejections: tuple[type[BaseException], ...] = ()
    #: Whether `poolscope.pool_name` names its pools; else what the library calls them goes before that.
    nameable = True

    def __init__(self) -> None:
        self._ledger: Ledger | None = None
        self._pools: weakref.WeakSet[Any] = weakref.WeakSet()

    # To be said by each adapter

    def identify(self, pool: Any) -> Identity:  # noqa: ANN401
        """
        What a library's pool is.
        """
        raise NotImplementedError

    def source(self, pool: Any) -> PoolSource:  # noqa: ANN401
        """
        What tells of a library's pool at collections.
        """
        raise NotImplementedError

    def held(self, pool: Any) -> list[Any]:  # noqa: ANN401, ARG002 - not every library knows
        """
        What callers hold, by the library's own account.
        """
        return []

    def entered(self, pool: Any, tracked: Pool, held: list[Any]) -> None:  # noqa: ANN401
        """
        A pool was entered, and other threads may use it by now: adopt what they held before, and nothing that has our
        mark already.

        Args:
            pool: The library's pool.
            tracked: Ours.
            held: What `held` returned before anybody could see `tracked`.
        """

    def forget(self, anchor: Any) -> None:  # noqa: ANN401
        """
        Take every mark of ours off a pool and its connections, but for ``KEY`` of the anchor itself.
        """

    def anchor(self, pool: Any) -> Any:  # noqa: ANN401
        """
        The object whose ``__dict__`` holds our marks of a pool; it can be held weakly and lives as long as the pool.
        """
        return pool

    # What they share

    def ask(self, pool: Any, marks: dict[str, Any]) -> Lease | None:  # noqa: ANN401
        """
        Somebody asks a library's pool.

        Args:
            pool: The library's pool.
            marks: The ``__dict__`` of its anchor.

        Returns:
            The ask; None when it is not to be watched: nobody listens, or poolscope failed.
        """
        ledger = self._ledger
        if ledger is None or (ledger.asleep and ledger.still_asleep()):
            return None
        try:
            tracked = marks.get(KEY) or self.enter(pool)
            return tracked.ask(None, 3) if tracked is not None else None  # past this and the hook that called
        except Exception:  # noqa: BLE001 - ours; the check-out goes on without us
            guard.caught(f"{self.name}.ask")
            return None

    def know(self, pool: Any) -> Pool | None:  # noqa: ANN401
        """
        A pool was seen that nobody has asked yet. Cold.
        """
        ledger = self._ledger
        if ledger is None or ledger.still_asleep():
            return None
        return guard.run(f"{self.name}.know", lambda: self.enter(pool), None)

    def made(self, pool: Any) -> Pool | None:  # noqa: ANN401
        """
        A pool was made. Cold.
        """
        guard.run(f"{self.name}.made", lambda: remember_name(self.anchor(pool)), None)
        return self.know(pool)

    def enter(self, pool: Any) -> Pool | None:  # noqa: ANN401
        """
        Enter a pool into the ledger, once. Cold.

        The library is asked, and its connections are adopted, while no lock of ours is held: it may log, take locks of
        its own and make garbage. If several threads enter one pool at once, one wins, and what the others have found
        out is dropped.
        """
        ledger, anchor = self._ledger, self.anchor(pool)
        if ledger is None:
            return None
        known: Pool | None = anchor.__dict__.get(KEY)
        if known is not None:
            return known
        what, source, held = self.identify(pool), self.source(pool), self.held(pool)
        self._pools.add(anchor)
        tracked, first = ledger.enter(anchor.__dict__, named(anchor, what) if self.nameable else what, source)
        if first:
            self.entered(pool, tracked, held)
        return tracked

    def tracked(self, pool: Any) -> Pool | None:  # noqa: ANN401
        """
        Our `Pool` of a library's pool, if it is entered.
        """
        return self.anchor(pool).__dict__.get(KEY) if self._ledger is not None else None

    def failed(self, lease: Lease, error: BaseException) -> None:
        """
        An ask ended in an exception. Cold.
        """
        try:
            lease.fail(self.outcome(lease, error), error_name(error))
        except Exception:  # noqa: BLE001
            guard.caught(f"{self.name}.failed")

    def outcome(self, lease: Lease, error: BaseException) -> Outcome:
        """
        How an ask ended that raised: a timeout of the connect is an error, not one of the pool.
        """
        if lease.connect_failed:
            return Outcome.ERROR if isinstance(error, Exception) else Outcome.CANCELLED
        if isinstance(error, self.rejections):
            return Outcome.REJECTED
        if isinstance(error, self.timeouts):
            return Outcome.TIMEOUT
        return Outcome.ERROR if isinstance(error, Exception) else Outcome.CANCELLED

    def release(self) -> None:
        """
        See `PoolAdapter.release`.
        """
        self._ledger = None
        for anchor in list(self._pools):
            self.forget(anchor)
            anchor.__dict__.pop(KEY, None)
        self._pools = weakref.WeakSet()


class WeakSource:
    """
    The base of sources: a library's pool, held weakly.

    Args:
        pool: The pool.
    """

    def __init__(self, pool: Any) -> None:  # noqa: ANN401
        self.reference = weakref.ref(pool)
        self.retired = False

    def alive(self) -> bool:
        """
        See `PoolSource.alive`.
        """
        return self.reference() is not None

    def limit(self) -> int | None:
        """
        See `PoolSource.limit`.
        """
        return None

    def idle_limits(self) -> tuple[int | None, int | None]:
        """
        See `PoolSource.idle_limits`.
        """
        return (None, None)

    def idle(self) -> int:
        """
        See `PoolSource.idle`.
        """
        return 0

    def in_use(self) -> int | None:
        """
        See `PoolSource.in_use`.
        """
        return None


def remember_name(anchor: Any) -> None:  # noqa: ANN401
    """
    A pool was made: if the application names those that it makes now, this one has that name, also when it becomes
    known only later.
    """
    name = POOL_NAME.get()
    if name is not None:
        NAMES[anchor] = name


def named(anchor: Any, what: Identity) -> Identity:  # noqa: ANN401
    """
    A pool's identity with the name that the application gave it by `poolscope.pool_name`, if it did.
    """
    name = NAMES.get(anchor) or POOL_NAME.get()
    if name is None:
        return what
    NAMES[anchor] = name
    return replace(what, name=name)


def limit_changed(tracked: Pool) -> None:
    """
    A pool was resized, or lost a slot.
    """
    tracked.refresh_limit()
    if tracked.limit is not None and len(tracked.leases) >= tracked.limit:
        tracked.filled(tracked.now())
    else:
        tracked.emptied()


def lease_below(connection: Any) -> Lease | None:  # noqa: ANN401
    """
    The lease of a driver's connection in the pool that it comes from, if it comes from one.
    """
    for find in LEASE_FINDERS.values():
        lease = find(connection)
        if lease is not None:
            return lease
    return None


def connect_begins(tracked: Pool, lease: Lease | None = None) -> tuple[Lease | None, float]:
    """
    A physical connect begins.

    Args:
        tracked: The pool that it is made for.
        lease: The ask that the running code is part of, if any; that of `ASK` when not given.

    Returns:
        The ask that it is made for, if the running code is part of one of this pool that still waits; and the moment.
    """
    lease = lease or ASK.get()
    # A task that the library started in an ask for itself has that ask's context for ever.
    if lease is not None and (lease.pool is not tracked or lease.started_at is not None or lease.ended_at is not None):
        lease = None
    if lease is not None:
        lease.connecting = True
    return lease, tracked.now()


def connect_ends(tracked: Pool, lease: Lease | None, began: float) -> None:
    """
    The physical connect ended in a connection.
    """
    seconds = tracked.now() - began
    if lease is not None:
        lease.connect_failed = False
        lease.connected(seconds)
    tracked.created(seconds, lease)


def connect_fails(tracked: Pool, lease: Lease | None, began: float, error: BaseException) -> None:
    """
    The physical connect ended without a connection: by itself, or cut short by the ask's own timeout or cancellation.
    """
    if lease is not None:
        lease.connect_failed = isinstance(error, Exception)
        lease.connected(tracked.now() - began)


def begin_statement(lease: Lease, statement: Any, *, many: bool = False, parameters: Any = None) -> None:  # noqa: ANN401
    """
    A statement begins on a driver's connection; it is counted for the unit of work unless a pool above has done so.

    Args:
        lease: The connection's.
        statement: As it was given to the driver.
        many: Whether one call runs it for many rows.
        parameters: What the driver gets for its parameters, where it is at hand.
    """
    if type(statement) is not str:
        statement = text_of(statement)
    if lease.above is not None and lease.counted_above():
        lease.statement_begins_below(statement)
    else:
        lease.statement_begins(statement, many=many, parameters=parameters)


def text_of(statement: Any) -> str:  # noqa: ANN401
    """
    The text of a statement that is not a plain string.
    """
    if isinstance(statement, bytes):
        return statement.decode(errors="replace")
    as_string = getattr(statement, "as_string", None)
    return str(as_string(None)) if as_string is not None else str(statement)


def error_name(error: BaseException) -> str:
    """
    An exception's qualified name, as `error.type` has it: without the module for built-in ones.
    """
    kind = type(error)
    module = kind.__module__
    return kind.__qualname__ if module == "builtins" else f"{module}.{kind.__qualname__}"


def identity(
    system: str,
    *,
    name: str | None = None,
    namespace: str | None = None,
    address: str | None = None,
    port: object = None,
) -> Identity:
    """
    A pool's identity; its name is made of the server and the database where the user gave none.

    Args:
        system: As the semantic conventions name it.
        name: What the user named it.
        namespace: The database.
        address: The server's address, or its socket's folder.
        port: The server's port as a number or text; the system's own where there is none.
    """
    number = whole(port)
    if number is None and address is not None and not address.startswith("/") and not port:
        number = _PORTS.get(system)
    return Identity(name or _default_name(system, address, number, namespace), system, namespace, address, number)


def learn(tracked: Pool, site: str, tell: Callable[[], Identity]) -> None:
    """
    A connection was made: where nothing told of its pool's server before, it may. The pool's name stays what it is.

    Args:
        tracked: The pool.
        site: What an error of ours is counted as.
        tell: Says what the pool is, by the connection; called only where that is wanted.
    """
    known = tracked.identity
    if known.address is not None or known.name == OVERFLOW:
        return
    what = guard.run(site, tell, known)
    if what.address is not None:
        namespace = known.namespace or what.namespace
        tracked.identity = replace(known, namespace=namespace, address=what.address, port=what.port)


def whole(value: object) -> int | None:
    """
    A whole number from what a driver was given; None when it is none, or when several servers have different ones.
    """
    several = value if isinstance(value, (list, tuple)) else str(value).split(",")
    try:
        (number,) = {int(str(one)) for one in several}
    except ValueError:
        return None
    return number


def is_torn(url: str) -> bool:
    """
    Whether a URL holds a password with a ``/``, ``?`` or ``#`` that is not quoted, so that what looks like its server
    or database is part of the login.
    """
    parts = urlsplit(url)
    return "@" in parts.path + parts.query + parts.fragment


def database_file(path: str | None) -> str:
    """
    The name of a database that is a file.
    """
    return os.path.basename(path) if path else ":memory:"


def name_by_framework(pool: Any) -> str | None:  # noqa: ANN401
    """
    The name of a pool that a framework made, such as Django's alias of the database.
    """
    for name_of in NAMERS.values():
        name = guard.run("common.namer", lambda name_of=name_of: name_of(pool), None)  # type: ignore[misc]
        if name is not None:
            return str(name)
    return None


def existing(kinds: tuple[type, ...]) -> list[Any]:
    """
    All objects of these classes and those that inherit from them: one walk, 0.1 s for 700,000 objects.

    Only for an adapter that comes after its library was imported.
    """
    matching: dict[type, bool] = {}
    found: list[Any] = []
    for thing in gc.get_objects():
        kind = type(thing)
        verdict = matching.get(kind)
        if verdict is None:
            verdict = matching[kind] = any(base in kind.__mro__ for base in kinds)
        if verdict:
            found.append(thing)
    return found


def being_imported(module: Any) -> bool:  # noqa: ANN401
    """
    Whether a module is being imported now, so that no object of it exists yet.
    """
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def first_of(mappings: Iterable[Mapping[str, Any]], *keys: str) -> Any:  # noqa: ANN401
    """
    The first value that is set under one of the keys.
    """
    for mapping in mappings:
        for key in keys:
            if mapping.get(key):
                return mapping[key]
    return None


def _default_name(system: str, address: str | None, port: int | None, namespace: str | None) -> str:
    if address is None:
        return f"{system}/{namespace}" if namespace else system
    place = f"{address}:{port}" if port else address
    return f"{place}/{namespace}" if namespace else place
