"""What a detector is: it observes on the hot path, and diagnoses in the background."""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Generic, NamedTuple, TypeVar

from poolscope.core.guard import guard

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable
    from contextlib import AbstractContextManager

    from poolscope.config import Settings
    from poolscope.core.clock import Clock
    from poolscope.core.event_loops import EventLoops
    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.making import Making
    from poolscope.core.pool import Pool
    from poolscope.core.work import UnitOfWork

# What one detector keeps for the background thread; beyond that the newest are dropped and counted as an error of ours.
_MOST_KEPT: Final = 2_000


class Waited(NamedTuple):
    """
    A checkout waited for longer than the threshold of slow waits, or failed (then `lease.outcome` is set).

    Args:
        lease: The checkout.
        holders: The leases that were held when it began, if the pool was full then; else none.
    """

    lease: Lease
    holders: Collection[Lease]


class Nested(NamedTuple):
    """
    A unit of work checks out while it holds a connection of the same pool; once for each unit and pool.

    Args:
        lease: The second checkout.
        held: The lease that it has held longest.
    """

    lease: Lease
    held: Lease


class Released(NamedTuple):
    """
    A lease ended abandoned, or after a long hold, or after it was reported as leaked, or after it took or released
    a lock of the whole connection.
    """

    lease: Lease


class Made(NamedTuple):
    """The application made a pool."""

    making: Making


class Suspected(NamedTuple):
    """A checkout failed, or got a connection of a pool that may belong to another process or event loop."""

    lease: Lease


class WorkEnded(NamedTuple):
    """A unit of work ends."""

    unit: UnitOfWork


Event = TypeVar("Event", Waited, Nested, Released, Made, Suspected, WorkEnded)
Seen = TypeVar("Seen")


@dataclass(frozen=True)
class Occurrence:
    """
    Something that was found once more. What happens at one place within the interval is one finding.

    Args:
        place: What makes two occurrences the same finding. None for one that is reported in any case and represents no
            other, as the end of an earlier finding.
        describe: Puts it in words, from how many of the place were only counted since the last report; not called for
            one that is only counted. None where it is to be counted in any case.
        critical: Whether it is critical; that is reported at once where the last one was not.
        at_once: Whether it is reported however recent the last one is: the detector itself limits how often.
    """

    place: Hashable | None
    describe: Callable[[int], Finding] | None
    critical: bool = False
    at_once: bool = False


@dataclass(frozen=True)
class Context:
    """
    What every detector is made from.

    Args:
        settings: Thresholds and intervals.
        now: The clock of the pools.
        on_leak: Called in the background with each lease that is found leaked while it is checked out.
        event_loops: The event loops that pools are used in; None where nothing is known of any.
        unobserved: A context in which other instrumentation sees nothing of what poolscope itself does.
        pools: Returns every pool of the process.
    """

    settings: Settings
    now: Clock
    on_leak: Callable[[Lease], None]
    event_loops: EventLoops | None = None
    unobserved: Callable[[], AbstractContextManager[object]] = nullcontext
    pools: Callable[[], Iterable[Pool]] = tuple


class Detector(Generic[Event, Seen]):
    """
    Finds one kind of cause: from an event of core (`observe`, then `diagnose`), or by looking at the pools (`look`).

    Args:
        context: What it needs of its surroundings; its thresholds are its own.
    """

    #: The ids of the findings that it may report (`poolscope.core.catalogue.KINDS`).
    kinds: ClassVar[tuple[str, ...]]
    #: The event that it observes; None for one that only looks.
    observes: type[Event] | None = None

    def __init__(self, context: Context) -> None:  # noqa: ARG002 - each detector takes from it what it needs
        #: What was observed and not yet diagnosed. Threads append, and one thread pops: each is one atomic operation.
        self.observations: deque[Seen] = deque()

    def observe(self, event: Event) -> None:
        """
        An event happened.

        Called in the application's threads, possibly inside a garbage collection: it decides whether the event matters,
        marks the unit of work, and calls `keep`. It must not block, log, allocate much, call an SDK or take a lock.
        """

    def diagnose(self, seen: Seen) -> Iterable[Occurrence]:  # noqa: ARG002 - a detector has this or `look`
        """What one observation amounts to. Called in the background thread, where formatting is allowed."""
        return ()

    def again(self, last: bool) -> Iterable[Occurrence]:  # noqa: ARG002 - passed on by position
        """
        What was not clear when it was observed, and is now. Called at each run of the background thread.

        Args:
            last: Whether it is the last run: what is still unclear is reported as it is.
        """
        return ()

    def look(self, pool: Pool) -> Iterable[Occurrence]:  # noqa: ARG002 - a detector has this or `diagnose`
        """What is wrong with a pool now. Called in the background thread, about once a second for each pool."""
        return ()

    def glance(self, pools: Collection[Pool]) -> Iterable[Occurrence]:  # noqa: ARG002 - few detectors need it
        """
        What can only be seen while it lasts. Called in the background thread at each of its runs, five times a second,
        before anything is diagnosed: it must be all but free where there is nothing to see.
        """
        return ()

    def mark(self, unit: UnitOfWork) -> None:
        """
        Add the ids of what is already certain about a unit of work that still runs to its `findings`.

        Called in the application's threads when the span around the unit ends, which may be before the unit does.
        """

    def forget(self) -> None:
        """In a child process after a fork: what was observed is the parent's to report."""
        self.observations.clear()

    def keep(self, seen: Seen) -> None:
        """Keep an observation for `diagnose`. Two threads at once may exceed the bound by one, which does no harm."""
        if len(self.observations) < _MOST_KEPT:
            self.observations.append(seen)
        else:
            guard.count("watchdog.dropped")


def place_of_lease(kind: str, lease: Lease) -> Hashable:
    """What makes two occurrences the same finding: its id, the pool, the unit of work by name, and the line."""
    return (kind, lease.pool.identity.name, str(lease.unit), lease.origin[:1])


def mark(lease: Lease, kind: str) -> None:
    """Add an id to the findings of a lease's unit of work, if it belongs to one. Safe on the hot path."""
    if lease.unit is not None:
        lease.unit.findings.add(kind)
