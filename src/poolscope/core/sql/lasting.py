"""
What a statement leaves on its connection for longer than its transaction: locks of the whole connection, and
subscriptions to notifications.

Both are rare. A statement's text is looked at once; after that, the hot path finds what it is in one dict.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from poolscope.core.sql.fingerprint import LONGEST, is_query, shape_of
from poolscope.core.sql.remembered import Remembered

# Without one of these words in its text, a statement leaves nothing. That costs a tenth of a pattern.
_OF_LOCKS: Final = ("advisory_", "get_lock", "release_")
_OF_CONTROL: Final = ("listen", "discard")
_OF_REPLICATION: Final = "start_replication"

# By shapes, which have no literals, no comments and no capitals.
_LOCK: Final = re.compile(r"(?<![\w.])pg_advisory_lock(?:_shared)? ?\(")
_TRY: Final = re.compile(r"(?<![\w.])(?:pg_try_advisory_lock(?:_shared)?|get_lock) ?\(")
_UNLOCK: Final = re.compile(r"(?<![\w.])(?:pg_advisory_unlock(?:_shared)?|release_lock) ?\(")
_UNLOCK_ALL: Final = re.compile(r"(?<![\w.])(?:pg_advisory_unlock_all|release_all_locks) ?\(|(?:^|; ?)discard all\b")
_LISTEN: Final = re.compile(r"(?:^|; ?)(?:listen|start_replication)\b")
_UNLISTEN: Final = re.compile(r"(?:^|; ?)unlisten (?!\*)")
_UNLISTEN_ALL: Final = re.compile(r"(?:^|; ?)(?:unlisten \*|discard all\b)")
# Where a table or a condition decides how often a function is called, it may not be called at all, or for each of many
# rows: then a lock may have been had, and all may have been released.
_CALLS_ONCE: Final = re.compile(r"(?:select|do) ")
_DEPENDS: Final = re.compile(r"\b(?:from|where|case|limit|and|or|values)\b")


class Lasting(NamedTuple):
    """
    What one run of a statement changes of what its connection keeps.

    Args:
        query: Whether it is a query besides.
        locks: How many locks it takes; when it ends well, it has them.
        tries: How many more it may take.
        unlocks: How many it releases.
        unlocks_all: Whether it releases all there are, or may.
        listens: How many channels it subscribes to.
        unlistens: How many it unsubscribes from.
        unlistens_all: Whether it unsubscribes from all there are.
    """

    query: bool
    locks: int = 0
    tries: int = 0
    unlocks: int = 0
    unlocks_all: bool = False
    listens: int = 0
    unlistens: int = 0
    unlistens_all: bool = False


_remembered: Final = Remembered[str, bool | Lasting]()
#: What a statement is, by its text: a query (True), none (False), or what it leaves. `kind_of` adds to it.
KIND_OF_STATEMENT: Final = _remembered.known


def kind_of(statement: str) -> bool | Lasting:
    """
    Find out what a statement is, and remember that. Cold.

    Args:
        statement: SQL, as it was sent.

    Returns:
        Whether it is a query; or what it leaves on its connection.
    """
    query = is_query(statement)
    text = statement[:LONGEST].lower()
    kind: bool | Lasting = query
    if _OF_LOCKS[0] in text or _OF_LOCKS[1] in text or _OF_LOCKS[2] in text or _may_listen(text, query=query):
        kind = lasting_of(statement) or query
    if len(statement) <= LONGEST:
        _remembered.add(statement, kind, len(statement))
    return kind


def _may_listen(text: str, *, query: bool) -> bool:
    if query:
        return text.lstrip().startswith(_OF_REPLICATION)
    return any(word in text for word in _OF_CONTROL)


def lasting_of(statement: str) -> Lasting | None:
    """What a statement leaves on its connection; None for one that changes nothing of that."""
    shape = shape_of(statement)
    locks, tries, unlocks = (len(call.findall(shape)) for call in (_LOCK, _TRY, _UNLOCK))
    unlocks_all = _UNLOCK_ALL.search(shape) is not None
    if not _CALLS_ONCE.match(shape) or _DEPENDS.search(shape):
        locks, tries = 0, tries + locks
        unlocks, unlocks_all = 0, unlocks_all or bool(unlocks)
    found = Lasting(
        is_query(statement) and not shape.startswith(_OF_REPLICATION),
        locks,
        tries,
        unlocks,
        unlocks_all,
        len(_LISTEN.findall(shape)),
        len(_UNLISTEN.findall(shape)),
        _UNLISTEN_ALL.search(shape) is not None,
    )
    return found if any(found[1:]) else None


class Kept:
    """
    What the statements of one lease have left on its connection so far.

    A lock that was tried for may have been refused: the answer is the application's, and is not looked at.
    """

    __slots__ = ("channels", "listened", "listens_since", "locks", "statement", "strange_unlocks", "tries")

    def __init__(self) -> None:
        #: Locks that it holds for certain, and further ones that it may hold.
        self.locks = 0
        self.tries = 0
        #: The last statement that took one, or may have.
        self.statement: str | None = None
        #: Locks it released that no statement of this lease can have taken.
        self.strange_unlocks = 0
        #: Channels that it is subscribed to, and seconds that it was to any before.
        self.channels = 0
        self.listened = 0.0
        self.listens_since = 0.0

    def ran(self, statement: str, change: Lasting, now: float) -> None:
        """
        A statement ended well.

        Args:
            statement: SQL.
            change: What it changes.
            now: Seconds of the clock.
        """
        if change.unlocks_all:
            self.locks = self.tries = 0
        if change.locks or change.tries:
            self.statement = statement
        self.locks += change.locks
        self.tries += change.tries
        for _ in range(change.unlocks):
            if self.tries:
                self.tries -= 1
            elif self.locks:
                self.locks -= 1
            else:
                self.strange_unlocks += 1
        self.listened = self.listening(now)
        self.listens_since = now
        if change.unlistens_all:
            self.channels = 0
        self.channels = max(0, self.channels + change.listens - change.unlistens)

    @property
    def may_lock(self) -> bool:
        """Whether it holds locks of the connection, or may."""
        return bool(self.locks or self.tries)

    def listening(self, now: float) -> float:
        """Seconds that it was subscribed to a channel, up to a moment of the clock."""
        return self.listened + (max(0.0, now - self.listens_since) if self.channels else 0.0)
