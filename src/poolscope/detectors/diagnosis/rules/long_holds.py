"""Leases that are held for long: by what they spend the time on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue.holds import IDLE_IN_TRANSACTION, LONG_HOLD
from poolscope.detectors.diagnosis.describe import place_of, seconds, slowest_of, statement_of
from poolscope.detectors.diagnosis.rules.rule import Explained, names_of
from poolscope.detectors.long_hold import phase_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.detectors.diagnosis.picture import Held, Picture

# Characters of a statement.
_LONGEST: Final = 200
_WORDS: Final = {
    "query": "running queries",
    "idle_in_transaction": "idle in a transaction",
    "idle": "without a query or a transaction",
}


def long_holds(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """Leases that are held for as long as the threshold of long holds, in groups by what takes the time."""
    groups: dict[str, list[Held]] = {}
    for held in leases:
        if held.acquired and not held.lease.adopted and held.seconds >= picture.pool.long_hold:
            groups.setdefault(phase_of(held.phases), []).append(held)
    for phase, group in groups.items():
        yield held_long(picture, phase, group)


def held_long(picture: Picture, phase: str, group: Sequence[Held]) -> Explained:
    """
    What a group of long holds amounts to.

    Args:
        picture: The pool at the moment.
        phase: What most of their time was for.
        group: The leases, the oldest first.
    """
    seconds_held = sum(held.seconds for held in group)
    spent = sum(held.phases[phase] for held in group) / seconds_held if seconds_held > 0 else 0.0
    oldest = group[0]
    summary = (
        f"held too long: {len(group)} of {picture.capacity} connections, for {seconds(oldest.seconds)} or less, "
        f"{spent:.0%} of the time {_WORDS[phase]}"
    )
    return Explained(
        IDLE_IN_TRANSACTION if phase == "idle_in_transaction" else LONG_HOLD,
        tuple(group),
        summary,
        (f"which {names_of(group)} holds, {_WORDS[phase]}", f"and which {_does(oldest, phase)}"),
        case="idle" if phase == "idle" else "",
        phase=phase,
    )


def _does(held: Held, phase: str) -> str:
    if phase != "query":
        return f"execute {place_of(held.stack)}"
    slowest, longest = slowest_of(held.lease)
    if held.phase == "query" and held.running_for >= longest:
        return f"run {statement_of(held.lease)[:_LONGEST]}"
    return f"ran {slowest[:_LONGEST]}"
