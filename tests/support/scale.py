"""How often a test tries what has to hold at any moment: some times in CI, all of them in `make trust` and by night."""

from __future__ import annotations

import os
from typing import Final

#: Whether this run takes all the time that it needs (`WHOLE=1`).
WHOLE: Final = os.environ.get("WHOLE") == "1"


def times(few: int, *, whole: int) -> int:
    """
    How often to try.

    Args:
        few: In CI and in `make test`: what takes a second or two.
        whole: In `make trust` and `make nightly`.

    Returns:
        One of them.
    """
    return whole if WHOLE else few
