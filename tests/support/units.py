"""Queries without a database, and what they became per unit of work."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope import semconv
from poolscope.core.pool_registry import open_pool_registries
from tests.support.pools import Source, identity

if TYPE_CHECKING:
    from collections.abc import Mapping

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.support.telemetry import Collected


class Queries:
    """A pool of the core's own, in the open pool registry; calling it runs statements on one connection of it."""

    def __init__(self, name: str = "shop") -> None:
        self.pool = open_pool_registries[-1].register(identity(name), Source(8))

    def __call__(self, number: int, statement: str | None = None) -> None:
        """
        Check a connection out, run statements and return it.

        Args:
            number: How many; all of different shapes unless one is given.
            statement: The one to repeat.
        """
        lease = self.pool.checkout()
        lease.acquired()
        for place in range(number):
            lease.statement_begins(statement or f"select * from table_{place}")
            lease.call_ends(in_transaction=False)
        lease.released()


def queries_by_unit(collected: Collected) -> dict[str, tuple[int, float]]:
    """How many units of work there were and how many queries they ran, by kind and name; of the one pool there is."""
    found = {}
    for point in collected.points(semconv.UNIT_QUERIES):
        attributes = point.attributes
        found[f"{attributes[semconv.UNIT_OF_WORK_KIND]} {attributes[semconv.UNIT_OF_WORK_NAME]}"] = (
            point.count,
            point.sum,
        )
    return found


def figures(span: ReadableSpan) -> Mapping[str, object]:
    """What poolscope put on a span."""
    return {key: value for key, value in (span.attributes or {}).items() if key.startswith("poolscope.")}
