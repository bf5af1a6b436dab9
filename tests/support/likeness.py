"""What is like a lease, a pool or a task, as far as a test reads it."""

from __future__ import annotations

from typing import Any


class Like:
    """
    An object with these attributes and nothing else; no two are equal.

    Args:
        attributes: Its attributes.
    """

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)
