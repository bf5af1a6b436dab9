"""
What an adapter is: one pool library, its hooks and what they can tell.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Protocol

from poolscope.hooks.registry import Hook

if TYPE_CHECKING:
    from collections.abc import Iterator


class Capability(Flag):
    """
    What an adapter can measure; the contract tests leave out what is not declared.
    """

    WAIT = auto()
    WAIT_PHASES = auto()
    USE = auto()
    USE_PHASES = auto()
    LIMIT = auto()
    IDLE = auto()
    CREATE = auto()
    CLOSE = auto()
    TIMEOUT = auto()
    DRIFT = auto()
    ABANDONED = auto()


class PoolAdapter(Hook, Protocol):
    """
    Hooks one pool library.

    Beyond the contract of `Hook`: from the moment it is hooked, each ask of the library's pools becomes exactly one
    `Lease` of a pool that the adapter registered.
    """

    #: Versions it is tested with, in the form of a version specifier.
    versions: str
    #: What it can measure.
    capabilities: Capability


class Adapters(Protocol):
    """
    A collection of adapters.
    """

    def __iter__(self) -> Iterator[PoolAdapter]:
        """
        Each adapter.
        """
