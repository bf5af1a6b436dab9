"""The command line: what it prints, and the exit codes that scripts rely on."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from poolscope import cli, semconv
from poolscope.cli import figures
from poolscope.cli.app import app
from poolscope.cli.findings import holder_lines, render_findings
from poolscope.report import CallSite, FindingReport
from poolscope.report.distribution import Distribution
from tests.data.otlp.truth import TRUTH

if TYPE_CHECKING:
    from collections.abc import Iterator

DATA = Path(__file__).parent.parent / "data" / "otlp"
FILES = [str(DATA / name) for name in ("cumulative.jsonl", "traces.jsonl", "logs.jsonl")]


def run(*arguments: str) -> Result:
    """Run the command line."""
    return CliRunner().invoke(app, arguments, prog_name="poolscope")


def test_report_prints_pool_holder_line_and_finding() -> None:
    """The tables name the pool, its limit, the route and line that hold, and the finding with its fix."""
    result = run("report", *FILES)

    assert result.exit_code == 0
    for expected in ("pool shop", "limit 15", "timeouts 5", "POST /checkout/{id}", "app.py:42", "close the session"):
        assert expected in result.stdout


def test_report_fits_eighty_columns() -> None:
    """No line is wider than a plain terminal."""
    assert max(map(len, run("report", *FILES).stdout.splitlines())) <= 80


def test_a_narrow_terminal_cuts_no_figure_of_the_summary(monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit in one line goes to the next, whole."""
    monkeypatch.setenv("COLUMNS", "50")
    words = run("report", *FILES).stdout.replace("│", " ").split()
    for figure in ("limit 15", "in use 4", "peak 15", "timeouts 5"):
        assert figure in " ".join(words)


def test_json_holds_the_same_figures() -> None:
    """`--json` is one document on stdout, and nothing else."""
    document = json.loads(run("report", "--json", *FILES).stdout)

    (pool,) = document["pools"]
    assert (pool["limit"], pool["timeouts"], pool["peak"]) == (TRUTH["limit"], TRUTH["timeouts"], TRUTH["peak"])
    assert pool["holders"][0]["call_site"]["line"] == 42
    assert [one["count"] for one in document["findings"]] == [5, 1]
    assert "saturation" in pool


def test_json_keeps_warnings_off_stdout(tmp_path: Path) -> None:
    """A warning goes to stderr and into the document; the document stays readable."""
    file = tmp_path / "telemetry.jsonl"
    file.write_text("noise\n" + Path(FILES[0]).read_text())

    result = run("report", "--json", str(file))

    assert json.loads(result.stdout)["warnings"]
    assert "1 line that" in result.stderr


def test_svg_is_a_picture_of_the_tables(tmp_path: Path) -> None:
    """`--svg` writes what was printed."""
    picture = tmp_path / "report.svg"

    assert run("report", "--svg", str(picture), *FILES).exit_code == 0

    text = re.sub(r"&#160;|\s", " ", picture.read_text())
    assert text.startswith("<svg")
    assert "POST /checkout/{id}" in text


def test_no_telemetry_is_exit_code_1_with_problem_and_fix(tmp_path: Path) -> None:
    """A problem goes to stderr in two lines: the problem and its fix."""
    result = run("report", str(tmp_path / "gone.jsonl"))

    assert result.exit_code == 1
    assert result.stdout == ""
    problem, fix = result.stderr.splitlines()
    assert "gone.jsonl" in problem
    assert "file exporter" in fix


def test_wrong_usage_is_exit_code_2() -> None:
    """Wrong arguments are distinguished from missing telemetry."""
    assert run("report").exit_code == 2
    assert "report" in run("reprot").stderr


def test_version_is_the_distributions() -> None:
    """`--version` prints the installed version."""
    assert run("--version").stdout == f"poolscope {version('poolscope')}\n"


def test_svg_beside_json_is_the_same_picture(tmp_path: Path) -> None:
    """`--json` keeps the tables off the terminal, not out of the picture; the picture needs no server."""
    picture = tmp_path / "pictures" / "report.svg"

    result = run("report", "--json", "--svg", str(picture), *FILES)

    assert json.loads(result.stdout)["pools"]
    assert "checkout" in picture.read_text()
    assert 'url("http' not in picture.read_text()


