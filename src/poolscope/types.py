"""Types that every package shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from typing_extensions import override
else:
    _Method = TypeVar("_Method")

    def override(method: _Method) -> _Method:
        """Mark a method that takes the place of a base class's and is documented there; mypy checks that it does."""
        return method


#: An object of a library that poolscope hooks, or of the application. The libraries are optional and come in many
#: versions; few have types.
LibraryObject: TypeAlias = Any

__all__ = ["LibraryObject", "override"]
