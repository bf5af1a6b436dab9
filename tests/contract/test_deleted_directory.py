"""A process goes on after its working directory was deleted: so does what is measured."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from poolscope import semconv
from poolscope.core.origin import Origins, stack_of
from tests.contract.drivers.base import Feature
from tests.contract.subject import Subject
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.contract.drivers.base import Driver

ROOT = Path(__file__).resolve().parents[2]
#: An application whose code has a relative path, as that of a script has, in a folder with the name of a library.
VIEWS = "json/views.py"
SOURCE = "def view(function, *args):\n    return function(*args)\n"
#: What looks up the working directory, by its name, and how many places may do so.
LOOKS_UP = {
    "abspath", "absolute", "chdir", "cwd", "expanduser", "getabsfile", "getcwd", "getcwdb", "getfile", "getmodule",
    "getouterframes", "getsource", "getsourcefile", "getsourcelines", "realpath", "relpath", "resolve", "samefile",
    "stack", "trace",
}  # fmt: skip
MODULES = {"os", "path", "Path", "PurePath", "inspect"}


@pytest.fixture
def deleted(tmp_path: Path) -> Iterator[None]:
    """The working directory of this process is deleted."""
    before = Path.cwd()
    folder = tmp_path / "deleted"
    folder.mkdir()
    os.chdir(folder)
    folder.rmdir()
    yield
    os.chdir(before)


@pytest.fixture
def view() -> Callable[..., Any]:
    """A function of an application that was started by a relative path."""
    made: dict[str, Any] = {}
    exec(compile(SOURCE, VIEWS, "exec"), made)
    return made["view"]  # type: ignore[no-any-return]


def _cannot_look_up() -> bool:
    try:
        getattr(json, "no such name")  # not hasattr(), which makes no message
    except AttributeError:
        return False
    except SystemError:
        return True
    return False


@pytest.mark.reliability(
    fault="the working directory of the process is deleted",
    application="the same values and exceptions",
    lost="nothing",
)
def test_checkouts_are_counted(
    deleted: None,
    view: Callable[..., Any],
    opened: Callable[..., Driver],
    request: pytest.FixtureRequest,
) -> None:
    """Each checkout and its return count, with the application's line, wherever poolscope and the pool begin."""
    looks_up = request.node.callspec.params["driver"].adapter == "dbutils"
    require(
        not (looks_up and _cannot_look_up()),
        "here Python raises SystemError for a name that a module lacks, and DBUtils asks for one, bare as well",
        "another Python than 3.13.0",
    )
    telemetry = Telemetry()
    telemetry.start()
    try:
        driver = opened()
        subject = Subject(driver, telemetry)
        handle = view(subject.acquire)
        captured = stack_of(view(lambda: Origins().capture(sys._getframe(1))))
        assert captured[0][0].co_filename == VIEWS
        if Feature.STATEMENTS in driver.features:
            driver.query(handle)
        view(subject.release, handle)
        subject.check_at_rest()
    finally:
        telemetry.shutdown()


PROGRAM = """
import os, sys
os.rmdir(os.getcwd())
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import sqlalchemy
from poolscope.instrumentor import PoolscopeInstrumentor
from poolscope.core.guard import guard
reader = InMemoryMetricReader()
PoolscopeInstrumentor().instrument(meter_provider=MeterProvider([reader]), application_paths=["json"])
engine = sqlalchemy.create_engine("sqlite://", poolclass=sqlalchemy.pool.QueuePool)
source = "with engine.connect() as connection: print(connection.scalar(sqlalchemy.text('select 7')))"
exec(compile(source, "run.py", "exec"))
print(reader.get_metrics_data().to_json(indent=None))
print(guard.counts())
"""


def test_poolscope_may_be_imported_only_then(tmp_path: Path) -> None:
    """The directory is gone before poolscope is imported and started: checkouts count all the same."""
    done = subprocess.run(
        [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", PROGRAM],
        cwd=_folder(tmp_path), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    value, exported, caught = done.stdout.splitlines()
    assert (value, caught) == ("7", "{}")
    metrics = [
        metric
        for scoped in json.loads(exported)["resource_metrics"][0]["scope_metrics"]
        for metric in scoped["metrics"]
        if metric["name"] == semconv.USE_TIME.name
    ]
    assert [point["count"] for point in metrics[0]["data"]["data_points"]] == [1]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "words"),
    [
        (("report", "figures.jsonl"), 1, "There is no file or directory figures.jsonl."),
        (("report", "."), 1, "The directory . contains no "),
        (
            ("report", "RECORDED", "--svg", "picture.svg"),
            1,
            "picture.svg cannot be written: No such file or directory.",
        ),
        (("report", "RECORDED"), 0, ""),
        (("doctor",), 0, ""),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, arguments: tuple[str, ...], exit_code: int, words: str
) -> None:
    """One clear sentence where a relative path leads nowhere; what needs no directory works."""
    recorded = str(ROOT / "tests" / "data" / "otlp" / "cumulative.jsonl")
    command = [sys.executable, "-m", "poolscope", *(recorded if one == "RECORDED" else one for one in arguments)]
    program = f"import os; os.rmdir(os.getcwd()); os.execv({command[0]!r}, {command!r})"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=_folder(tmp_path), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, "Traceback" in done.stderr) == (exit_code, False), done.stderr
    assert words in done.stderr
    assert done.stderr.count(words or "\0") == (1 if words else 0)


def _folder(tmp_path: Path) -> Path:
    folder = tmp_path / "deleted"
    folder.mkdir()
    return folder


def test_nothing_looks_the_working_directory_up() -> None:
    """The one place is the import of `core/files.py`."""
    found = [
        f"{path.name}: {ast.unparse(node)}"
        for path in sorted((ROOT / "src").rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and _looks_up(node)
    ]
    assert found == ["files.py: os.getcwd"]


def _looks_up(node: ast.Attribute) -> bool:
    owner = ast.unparse(node.value)
    return node.attr in LOOKS_UP and (owner.rpartition(".")[2] in MODULES or owner.startswith("Path("))
