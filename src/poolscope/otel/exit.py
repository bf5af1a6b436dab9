"""The end of a process in which the background thread is stuck in an exporter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.log_lines import let_go

if TYPE_CHECKING:
    from collections.abc import Sequence

    from poolscope.types import LibraryObject

# Where an SDK's provider has its processors.
_COMPOSITES: Final = (
    ("_active_span_processor", "_span_processors"),
    ("_multi_log_record_processor", "_log_record_processors"),
)


def unblock(stuck: Sequence[object], *providers: LibraryObject) -> None:
    """
    Leave out what an exit would wait for: log handlers, and processors.

    A provider shuts its processors down when the process ends. One that has a lock while it exports a span of ours
    would wait until that is done, so it is taken out. What it exports for the application is not lost by that: such a
    processor has exported it by the time that its span ends.

    Args:
        stuck: The objects whose methods the thread executes, innermost first.
        providers: The TracerProvider and the LoggerProvider.
    """
    guard.run("exit.log", lambda: let_go(stuck), None)
    for provider in providers:
        guard.run("exit.processors", lambda: _take_out(provider, stuck), None)  # noqa: B023 - run at once


def _take_out(provider: LibraryObject, stuck: Sequence[object]) -> None:
    for composite_name, name in _COMPOSITES:
        composite: Any = getattr(getattr(provider, "_real_provider", None) or provider, composite_name, None)
        processors = getattr(composite, name, ())
        for processor in processors:
            depth = next((depth for depth, one in enumerate(stuck) if one is processor), None)
            if depth is not None and any(map(_has_held_lock, stuck[: depth + 1])):
                setattr(composite, name, tuple(one for one in getattr(composite, name) if one is not processor))


def _has_held_lock(thing: object) -> bool:
    for value in tuple(getattr(thing, "__dict__", {}).values()):
        acquire = getattr(value, "acquire", None)
        if callable(acquire) and hasattr(value, "release") and type(value).__module__ in _LOCKS:
            if not acquire(blocking=False):
                return True
            value.release()
    return False


# Of a semaphore or a condition it is not known what they stand for.
_LOCKS: Final = frozenset({"_thread"})
