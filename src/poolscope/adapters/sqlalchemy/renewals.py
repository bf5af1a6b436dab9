"""
Why SQLAlchemy closes a connection, and what becomes of a pool that is disposed of.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from poolscope.adapters.marks import KEY
from poolscope.adapters.points.brackets import library_frames
from poolscope.adapters.points.cold import ColdPoint
from poolscope.core.types import override

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import After, Before
    from poolscope.core.lease import Lease
    from poolscope.core.types import LibraryObject


class Dispose(ColdPoint):
    """
    An engine disposes of its pool and puts a new one in its place.
    """

    @override
    def hooks(self, adapter: PointAdapter) -> tuple[Before, After]:
        disposed: Callable[..., None] = adapter.disposed  # type: ignore[attr-defined]

        def after(state: tuple[Any, Any], _: LibraryObject, __: BaseException | None) -> None:
            engine, before = state
            if engine.pool is not before:
                disposed(before, engine)

        return lambda engine, _, __: (engine, engine.pool), after


def _why_replaced(frame: FrameType) -> str:
    record = frame.f_locals["self"]
    longest = record._ConnectionRecord__pool._recycle
    return "recycled" if longest > -1 and time.time() - record.starttime > longest else "invalidated"


def _why_invalidated(frame: FrameType) -> str:
    lease: Lease | None = frame.f_locals["self"].__dict__.get(KEY)
    if lease is not None and lease.started_at is None:
        return "failed_validation"
    caller = next(library_frames(("sqlalchemy",), frame), None)
    return "reset_failed" if caller is not None and caller.f_code.co_name == "_finalize_fairy" else "invalidated"


def _why_returned(frame: FrameType) -> str:
    return "overflow" if hasattr(frame.f_locals["self"], "_overflow") else "not_pooled"


#: The library passes no reason along: it is told by who called.
REASONS: Final[dict[str, str | Callable[[FrameType], str]]] = {
    "get_connection": _why_replaced,
    "invalidate": _why_invalidated,
    "_do_return_conn": _why_returned,
    "_cleanup": "closed",
    "dispose": "disposed",
}
