"""
Hook points that only psycopg_pool has: connects in the background, checks at handovers, and a version that closes its
connections by their own ``close``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.marks import CONNECTION_KEY
from poolscope.adapters.points import Close, Connect, Validation
from poolscope.adapters.points.cold import waiting
from poolscope.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType, ModuleType

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before, Function
    from poolscope.types import LibraryObject

    Arguments = tuple[Any, ...]


def _why_put_away(frame: FrameType) -> str:
    return "disposed" if frame.f_locals["self"]._closed else "not_pooled"


#: The function of the library that closes a connection -> why.
REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "_maybe_close_connection": _why_put_away,
    "_add_to_pool": _why_put_away,
    "_return_connection": "recycled",
    "check": "recycled",
    "drain": "recycled",
    "_shrink_pool": "idle",
    "_reset_connection": "reset_failed",
    "close": "disposed",
    "_stop_workers": "disposed",
}


class BackgroundConnect(Connect):
    """
    A connection is made: by a worker of the pool, in advance or because callers wait, or in a
    checkout of a null pool.
    """

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        before, after = super().hooks(adapter)

        def after_timed(state: LibraryObject, connection: LibraryObject, error: BaseException | None) -> None:
            after(state, connection, error)
            library_pool, _, lease, began, _ = state
            pool = adapter.pool_of(library_pool)
            if error is None and lease is None and pool is not None:
                connection.__dict__[CONNECTION_KEY].connect = (began, pool.now())

        return before, after_timed


class Check(Validation):
    """
    A connection is about to be handed over, and is tried where the application gave the pool a check. Each checkout
    passes here.
    """

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        hooked = super().make(adapter, original)

        def _check_connection(self_: LibraryObject, /, *args: LibraryObject) -> LibraryObject:
            return original(self_, *args) if getattr(self_, "_check", None) is None else hooked(self_, *args)

        return _check_connection

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        before, after = super().hooks(adapter)

        def before_check(library_pool: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> LibraryObject:
            lease = waiting(adapter, library_pool)
            state = args[0].__dict__.get(CONNECTION_KEY)
            if lease is not None and state is not None:
                state.was_made_for(lease)
            return before(library_pool, args, kwargs)

        return before_check, after


class DirectClose(Close):
    """A pool closes a connection by the connection's own method: 3.2.0 has none of the pool's for that."""

    @override
    def find(self, module: ModuleType) -> tuple[LibraryObject, str] | None:
        return None if hasattr(module.ConnectionPool, "_close_connection") else super().find(module)

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        close, after = super().hooks(adapter)

        def before(connection: LibraryObject, args: Arguments, kwargs: dict[str, Any]) -> None:
            is_ours = CONNECTION_KEY in connection.__dict__
            if is_ours and self.reason(adapter.library_modules) != self.other:  # else the application closes it
                close(connection, args, kwargs)

        return before, after
