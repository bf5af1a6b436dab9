"""Locks that statements take, and which of them wait for one another."""

from __future__ import annotations

from enum import Enum
from typing import Final, NamedTuple


class Mode(Enum):
    """What a lock is of, and what it is for."""

    #: A table is read. That waits for a table's exclusive lock alone.
    READ = "reads"
    #: Rows are locked against changes.
    SHARED_ROWS = "shared row lock"
    #: Rows are changed, or locked for that.
    ROWS = "row lock"
    #: A row is added. That waits where its unique key is taken by a transaction that has not ended.
    NEW_ROWS = "unique key"
    #: A table is locked against changes, as while an index is made; several may do that.
    SHARED_TABLE = "shared table lock"
    #: A table is locked against changes, and against others that do that.
    CHANGES = "lock against changes"
    #: A table is locked against everything.
    TABLE = "table lock"
    #: A lock of the application's own, by a number or a name, until the transaction ends.
    ADVISORY = "advisory lock"
    #: The same until it is unlocked, or the connection is closed.
    SESSION = "session-level advisory lock"


class Lock(NamedTuple):
    """
    One lock.

    Args:
        mode: What it is.
        table: The parts of the table's name, the last one first; of an advisory lock, its arguments where they are
            literal.
        waits: Whether the statement waits until it gets the lock: not with NOWAIT or SKIP LOCKED.
    """

    mode: Mode
    table: tuple[str, ...]
    waits: bool = True

    @property
    def name(self) -> str:
        """The table as people write it; empty for an advisory lock."""
        return "" if self.mode in _ADVISORY else ".".join(reversed(self.table))

    @property
    def is_of_application(self) -> bool:
        """Whether it is of no table, but of a number or name of the application's own."""
        return self.mode in _ADVISORY

    def waits_for(self, other: Lock) -> bool:
        """Whether a statement that wants this lock waits for one that holds the other; of rows, whether it may."""
        return self.waits and other.mode in _CONFLICTS[self.mode] and _same(self, other)

    def excludes(self, other: Lock) -> bool:
        """Whether the two can never be held at once, whichever rows they are about."""
        return bool({self.mode, other.mode} & _WHOLE_TABLE) and other.mode in _CONFLICTS[self.mode]


_ADVISORY: Final = frozenset({Mode.ADVISORY, Mode.SESSION})
_WHOLE_TABLE: Final = frozenset({Mode.TABLE, Mode.SHARED_TABLE, Mode.CHANGES})
_WRITES: Final = frozenset({Mode.ROWS, Mode.NEW_ROWS})
# https://www.postgresql.org/docs/current/explicit-locking.html
_CONFLICTS: Final = {
    Mode.READ: frozenset({Mode.TABLE}),
    Mode.SHARED_ROWS: frozenset({Mode.ROWS, Mode.TABLE}),
    Mode.ROWS: frozenset({Mode.ROWS, Mode.SHARED_ROWS, *_WHOLE_TABLE}),
    Mode.NEW_ROWS: frozenset({Mode.NEW_ROWS, *_WHOLE_TABLE}),
    Mode.SHARED_TABLE: frozenset({*_WRITES, Mode.TABLE, Mode.CHANGES}),
    Mode.CHANGES: frozenset({*_WRITES, *_WHOLE_TABLE}),
    Mode.TABLE: frozenset(Mode).difference(_ADVISORY),
    Mode.ADVISORY: _ADVISORY,
    Mode.SESSION: _ADVISORY,
}


def _same(one: Lock, other: Lock) -> bool:
    # As far as both say: a schema that only one of them names may be the other's.
    if one.mode in _ADVISORY:
        return not one.table or not other.table or one.table == other.table
    length = min(len(one.table), len(other.table))
    return one.table[:length] == other.table[:length]
