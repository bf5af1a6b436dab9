"""Pools and connections of another process or event loop: they make no connections here, or share sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL, OF_CONNECTIONS
from poolscope.detectors.diagnosis.rules.rule import Explained

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from poolscope.core.pool_identity import Foreign
    from poolscope.detectors.diagnosis.picture import Held, Picture


def foreign(picture: Picture, leases: Sequence[Held]) -> Iterable[Explained]:
    """A pool that may open more connections and can make none here; and leases of connections that others use too."""
    found = picture.foreign
    if found is None:
        return
    if not found.is_pool:
        theirs = tuple(held for held in leases if held.lease in found.leases)
        if theirs:
            yield Explained(kind_of(found), theirs, words_of(found), (words_of(found),), case=fix_of(found))
    elif picture.limit is None or picture.used < picture.limit:
        yield Explained(kind_of(found), (), words_of(found), (words_of(found),), case=fix_of(found), whole=True)


def kind_of(found: Foreign) -> str:
    """The id of the finding."""
    return FORKED_POOL if found.case == "process" else FOREIGN_EVENT_LOOP


def fix_of(found: Foreign) -> str:
    """The case of which its fix is."""
    return "" if found.is_pool else OF_CONNECTIONS


def words_of(found: Foreign) -> str:
    """
    Half a sentence about the pool.

    Args:
        found: How it belongs elsewhere.
    """
    if found.case == "process":
        if found.is_pool:
            return (
                "the pool was opened in another process, before the fork: its workers do not run in this one, and it "
                "makes no connections"
            )
        return "its connections were opened in another process, before the fork: two processes use one socket"
    loop = "an event loop that is closed" if found.is_closed else "another event loop"
    if found.is_pool:
        return f"the pool was opened in {loop}, which does not resume who waits here"
    return f"its connections were made in {loop}, which does not resume who waits here"
