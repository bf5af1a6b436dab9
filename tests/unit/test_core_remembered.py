"""The memory of what is known of statements: as much as fits."""

from __future__ import annotations

from poolscope.core.sql.remembered import Remembered


def test_a_memory_starts_over_when_it_has_more_than_fits() -> None:
    """With what is added then; up to there it has all."""
    memory = Remembered[str, int](10)
    for number, text in enumerate(("aaaa", "bbbbbb", "cccc")):
        memory.add(text, number, len(text))
    assert (memory.known, memory.size) == ({"aaaa": 0, "bbbbbb": 1, "cccc": 2}, 14)
    memory.add("dd", 3, 2)
    assert (memory.known, memory.size) == ({"dd": 3}, 2)
    memory.add("dddddddddddd", 4, 12)
    assert list(memory.known) == ["dd", "dddddddddddd"]
    memory.add("e", 5, 1)
    assert (memory.known, memory.size) == ({"e": 5}, 1)
