"""
The matrix: which Pythons and which cells there are.
"""

from __future__ import annotations

from pathlib import Path

from tools.matrix import ALL_OLDEST, OLDER, PEER, cells
from tools.venvs import Interpreter, newest_of_each

PYTHONS = [Interpreter((3, minor, 1), Path(f"python3.{minor}")) for minor in (10, 11, 13)]


def test_of_each_minor_version_the_newest_patch_counts() -> None:
    """
    Interpreters below 3.10 and builds that are no plain release are left out, and 3.9 does not sort after 3.10.
    """
    found = [("3.11.2", "a"), ("3.11.12", "b"), ("3.9.18", "c"), ("3.13.0t", "d"), ("3.10.1", "e"), ("2.7.18", "f")]
    assert [(python.minor, str(python.path)) for python in newest_of_each(found)] == [("3.10", "e"), ("3.11", "b")]


def test_quick_is_the_two_ends() -> None:
    """
    The quick matrix is the oldest Python on the oldest libraries and the newest Python on the newest.
    """
    oldest, newest = cells(PYTHONS, quick=True)
    assert (oldest.python.minor, oldest.pins) == ("3.10", ALL_OLDEST)
    assert (newest.python.minor, newest.pins) == ("3.13", ())


def test_every_python_and_every_version_has_a_cell() -> None:
    """
    The whole matrix has each Python with the newest libraries and each older version of a library.
    """
    whole = cells(PYTHONS)
    assert {cell.python.minor for cell in whole if not cell.pins} == {"3.10", "3.11", "3.13"}
    assert set(OLDER.values()) <= {cell.pins for cell in whole}
    assert len({cell.name for cell in whole}) == len(whole)


def test_the_peer_is_there_where_it_works() -> None:
    """
    Upstream's instrumentation does nothing on SQLAlchemy 2.1: each cell with an older series has it, one of the quick
    ones too, else nobody would see whether both get along.
    """
    for cells_of_a_run in (cells(PYTHONS), cells(PYTHONS, quick=True)):
        pins = [" ".join(cell.pins) for cell in cells_of_a_run]
        with_peer = [pin for pin in pins if PEER in pin]
        assert with_peer
        assert all("sqlalchemy[asyncio]" in pin for pin in with_peer)
    assert all(PEER in " ".join(OLDER[name]) for name in ("SQLAlchemy 1.4", "SQLAlchemy 2.0"))


def test_one_python_is_enough() -> None:
    """
    A machine with a single Python still runs every library's versions on it, and one without any has no cells.
    """
    assert {cell.python for cell in cells(PYTHONS[:1])} == {PYTHONS[0]}
    assert cells([]) == []
