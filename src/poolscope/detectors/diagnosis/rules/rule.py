"""What a rule is: it explains leases by what they wait for, in a picture of their pool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolscope.core.origin import RawStack
    from poolscope.detectors.diagnosis.picture import Held, Picture


@dataclass(frozen=True)
class Explained:
    """
    Why some connections of a pool do not come back, by one root.

    Args:
        cause: The cause: a finding's id.
        held: The leases that it explains, the oldest first; empty where it explains the pool as a whole.
        summary: The cause in words, with its figures: half a sentence.
        chain: How it goes on behind the leases, step by step to the root: "which wait for a worker thread", "all 10 run
            current_user, which waits for shop".
        root: What the root executes, raw; what the holder of its oldest lease does when not given.
        case: Which of the fixes of the kind is the right one (`FindingKind.fix_for`).
        count: How many connections it explains, where they are not leases: slots that the pool has lost.
        whole: Whether it explains the pool as a whole, whatever its leases do: no connection can be made in it.
        phase: Of long holds, what most of their time was for: one of `HOLD_PHASES`.
    """

    cause: str
    held: tuple[Held, ...]
    summary: str
    chain: tuple[str, ...] = ()
    root: RawStack = ()
    case: str = ""
    count: int = 0
    whole: bool = False
    phase: str = ""

    @property
    def connections(self) -> int:
        """How many connections it explains."""
        return len(self.held) + self.count

    @property
    def stands_at(self) -> RawStack:
        """What the root executes, raw."""
        return self.root or next((held.stack for held in self.held if held.stack), ())


#: Explains leases of a picture: of the picture, and of the leases that no rule before explained. It runs in the
#: background, and only reads.
Rule = Callable[["Picture", "Sequence[Held]"], "Iterable[Explained]"]


def names_of(held: Iterable[Held], most: int = 2) -> str:
    """
    Whose leases these are: the names of the units of work, the most frequent first, with how many more there are.

    Args:
        held: The leases.
        most: How many names are given.
    """
    counted = Counter(str(one.lease.unit) if one.lease.unit is not None else "" for one in held)
    named = [name for name, _ in counted.most_common() if name]
    if not named:
        return "code outside of any unit of work"
    more = len(named) - most
    return ", ".join(named[:most]) + (f" and {more} more" if more > 0 else "")
