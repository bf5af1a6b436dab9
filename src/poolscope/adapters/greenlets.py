"""
Greenlets, as SQLAlchemy's asyncio runs its synchronous code in: their frames end where they began, and the coroutine
that waits for one stands in its parent.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

    from poolscope.types import LibraryObject


class Greenlets:
    """`Switches` between greenlets. The library is not imported for them."""

    def outwards(self, stack: LibraryObject) -> tuple[LibraryObject, FrameType | None]:
        """The parent of a greenlet, or of the running one, and the frame at which it waits."""
        if stack is None:
            module = sys.modules.get("greenlet")
            if module is None:
                return None, None
            stack = module.getcurrent()
        parent = stack.parent
        return parent, parent.gr_frame if parent is not None else None

    def inwards(self, frame: FrameType) -> FrameType | None:
        """
        Where the code is that ``greenlet_spawn`` (sqlalchemy/util/concurrency.py) runs: where it last asked for
        something to be awaited.
        """
        if frame.f_code.co_name != "greenlet_spawn":
            return None
        inner: FrameType | None = getattr(frame.f_locals.get("context"), "gr_frame", None)
        return inner
