"""
anyio, by whose tasks and threads Starlette and FastAPI work.

Nothing of it is hooked. It keeps the scope that each task was started in, whose host is the task that waits for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from poolscope.core.libraries import Group, Job, Waits

if TYPE_CHECKING:
    from poolscope.types import LibraryObject

_BACKEND: Final = "anyio._backends._asyncio"
_FILE: Final = "/anyio/_backends/_asyncio.py"
# Scopes within one another that are looked through.
_DEEPEST: Final = 50


def group_of(task: LibraryObject) -> Group | None:
    """The group of a task; None for one that anyio did not start."""
    state = getattr(sys.modules.get(_BACKEND), "_task_states", {}).get(task)
    if state is None or state.parent_id is None:
        return None
    scope = state.cancel_scope
    for _ in range(_DEEPEST):
        if scope is None:
            return None
        host = scope._host_task  # noqa: SLF001 - nothing else says it
        if host is not None and id(host) == state.parent_id:
            return Group(host, _end_of(task))
        scope = scope._parent_scope  # noqa: SLF001
    return None


def _end_of(task: LibraryObject) -> LibraryObject:
    # The group is what its task calls when that is done. Before anyio 4.9 a group waits by `asyncio.wait`.
    for callback, _ in getattr(task, "_callbacks", None) or ():
        if getattr(callback, "__module__", "") == _BACKEND:
            names = callback.__code__.co_freevars
            if "self" in names:
                group = callback.__closure__[names.index("self")].cell_contents
                return getattr(group, "_on_completed_fut", None)
    return None


#: How tasks and threads wait for one another by anyio's means.
ANYIO: Final = Waits(
    group_of=group_of,
    jobs=(Job(_FILE, "run", ("future",)),),
    submitters=((_FILE, "run_sync_in_worker_thread", "future"),),
    exchanges=("/anyio/streams/memory.py",),
    events=(_FILE, "/anyio/_core/_synchronization.py"),
    pauses=("/anyio/lowlevel.py",),
)
