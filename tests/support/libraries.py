"""What core knows of libraries, for as long as a test runs."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from poolscope.core.libraries import KNOWN, Libraries

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def known(*packages: str, **declared: Any) -> Iterator[None]:
    """Only what is given is known, as `Libraries.know` has it."""
    before = dict(vars(KNOWN))
    vars(KNOWN).update(vars(Libraries()))
    KNOWN.know(packages, **declared)
    try:
        yield
    finally:
        vars(KNOWN).update(before)
