"""The hook point where a library takes a URL apart, before it makes a pool of the parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.adapters.address import TORN, is_torn
from poolscope.adapters.base import Point
from poolscope.core.guard import guard
from poolscope.types import override

if TYPE_CHECKING:
    from poolscope.adapters.base import PointAdapter
    from poolscope.adapters.points.brackets import Function
    from poolscope.types import LibraryObject


class Parsed(Point):
    """A library takes a URL apart: a function of a module. If the URL is torn, what it seems to name is remembered."""

    @override
    def make(self, adapter: PointAdapter, original: Function) -> Function:
        component = f"{adapter.name}.url"

        def parse(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
            result = original(*args, **kwargs)
            if args and adapter.pool_registry is not None:  # else it was released
                guard.run(component, lambda: self._look(args[0], result), None)
            return result

        return parse

    def parts(self, result: LibraryObject) -> tuple[object, ...]:
        """The address, the port and the database among what the function returned."""
        raise NotImplementedError

    def _look(self, url: LibraryObject, result: LibraryObject) -> None:
        # The text, or the parts that `urllib.parse` made of it.
        if is_torn(url if isinstance(url, str) else url.geturl()):
            TORN.add(*self.parts(result))
