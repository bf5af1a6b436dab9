"""Trials of many places, such as the lines of a hook: which of them a run tries, and what failed at which."""

from __future__ import annotations

import contextlib
import os
import random
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

from tests.support.seeds import is_drawn, seed_of_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_One = TypeVar("_One")

#: A file that gets the figures, where they are wanted.
FIGURES: Final = os.environ.get("FIGURES")


class Failures:
    """What went wrong, and where."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        #: How often what was tried, or went wrong in the same way.
        self.counts: Counter[str] = Counter()
        self._place = ""

    @contextlib.contextmanager
    def at(self, place: object) -> Iterator[None]:
        """Name the place in what fails."""
        self._place = str(place)
        yield
        self._place = ""

    def fails(self, text: str, at: str = "") -> None:
        """
        Write down what went wrong.

        Args:
            text: What.
            at: The place; that of the block around when left out.
        """
        self.counts[text if at else "failed"] += 1
        self.failures.append(f"{text}: {at}" if at else f"{self._place}: {text}")

    def report(self, figures: str = "") -> None:
        """
        Fail with what went wrong.

        Args:
            figures: What was tried, for the file of figures.
        """
        if figures and FIGURES:
            with Path(FIGURES).open("a", encoding="utf-8") as out:
                out.write("\n    ".join([f"FIGURES {figures}", *self.failures]) + "\n")
        if self.failures:
            pytest.fail("\n".join([*([figures] if figures else ()), *self.failures]), pytrace=False)


class Interrupts(Failures):
    """Interrupts at many places."""

    #: What interrupts.
    errors: Sequence[type[BaseException]]

    def interrupt_some(
        self, places: Sequence[_One], interrupt: Callable[[_One, type[BaseException]], None], *, name: str, one_in: int
    ) -> None:
        """
        Interrupt at the places that this run draws, and fail with what went wrong.

        Args:
            places: All places.
            interrupt: Tries one.
            name: Of the test.
            one_in: Of how many one is tried.
        """
        assert places
        for place in places:
            at = f"{name} {place}"
            if is_drawn(at, one_in):
                interrupt(place, random.Random(at).choice(self.errors))
        self.report(f"{name}: {len(places)} places, {dict(self.counts)}")


def some_of(places: Sequence[_One], most: int, name: str) -> list[_One]:
    """
    Some of the places, or all of them.

    Args:
        places: All.
        most: How many at most.
        name: Of what they are drawn for.
    """
    draw = random.Random(f"{seed_of_run()} {name}")
    return list(places) if len(places) <= most else draw.sample(places, most)


def deeper(frames: int, function: Callable[[], _One]) -> _One:
    """
    Call a function with more frames below.

    Args:
        frames: How many.
        function: It.
    """
    return deeper(frames - 1, function) if frames > 0 else function()
