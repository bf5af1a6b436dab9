"""Marks of ours that are on objects of this process."""

from __future__ import annotations

import gc
from types import ModuleType

#: What our marks on a library's objects start with.
MARK = "_poolscope"


def marks() -> list[str]:
    """Marks of ours on any object of this process, by the kind of object; a dict that tests hold does not count."""
    return [
        type(thing).__qualname__
        for thing in gc.get_objects()
        if not isinstance(thing, (ModuleType, type))
        and any(type(key) is str and key.startswith(MARK) for key in _attributes_of(thing))
    ]


def _attributes_of(thing: object) -> list[object]:
    # Not by way of gc: from Python 3.13 on an object's dict may not be there until it is read.
    try:
        return list(object.__getattribute__(thing, "__dict__"))
    except (AttributeError, TypeError):
        return []
