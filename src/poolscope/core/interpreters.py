"""Whether this is the main interpreter of the process."""

from __future__ import annotations

import importlib
from typing import Any, Final

# The interpreter's own module: from Python 3.13 on, and before. `concurrent.interpreters` exists from 3.14 on only.
_MODULES: Final = ("_interpreters", "_xxsubinterpreters")


def is_subinterpreter() -> bool:
    """Whether the running code belongs to a subinterpreter; False where that cannot be known."""
    for name in _MODULES:
        try:
            interpreters: Any = importlib.import_module(name)
        except ImportError:
            continue
        return bool(interpreters.get_current() != interpreters.get_main())
    return False
