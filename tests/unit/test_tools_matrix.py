"""The matrix: which Pythons and which cells there are, which of them run, and what is noted then."""

from __future__ import annotations

import re
import shlex
from datetime import datetime, timezone
from pathlib import Path

import pytest

from tools import matrix
from tools.matrix import ALL_OLDEST, OLDER, PEER, Cell, Outcome, cells, draw, main
from tools.venvs import AS_OF, MOMENT, ROOT, Interpreter, newest_of_each

PYTHONS = [Interpreter((3, minor, 1), Path(f"python3.{minor}")) for minor in (10, 11, 13)]
FILES = [f"tests/unit/test_{number}.py" for number in range(13)]
NOTED = re.compile(r'^AS_OF = "(.*)"$', re.MULTILINE)


class Runs:
    """What would have run: the cells, and up to which moment a package counts as released."""

    def __init__(self) -> None:
        self.cells: list[Cell] = []
        self.moments: set[str] = set()
        self.failing = ""

    def __call__(self, cell: Cell, _: list[str], as_of: str) -> Outcome:
        self.cells.append(cell)
        self.moments.add(as_of)
        return Outcome((), "as the test wants it", passed=cell.name != self.failing, seconds=0.0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """A machine with three Pythons, on which a cell only notes that it would run."""
    made = Runs()
    monkeypatch.setattr(matrix, "interpreters", lambda *, free_threaded=False: [] if free_threaded else PYTHONS)
    monkeypatch.setattr(matrix, "_run", made)
    return made


def test_of_each_minor_version_the_newest_patch_counts() -> None:
    """Interpreters below 3.10 and builds that are no plain release are left out, and 3.9 does not sort after 3.10."""
    found = [("3.11.2", "a"), ("3.11.12", "b"), ("3.9.18", "c"), ("3.13.0t", "d"), ("3.10.1", "e"), ("2.7.18", "f")]
    assert [(python.minor, str(python.path)) for python in newest_of_each(found)] == [("3.10", "e"), ("3.11", "b")]


def test_quick_is_the_two_ends() -> None:
    """The quick matrix is the oldest Python on the oldest libraries and the newest Python on the newest."""
    oldest, newest = cells(PYTHONS, quick=True)
    assert (oldest.python.minor, oldest.pins) == ("3.10", ALL_OLDEST)
    assert (newest.python.minor, newest.pins) == ("3.13", ())


def test_every_python_and_every_version_has_a_cell() -> None:
    """The whole matrix has each Python with the newest libraries and each older version of a library."""
    whole = cells(PYTHONS)
    assert {cell.python.minor for cell in whole if not cell.pins} == {"3.10", "3.11", "3.13"}
    assert set(OLDER.values()) <= {cell.pins for cell in whole}
    assert len({cell.name for cell in whole}) == len(whole)


def test_the_peer_is_there_where_it_works() -> None:
    """
    Upstream's instrumentation does nothing on SQLAlchemy 2.1: each cell with an older series has it, one of the quick
    ones too, else no cell would show whether both get along.
    """
    for cells_of_a_run in (cells(PYTHONS), cells(PYTHONS, quick=True)):
        pins = [" ".join(cell.pins) for cell in cells_of_a_run]
        with_peer = [pin for pin in pins if PEER in pin]
        assert with_peer
        assert all("sqlalchemy[asyncio]" in pin for pin in with_peer)
    assert all(PEER in " ".join(OLDER[name]) for name in ("SQLAlchemy 1.4", "SQLAlchemy 2.0"))


def test_one_python_is_enough() -> None:
    """A machine with a single Python still runs every library's versions on it, and one without any has no cells."""
    assert {cell.python for cell in cells(PYTHONS[:1])} == {PYTHONS[0]}
    assert cells([]) == []


def test_a_free_threaded_python_has_a_cell_of_its_own(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the machine has one, the whole matrix runs the core and the pools on SQLite on it."""
    assert main([]) == 0
    without = runs.cells
    assert without == cells(PYTHONS)
    build = Interpreter((3, 14, 1), Path("python3.14t"), free_threaded=True)
    monkeypatch.setattr(matrix, "interpreters", lambda *, free_threaded=False: [build] if free_threaded else PYTHONS)
    runs.cells.clear()
    assert main([]) == 0
    (added,) = [cell for cell in runs.cells if cell.python is build]
    assert added.name == "Python 3.14t, free-threaded"
    assert added.files
    assert set(added.files) <= set(matrix.test_files())


def test_oldest_is_one_end(runs: Runs) -> None:
    """The oldest end alone runs whole, which with the environment of the checkout is both ends."""
    assert main(["--oldest"]) == 0
    assert runs.cells == cells(PYTHONS, quick=True)[:1]
    assert runs.moments == {AS_OF}


def test_a_part_is_a_quarter_of_a_cell_between_the_ends() -> None:
    """
    A part has a cell that is neither end and a quarter of the files, rounded up; the same for a seed, and over many
    seeds every such cell and every file.
    """
    parts = [draw(str(seed), PYTHONS, FILES) for seed in range(200)]
    assert parts == [draw(str(seed), PYTHONS, FILES) for seed in range(200)]
    ends = cells(PYTHONS, quick=True)
    between = {(cell.python, cell.pins) for cell in cells(PYTHONS) if cell not in ends}
    assert {(part.python, part.pins) for part in parts} == between
    assert {len(set(part.files)) for part in parts} == {4}
    assert {file for part in parts for file in part.files} == set(FILES)


def test_a_part_says_how_to_repeat_it(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The seed, the cell, the number of files and the command are printed, and the part runs alone, or after the oldest
    cell where both are asked for.
    """
    assert main(["--part", "a b"]) == 0
    (part,) = runs.cells
    printed = capsys.readouterr().out
    assert f"drawn by the seed a b: {part.name}, {len(part.files)} of {len(matrix.test_files())} test files;" in printed
    again = re.search(r"again: make matrix ARGS=(.*)", printed)
    assert again
    assert shlex.split(again[1]) == ["--part 'a b'"]
    assert main(["--oldest", "--part", "a b"]) == 0
    assert runs.cells[1:] == [*cells(PYTHONS, quick=True)[:1], part]
    assert part.files


def test_the_files_are_those_that_a_cell_runs() -> None:
    """Files are drawn from both layers, without the tools' own tests, and all of them exist."""
    files = matrix.test_files()
    assert {file.split("/")[1] for file in files} == {"unit", "contract"}
    assert not [file for file in files if "test_tools_" in file or "test_support_" in file]
    assert all((ROOT / file).is_file() for file in files)


def test_choices_that_exclude_each_other_are_errors(runs: Runs) -> None:
    """Both ends and one end, or a drawn cell and named ones, are no run at all."""
    for arguments in (["--quick", "--oldest"], ["--part", "a", "--only", "oldest"]):
        with pytest.raises(SystemExit):
            main(arguments)
    assert not runs.cells


def test_the_newest_that_passed_is_the_line_to_note(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """
    The moment to note is that of the beginning, to the second, and what was released until then is
    what was tested.
    """
    before = datetime.now(timezone.utc).replace(microsecond=0)
    assert main(["--latest"]) == 0
    (noted,) = NOTED.findall(capsys.readouterr().out)
    assert runs.moments == {noted}
    assert before <= datetime.strptime(f"{noted}+0000", f"{MOMENT}%z") <= datetime.now(timezone.utc)
    assert runs.cells == cells(PYTHONS)
    assert NOTED.findall((ROOT / "tools" / "venvs.py").read_text()) == [AS_OF]


def test_a_failure_notes_nothing(runs: Runs, capsys: pytest.CaptureFixture[str]) -> None:
    """One cell that fails is enough; and what is pinned to a moment has no newer one to note."""
    runs.failing = cells(PYTHONS)[3].name
    assert main(["--latest"]) == 1
    runs.failing = ""
    assert main([]) == 0
    assert "AS_OF" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "narrower",
    [
        ["--only", "oldest"],
        ["--oldest"],
        ["--quick"],
        ["--part", "a"],
        ["--oldest", "--part", ""],
        ["--", "-k", "word"],
    ],
)
def test_less_than_the_whole_notes_nothing(runs: Runs, capsys: pytest.CaptureFixture[str], narrower: list[str]) -> None:
    """A run that left cells or tests out passes, and says what keeps the moment from being set anew."""
    assert main(["--latest", *narrower]) == 0
    printed = capsys.readouterr().out
    assert not NOTED.search(printed)
    assert "AS_OF in tools/venvs.py stays as it is" in printed
    assert (narrower[0] if narrower[0] != "--" else "arguments for pytest") in printed.splitlines()[-1]


def test_no_python_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a fitting Python runs nothing, also where a part is asked for, and that is a failure."""
    monkeypatch.setattr(matrix, "interpreters", lambda **_: [])
    assert main([]) == main(["--oldest", "--part", "a"]) == 1
