"""What is known of statements, by their text: computed once for each, as many as fit."""

from __future__ import annotations

from typing import Final, Generic, TypeVar

Key = TypeVar("Key")
Known = TypeVar("Known")

#: Characters of statements, and of what is known of them, that one memory has.
MOST: Final = 2_000_000


class Remembered(Generic[Key, Known]):
    """
    A memory of the whole process, which starts over when it is full. Any thread may read `known` at any time.

    Args:
        most: How much fits, in characters.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self.known: dict[Key, Known] = {}
        self.size = 0

    def add(self, key: Key, known: Known, size: int) -> None:
        """
        Remember what is known of a statement. Of two threads at once one may be counted too little, which does no harm.

        Args:
            key: Its text, which has a bound.
            known: What is known.
            size: How much both take, in characters.
        """
        if self.size > self._most:
            self.size = 0
            self.known.clear()
        self.size += size
        self.known[key] = known