@pytest.fixture(params=["click", "rich"])
def missing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An environment without one of the extra's packages."""
    monkeypatch.setitem(sys.modules, request.param, None)
    return request.param


def test_without_the_extra_it_says_how_to_get_it(missing: str, capsys: pytest.CaptureFixture[str]) -> None:
    """No traceback: one line with the command that helps."""
    assert cli.main() == 1

    error = capsys.readouterr().err
    assert missing in error
    assert "pip install 'poolscope[cli]'" in error


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (0.0, "0"),
        (0.00025, "250 µs"),
        (0.0123, "12.3 ms"),
        (0.9996, "1 s"),
        (2.345, "2.35 s"),
        (61.0, "1 min 01 s"),
    ],
)
def test_durations_have_the_unit_that_suits_them(value: float | None, shown: str) -> None:
    """Three figures and a unit, from microseconds to minutes."""
    assert figures.seconds(value) == shown


def test_a_share_that_is_there_is_never_shown_as_nothing() -> None:
    """0 means nothing at all."""
    assert (figures.percent(0.0), figures.percent(0.004), figures.percent(0.5)) == ("0 %", "<1 %", "50 %")


def test_bars_are_as_long_as_their_share() -> None:
    """Full, half, none; always as wide as was asked."""
    assert [figures.bar(share, 4) for share in (1.0, 0.5, 0.0)] == ["████", "██  ", "    "]


def test_a_histogram_in_one_line_spans_what_was_measured() -> None:
    """A column per bucket from the first that is filled to the last, and the ends of both."""
    distribution = Distribution((0.001, 0.01, 0.1, 1.0), (0, 8, 0, 1, 0))

    assert figures.spark(distribution) == ("█ ▁", "1 ms", "1 s")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (32725, "32725"),
        (2730.0, "2730"),
        (4.3123, "4.31"),
        (1234.5, "1234"),
        (0.0021, "0.0021"),
        (0.0, "0"),
        (15, "15"),
    ],
)
def test_numbers_are_no_powers_of_ten(value: float, shown: str) -> None:
    """A process id is all its digits, however it came here; a mean has a few."""
    assert figures.number(value) == shown


def test_places_show_the_end_of_the_path() -> None:
    """Two parts of the path are enough to find the line."""
    assert figures.code_location(CallSite("r", "f", "/srv/app/shop/views.py", 7)) == "shop/views.py:7 f"
    assert figures.code_location(CallSite("r")) == "-"
    assert figures.code_location(CallSite("r", "f.<locals>.<dictcomp>", "views.py", 7)) == "views.py:7 f"
    assert figures.code_location(CallSite("r", "C.f.<locals>.g", "views.py", 7)) == "views.py:7 C.f.<locals>.g"


def test_holders_of_one_line_are_one_line() -> None:
    """Ten holds of one leak are one line with the longest; another form of text is shown unchanged."""
    leak = "5.6 s by GET /cart, idle; checked out at /srv/shop/app.py:7 in cart; last ran select 1"
    query = "1 ms by GET /users, running a query; checked out at /srv/shop/app.py:9 in users; currently executing y"

    assert holder_lines([leak, leak.replace("5.6 s", "1.2 s"), query, "unknown"]) == [
        "2 from /srv/shop/app.py:7 in cart: 5.6 s by GET /cart, idle",
        "1 from /srv/shop/app.py:9 in users: 1 ms by GET /users, running a query",
        "unknown",
    ]


def test_texts_show_the_end_of_their_paths() -> None:
    """Whole paths drown what a finding says."""
    text = "checked out at /srv/app/shop/views.py:7 in f; now at /usr/lib/python3/threading.py:327; GET /users/7"

    assert figures.short_paths(text) == (
        "checked out at shop/views.py:7 in f; now at python3/threading.py:327; GET /users/7"
    )


