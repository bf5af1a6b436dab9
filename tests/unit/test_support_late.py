"""Threads that are late on purpose: as often as a test can bear."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from tests.support import late

if TYPE_CHECKING:
    import pytest


class Door:
    """Something that threads do."""

    passed = 0

    def passes(self) -> int:
        """Once more."""
        self.passed += 1
        return self.passed


def test_a_test_has_so_many_stalls_and_the_next_one_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is called goes on the same without one."""
    stalls: list[float] = []
    monkeypatch.setattr(late, "time", SimpleNamespace(sleep=stalls.append))
    monkeypatch.setattr(Door, "passes", Door.passes)
    monkeypatch.setattr(late, "_left", [*late._left])
    late._stall(((Door, "passes"),), after=True)
    for tests in (1, 2):
        late.pytest_runtest_setup()
        door = Door()
        assert [door.passes() for _ in range(late.MOST + 5)] == [*range(1, late.MOST + 6)]
        assert stalls == [late.STALL] * late.MOST * tests


def test_a_process_has_so_many_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left of them is the next test's."""
    stalls: list[float] = []
    monkeypatch.setattr(late, "time", SimpleNamespace(sleep=stalls.append))
    monkeypatch.setattr(Door, "passes", Door.passes)
    monkeypatch.setattr(late, "_left", [iter(()), iter(range(late.MOST + 3))])
    late._stall(((Door, "passes"),), after=False)
    for expected in (late.MOST, late.MOST + 3, late.MOST + 3):
        late.pytest_runtest_setup()
        for _ in range(late.MOST + 5):
            Door().passes()
        assert len(stalls) == expected
