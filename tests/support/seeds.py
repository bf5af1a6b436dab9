"""The seed of what a run of the tests draws: what `SEED` says, else the file `.ci/seed`."""

from __future__ import annotations

import functools
import os
import random
from pathlib import Path
from typing import Final

_FILE: Final = Path(__file__).resolve().parents[2] / ".ci" / "seed"


def seed_of_run() -> str:
    """
    The seed. It is the same for every commit, so that a change fails for what it changes; by night it is the date, and
    what fails then is mended before a new seed is written to the file.
    """
    return os.environ.get("SEED") or _committed()


def is_drawn(name: str, one_in: int) -> bool:
    """
    Whether a run tries this one, whichever others there are: what is added elsewhere does not change the answer.

    Args:
        name: Its name, such as the test's and the place's.
        one_in: Of how many one is drawn.
    """
    return one_in <= 1 or random.Random(f"{seed_of_run()} {name}").randrange(one_in) == 0


@functools.cache
def _committed() -> str:
    return _FILE.read_text(encoding="utf-8").strip()