def shown(identity: str, summary: str, evidence: dict[str, object]) -> str:
    """A finding as the terminal shows it, in one line."""
    console = Console(width=200, file=io.StringIO(), highlight=False)
    report = FindingReport(identity, "warning", "shop", "shop", CallSite("GET /"), 2, 0, summary, "", "", evidence)
    render_findings(console, [report])
    return " ".join(console.file.getvalue().replace("│", " ").split())  # type: ignore[attr-defined]


def test_figures_have_the_unit_of_what_they_measure() -> None:
    """
    Seconds, also where a whole number of them came as an integer; shares; rates; process ids and
    counts as they are.
    """
    text = shown(
        "pool_exhausted",
        "what",
        {
            semconv.EVIDENCE_PREFIX + "typical_hold": 0.741,
            semconv.EVIDENCE_PREFIX + "waited": 1,
            semconv.EVIDENCE_PREFIX + "arrival_rate": 1250.5,
            semconv.EVIDENCE_PREFIX + "connections_needed": 4.31,
            semconv.EVIDENCE_PREFIX + "query_share": 0.39,
            semconv.LEASE_AGE: 61.2,
            semconv.BACKEND_PROCESS_ID: 2730.0,
            semconv.POOL_LIMIT: 15,
        },
    )
    for figure in (
        "typical hold 741 ms", "waited 1 s", "arrival rate 1250/s", "connections needed 4.31", "39 % query",
        "age 1 min 01 s", "backend process id 2730", "limit 15",
    ):  # fmt: skip
        assert figure in text
    assert "e+0" not in text


def test_a_statement_is_shown_once() -> None:
    """In a row of its own; an N+1 is called one."""
    text = shown(
        "n_plus_one", "GET / ran one statement 20 times: select 1 from t", {semconv.DB_QUERY_TEXT: "select 1 from t"}
    )

    assert text.count("select 1 from t") == 1
    assert "GET / ran one statement 20 times" in text
    assert "N+1 warning" in text


def test_holders_are_shown_as_the_report_describes_them() -> None:
    """A holder whose line has no call site is shown unchanged."""
    assert "1 s by a, idle in a transaction" in shown(
        "pool_exhausted", "w", {semconv.HOLDERS: ("1 s by a, idle in a transaction",)}
    )


def test_a_picture_that_cannot_be_written_is_exit_code_1_with_problem_and_fix(tmp_path: Path) -> None:
    """No traceback: the path and the fix. The tables are printed in any case."""
    (tmp_path / "file").touch()

    result = run("report", "--svg", str(tmp_path / "file" / "report.svg"), *FILES)

    assert result.exit_code == 1
    assert "pool shop" in result.stdout
    problem, fix = result.stderr.splitlines()
    assert "report.svg cannot be written" in problem
    assert "permissions" in fix


def test_a_terminal_that_knows_no_bars_gets_the_report() -> None:
    """Under an encoding without the characters of the bars they are question marks; the figures are there."""
    done = subprocess.run(
        [sys.executable, "-m", "poolscope", "report", *FILES],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert b"limit 15" in done.stdout
    assert b"?" in done.stdout


def test_names_with_brackets_are_printed_as_they_are(tmp_path: Path) -> None:
    """What looks like markup in the name of a server or a pool is part of the name."""
    file = tmp_path / "telemetry.jsonl"
    file.write_text(Path(FILES[0]).read_text().replace('"db.example"', '"a[/b]c"').replace('"shop"', '"d[/e]f"'))

    result = run("report", str(file))

    assert result.exit_code == 0
    assert "a[/b]c" in result.stdout
    assert "d[/e]f" in result.stdout


def test_a_long_read_shows_how_far_it_is_on_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bar is on standard error, where that is a terminal; it ends full. In a pipe there is nothing of it."""
    monkeypatch.setattr("poolscope.cli.report._LARGE_BYTES", 1)
    piped = run("report", "--json", *FILES)
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda _: True)
    shown = run("report", "--json", *FILES)

    assert piped.stderr == ""
    assert "PoolObservation" in shown.stderr
    assert "100%" in shown.stderr
    assert shown.stdout == piped.stdout
