"""
The rules, in order of precedence: each explains leases that none before it explains.

A rule follows the edges from the leases to what they wait for. A cycle is a deadlock; a lease that waits for nothing of
ours is a root, by what it does. What no rule explains is the usual load (`cause`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.detectors.diagnosis.rules.blocked_loop import blocked_loop, blocked_wait
from poolscope.detectors.diagnosis.rules.fan_out import fan_out
from poolscope.detectors.diagnosis.rules.foreign import foreign
from poolscope.detectors.diagnosis.rules.leaks import leaks, left_over
from poolscope.detectors.diagnosis.rules.listeners import listeners
from poolscope.detectors.diagnosis.rules.locks import lock_waits
from poolscope.detectors.diagnosis.rules.long_holds import long_holds
from poolscope.detectors.diagnosis.rules.nested import nested
from poolscope.detectors.diagnosis.rules.refusals import refusals
from poolscope.detectors.diagnosis.rules.starvation import starvation
from poolscope.detectors.diagnosis.rules.validation import validation

if TYPE_CHECKING:
    from poolscope.detectors.diagnosis.picture import Held, Picture
    from poolscope.detectors.diagnosis.rules.rule import Explained, Rule

RULES: Final[tuple[Rule, ...]] = (
    foreign,
    leaks,
    listeners,
    lock_waits,
    nested,
    blocked_loop,
    validation,
    starvation,
    fan_out,
    left_over,
    long_holds,
    blocked_wait,
    refusals,
)


def explain(picture: Picture) -> tuple[list[Explained], list[Held]]:
    """
    Apply the rules.

    Args:
        picture: The pool at the moment.

    Returns:
        What they explain, and the leases that none explains.
    """
    rest: list[Held] = list(picture.held)
    explained: list[Explained] = []
    for rule in RULES:
        for one in rule(picture, tuple(rest)):
            explained.append(one)
            taken = {held.lease for held in one.held}
            rest = [held for held in rest if held.lease not in taken]
    return explained, rest
