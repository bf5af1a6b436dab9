"""
A pool for each request: pools of one server, database and login are made again and again at one line.

What is made a bounded number of times is not that: at import, once for each thread that lives on, for each tenant that
has a login or database of its own.
"""

from __future__ import annotations

from collections import Counter, deque
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.pools import POOL_PER_REQUEST
from poolscope.core.finding import Finding, UnitLabel
from poolscope.core.origin import stack_of
from poolscope.detectors.detector import Detector, Made, Occurrence
from poolscope.detectors.diagnosis.describe import lines_of, place_of, seconds

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence

    from poolscope.core.making import Making
    from poolscope.detectors.detector import Context

# Seconds that makings are remembered for, and how many: of one line, and lines.
_REMEMBERED: Final = 600.0
_MOST_MAKINGS: Final = 100
_MOST_LINES: Final = 100
# In so many units of work a pool is made at the line before it is a finding; or, where they are not known, so many
# pools are open at once.
_UNITS: Final = 5
_OPEN: Final = 10
# A test's fixture makes a pool for each test.
_TESTS: Final = "test"
# A database that is a file has no server whose connections could run out.
_FILES: Final = frozenset({"sqlite"})


class PoolPerRequestDetector(Detector[Made, "Making"]):
    """Observes makings of pools."""

    kinds = (POOL_PER_REQUEST,)
    observes = Made

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._start()

    def _start(self) -> None:
        self._makings: dict[Hashable, deque[Making]] = {}
        self._known: set[Hashable] = set()

    def observe(self, event: Made) -> None:
        """A pool was made; where the line is known for that, its unit of work is marked at once."""
        making = event.making
        if not making.packed_stack or making.identity.system in _FILES:
            return
        if making.unit is not None and place_and_pool(making) in self._known:
            making.unit.findings.add(POOL_PER_REQUEST)
        self.keep(making)

    def diagnose(self, seen: Making) -> Iterator[Occurrence]:
        """One more pool of its line."""
        place = place_and_pool(seen)
        makings = self._makings.get(place)
        if makings is None:
            if len(self._makings) >= _MOST_LINES:
                self._start()
            makings = self._makings[place] = deque(maxlen=_MOST_MAKINGS)
        makings.append(seen)
        while makings[0].moment < seen.moment - _REMEMBERED:
            makings.popleft()
        again = made_again(makings)
        if is_unbounded(again):
            self._known.add(place)
            yield Occurrence((POOL_PER_REQUEST, place), lambda repeated: found(again, repeated))

    def forget(self) -> None:
        """In a child process after a fork: what was made is the parent's."""
        super().forget()
        self._start()


def place_and_pool(making: Making) -> Hashable:
    """What the pools have in common that are counted together: the line, the server, the database and the login."""
    what = making.identity
    return making.packed_stack[:2], what.system, what.address, what.port, what.namespace, making.login


def made_again(makings: Sequence[Making]) -> list[Making]:
    """
    Those that may be made without end: not the first of a thread that lives on, where nothing but the thread made it.

    Args:
        makings: Those of one line, in order.
    """
    first: set[int] = set()
    again = []
    for making in makings:
        thread = making.thread
        if making.task is None and id(thread) not in first and thread() is not None:
            first.add(id(thread))
        else:
            again.append(making)
    return again


def is_unbounded(makings: Sequence[Making]) -> bool:
    """Whether so many were made at one line, each in another unit of work or with the ones before still open."""
    units = {id(one.unit) for one in makings if one.unit is not None and one.unit.kind != _TESTS}
    return len(units) >= _UNITS or (len(makings) >= _OPEN and sum(one.source.alive() for one in makings) >= _OPEN)


def found(makings: Sequence[Making], repeated: int) -> Finding:
    """
    Put it in words.

    Args:
        makings: What was made again at one line, in order.
        repeated: How many more there were since the last report.
    """
    last = makings[-1]
    kind, stack = KINDS[POOL_PER_REQUEST], stack_of(last.packed_stack)
    span = last.moment - makings[0].moment
    units = {id(one.unit): one.unit for one in makings if one.unit is not None}
    names = Counter(UnitLabel(unit.kind, unit.name) for unit in units.values())
    usual = names.most_common(1)[0][0] if names else None
    still_open = sum(one.source.alive() for one in makings)
    connections = sum(one.connections() for one in makings)
    within = ""
    if usual is not None:
        more = f" and {len(names) - 1} other names" if len(names) > 1 else ""
        within = f", in {len(units)} units of work ({usual}{more})"
    return Finding(
        kind,
        kind.severity,
        f"{len(makings)} pools of one server and database ({last.identity.name}) were made at {place_of(stack)} within "
        f"{seconds(span)}{within}; {still_open} of them are still open, with {connections} connections",
        kind.fix,
        pool=last.identity,
        evidence={
            "pools_made": len(makings),
            "pools_open": still_open,
            "connections_open": connections,
            "units_of_work": len(units),
            "seconds": span,
            "making_stack": lines_of(stack),
            "repeated": repeated,
        },
        unit=usual,
        origin=stack[0],
    )
