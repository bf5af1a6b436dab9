"""
Poolscope tells engineers why their Python service runs out of database connections, before users notice.

Importing it is cheap: no pool library and no OpenTelemetry SDK is loaded before `instrument()` is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from poolscope.api import expected_long_hold, expected_repetition, pool_name, unit_of_work
    from poolscope.types import LibraryObject

__version__: Final = "0.1.0"

__all__ = ["__version__", "expected_long_hold", "expected_repetition", "pool_name", "unit_of_work"]


def __getattr__(name: str) -> LibraryObject:
    if name in __all__:
        from poolscope import api  # noqa: PLC0415 - only where it is used

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
