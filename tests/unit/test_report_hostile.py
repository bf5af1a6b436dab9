"""`poolscope report` of files that are not as they must be: a report or one clear message, in linear time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from poolscope.cli.app import app
from poolscope.report import ReportError, build_report, lines, reader
from tests.support import growing
from tests.support.hostile import RECORDED, TEXTS, mutant
from tests.support.scale import times

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

GOOD = "".join(f"{line}\n" for line in RECORDED if '"db.client.connection.count"' in line)


def run(*arguments: object) -> Result:
    """Run `poolscope report`."""
    return CliRunner().invoke(app, ["report", *map(str, arguments)], prog_name="poolscope")


def strict(name: str) -> object:
    """No constant that JSON does not know."""
    raise ValueError(name)


def check(code: int, out: str, err: str, path: Path, *, as_json: bool) -> None:
    """A report, or one message that names the file and the fix; nothing that a terminal obeys."""
    assert "Traceback" not in err
    assert [character for character in out + err if not (character.isprintable() or character == "\n")] == []
    if code == 0:
        assert out
        if as_json:
            json.loads(out, parse_constant=strict)
        return
    assert code == 1
    *_, problem, fix = err.splitlines()
    assert str(path) in problem or "contains no connection pool" in problem
    assert fix.endswith((".", ")", ".jsonl"))


@pytest.mark.reliability(
    fault="a file of telemetry is damaged: bytes flipped, lines cut, values of any type, size and depth",
    application="nothing: `poolscope report` is a process of its own, and ends with a report or one message",
    lost="what is unreadable; the report counts it, with its first line",
)
def test_no_mutant_of_a_recording_is_a_traceback(tmp_path: Path) -> None:
    """Exit code 0 or 1, with one message; nothing that a terminal obeys; JSON that any reader takes."""
    path = tmp_path / "mutant.jsonl"
    for number in range(times(120, whole=100_000)):
        random = Random(f"mutant {number}")
        path.write_bytes(mutant(random))
        as_json = random.random() < 0.5
        result = run(*(["--json"] if as_json else []), path)
        assert result.exception is None or isinstance(result.exception, SystemExit), f"mutant {number}"
        check(result.exit_code, result.stdout, result.stderr, path, as_json=as_json)


def test_nor_in_a_process_of_its_own(tmp_path: Path) -> None:
    """The same as a user runs it, with a terminal's encoding."""
    path = tmp_path / "mutant.jsonl"
    for number in range(times(2, whole=300)):
        path.write_bytes(mutant(Random(f"process {number}")))
        done = subprocess.run(
            [sys.executable, "-m", "poolscope", "report", str(path)], capture_output=True, timeout=60, check=False
        )
        check(done.returncode, done.stdout.decode(), done.stderr.decode(), path, as_json=False)


#: A mark of the byte order, where files were put together, is no part of a line.
BYTE_ORDER = b"\xef\xbb\xbf"


@settings(max_examples=times(40, whole=2000), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=60)), max_size=5))
@example([(1, BYTE_ORDER), (0, BYTE_ORDER + b"1")])
def test_what_is_readable_is_reported_whatever_is_between(
    tmp_path_factory: Any, foreign: list[tuple[int, bytes]]
) -> None:
    """Lines of any bytes between those of a recording change no figure, and each is counted."""
    path = tmp_path_factory.mktemp("between") / "telemetry.jsonl"
    content = [[line.encode()] for line in GOOD.splitlines()[:3]]
    added = [part for _, more in foreign for part in more.split(b"\n") if part.removeprefix(BYTE_ORDER).strip()]
    for place, more in foreign:
        content.insert(min(place, len(content)), more.split(b"\n"))
    path.write_bytes(b"".join(line + b"\n" for part in content for line in part))
    alone = path.with_name("alone.jsonl")
    alone.write_text("".join(f"{line}\n" for line in GOOD.splitlines()[:3]))

    report = build_report([path])

    assert report.pools == build_report([alone]).pools
    assert f"skipped {len(added)} line" in " ".join(report.warnings) if added else report.warnings == ()


def changed(old: str, new: str) -> str:
    """A recording with another value; the rest of it is as it was."""
    assert old in GOOD
    return GOOD.replace(old, new, 1)


DEEP = "[" * 100_000
DAMAGED: dict[str, tuple[str | bytes, str]] = {
    "nested too deeply": (GOOD + DEEP + "\n" + '{"resourceMetrics":' + DEEP + "\n", "skipped 2 lines"),
    "an integer of 10,000 digits": (changed('"asInt":"15"', f'"asInt":{"9" * 10_000}'), "asInt is no number"),
    "a number above all": (changed('"asInt":"15"', '"asDouble":1e400'), "asDouble is out of range"),
    "not a number": (changed('"asInt":"15"', '"asDouble":"NaN"'), "asDouble is out of range"),
    "a text for a number": (changed('"asInt":"15"', '"asInt":"fifteen"'), "asInt is no"),
    "an object for a list": (changed('"dataPoints":[', '"dataPoints":{},"x":['), "dataPoints is no list"),
    "before 1970": (changed('"timeUnixNano":"', '"timeUnixNano":"-'), "timeUnixNano is before 1970"),
    "in the year 100000": (changed('"timeUnixNano":"', '"timeUnixNano":"1795'), "timeUnixNano is no integer"),
    "bounds that do not fit": (changed('"explicitBounds":[', '"explicitBounds":[-1,'), "does not fit explicitBounds"),
    "bounds that fall": (changed('"explicitBounds":[', '"explicitBounds":[99,'), "explicitBounds does not ascend"),
    "a count below 0": (changed('"bucketCounts":["0"', '"bucketCounts":["-1"'), "bucketCounts has a count that"),
    "another unit": (changed('"unit":"s"', '"unit":"ms"'), "is not in seconds"),
    "an unknown temporality": (changed('"aggregationTemporality":2', '"aggregationTemporality":7'), "is neither delta"),
    "no object in a list": (changed('"metrics":[', '"metrics":[3,'), "metrics has what is no object"),
    "no name": (changed('"metrics":[{"name":"', '"metrics":[{"nom":"'), "left out 1 metric"),
    "bytes that are not UTF-8": (GOOD.encode().replace(b"db.example", b"db.\xff\xfe", 1), "1 line not in UTF-8"),
    "a NUL": (GOOD.encode() + b"\0\0\0\n", "skipped 1 line"),
    "a byte order mark": ("\ufeff" + GOOD, ""),
    "a span that ends before it starts": (
        GOOD + json.dumps(growing.spans(growing.span(1, endTimeUnixNano="1"))) + "\n",
        "left out 1 span not as OTLP has it; the first is in line {after} (a span ends before it starts)",
    ),
    "an id that is no text": (GOOD + json.dumps(growing.spans(growing.span(1, spanId=[1]))) + "\n", "spanId is no"),
    "links that are no texts": (
        GOOD + json.dumps(growing.spans(growing.span(1, links=[{"traceId": [], "spanId": {}}]))) + "\n",
        "a link has what is no id",
    ),
    "a scale beyond all": (
        GOOD + json.dumps(growing.metric(growing.WAITS, growing.point(scale=-5000, positive={"bucketCounts": [1, 2]}),
                                         kind="exponentialHistogram")) + "\n", "left out 1 metric point",
    ),
    "a scale that distinguishes nothing": (
        GOOD + json.dumps(growing.metric(growing.WAITS, growing.point(scale=2000, positive={"bucketCounts": [1, 2]}),
                                         kind="exponentialHistogram")) + "\n",
        "the scale of a histogram does not ascend",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGED)
def test_what_is_left_out_is_counted_with_its_line(tmp_path: Path, what: str) -> None:
    """The rest is reported; one warning names the file and the first line."""
    content, said = DAMAGED[what]
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(content.encode() if isinstance(content, str) else content)

    result = run(path)

    assert (result.exit_code, result.exception) == (0, None)
    assert "pool shop of shop" in result.stdout
    warnings = result.stderr.splitlines()
    assert len(warnings) == bool(said)
    for warning in warnings:
        assert str(path) in warning
        assert said.format(after=len(GOOD.splitlines()) + 1) in warning
        assert "line" in warning


@pytest.mark.parametrize("metric", ["db.client.connection.max", "db.client.connection.use_time"])
def test_one_metric_is_enough_for_a_pool(tmp_path: Path, metric: str) -> None:
    """Whatever else of the pool is unreadable."""
    path = tmp_path / "telemetry.jsonl"
    path.write_text(json.dumps(growing.metric(metric, growing.point(), kind="sum")))

    assert [pool.name for pool in build_report([path]).pools] == ["p"]


def test_counts_beyond_what_a_float_distinguishes_have_quantiles(tmp_path: Path) -> None:
    """The rank of the last of 2 ** 63 + 1 waits is, as a float, beyond it."""
    waits = growing.point(explicitBounds=[1], bucketCounts=[str(2**63), "1"])
    path = tmp_path / "telemetry.jsonl"
    path.write_text(json.dumps(growing.metric(growing.WAITS, waits, kind="histogram")))

    (pool,) = build_report([path]).pools

    assert pool.waits.count == 2**63 + 1
    assert pool.waits.quantiles.p99 == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\x1f\x8b\x08\x00rest", "gzip"),
        (b"\x28\xb5\x2f\xfd\x00\xff", "zstd"),
        (GOOD.encode("utf-16"), "UTF-16"),
        (b"\x0a\xf3\x01\x0a\x27\x00\xff\xfe", "is not text"),
        (b'{"resourceMetrics":[{"resource":3}]}', "line 1: resource is no object"),
        (b"{" + b" " * (lines.LONGEST_LINE + 5), "line 1 is too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_nothing_readable_is_one_message(tmp_path: Path, content: bytes, said: str) -> None:
    """With what it is instead, and the fix; the other problems are warnings before it."""
    path = tmp_path / "telemetry.jsonl"
    path.write_bytes(content)

    result = run(path)

    assert (result.exit_code, result.stdout) == (1, "")
    problem, fix = result.stderr.splitlines()
    assert said in problem
    assert str(path) in problem
    assert fix


def test_a_long_line_is_left_out_and_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is above the longest is read past, in parts; the lines around it are reported."""
    monkeypatch.setattr(lines, "LONGEST_LINE", 20_000)
    path = tmp_path / "telemetry.jsonl"
    first, second, *_ = GOOD.splitlines(keepends=True)
    with path.open("w") as file:
        file.write(first)
        file.writelines("x" * 2**20 for _ in range(30))
        file.write(f"\n{second}")

    tracemalloc.start()
    report = build_report([path])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 8 * 2**20
    alone = tmp_path / "alone.jsonl"
    alone.write_text(first + second)
    assert report.pools == build_report([alone]).pools
    (warning,) = report.warnings
    assert f"skipped 1 line that is too long; the first is line 2, of {30 * 2**20 + 1} bytes" in warning


# Files that are none


def test_a_pipe_without_a_writer_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Named, or found in a directory beside a file that is read."""
    monkeypatch.setattr(lines, "PATIENCE_SECONDS", 0.05)
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)

    with pytest.raises(ReportError, match=r"pipe.jsonl cannot be read: nothing came for"):
        build_report([pipe])

    (tmp_path / "telemetry.jsonl").write_text(GOOD)
    report = build_report([tmp_path])
    assert report.pools
    assert "pipe.jsonl cannot be read" in report.warnings[0]


def test_what_a_pipe_brought_before_it_stalled_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a warning that says how far it came; a pipe that ends is like a file."""
    monkeypatch.setattr(lines, "PATIENCE_SECONDS", 0.05)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    line = GOOD.splitlines(keepends=True)[0].encode()
    both = os.open(pipe, os.O_RDWR)
    os.write(both, line)
    try:
        report = build_report([pipe])
    finally:
        os.close(both)

    assert report.pools
    assert "What came before, 1 line, is reported." in report.warnings[0]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null"])
def test_a_device_is_no_file(path: str) -> None:
    """However much it would bring."""
    result = run(path)

    assert result.exit_code == 1
    assert f"{path} cannot be read: it is neither a file nor a pipe" in result.stderr


def test_a_link_to_itself_and_a_name_that_no_file_can_have(tmp_path: Path) -> None:
    """The message names it."""
    loop = tmp_path / "loop.jsonl"
    loop.symlink_to(loop)

    for path in (loop, tmp_path / ("x" * 5000)):
        result = run(path)
        assert result.exit_code == 1
        assert str(path)[:50] in result.stderr


def test_a_file_that_grows_has_an_end(tmp_path: Path) -> None:
    """It is read as far as it was when it was opened."""
    path = tmp_path / "telemetry.jsonl"
    path.write_text(GOOD)

    def grow(_: int) -> None:
        with path.open("a") as file:
            file.write(GOOD)

    assert build_report([path], grow).pools == build_report_of(GOOD, tmp_path).pools


def build_report_of(content: str, folder: Path) -> Any:
    """The report on a file with this content."""
    path = folder / "alone.jsonl"
    path.write_text(content)
    return build_report([path])


def test_a_file_that_vanishes_or_may_not_be_read_hides_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are reported; a warning names it."""
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text(GOOD)
    opened = os.open

    def refuse(path: Any, *args: Any) -> int:
        if Path(path).name == "c.jsonl":
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *args)

    monkeypatch.setattr(os, "open", refuse)
    report = build_report([tmp_path], lambda _: (tmp_path / "b.jsonl").unlink(missing_ok=True))

    assert report.pools
    assert [warning.split(".jsonl")[0][-1] for warning in report.warnings] == ["b", "c"]
    assert "no file" in report.warnings[0]
    assert "Permission denied" in report.warnings[1]


def test_several_paths_of_which_none_is_readable_are_all_named(tmp_path: Path) -> None:
    """One problem, and the others before it as warnings."""
    (tmp_path / "empty").mkdir()

    result = run(tmp_path / "gone.jsonl", tmp_path / "empty")

    assert result.exit_code == 1
    assert [name in line for name, line in zip(("empty", "gone"), result.stderr.splitlines(), strict=False)] == [
        True
    ] * 2


def test_without_a_pool_the_message_says_what_was_unreadable(tmp_path: Path) -> None:
    """The pool may be in what was left out."""
    path = tmp_path / "telemetry.jsonl"
    path.write_text(json.dumps(growing.metric(growing.COUNT, growing.point(asInt="many"))))

    result = run(path)

    assert result.exit_code == 1
    assert "left out 1 metric point" in result.stderr.splitlines()[0]
    assert "contains no connection pool" in result.stderr


# How much


def opcodes(call: Callable[[], object]) -> int:
    """How many instructions of Python a call executes."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("what", growing.GROWING)
def test_a_report_costs_what_there_is_to_read(tmp_path: Path, what: str) -> None:
    """Twice as much of anything costs twice as much: what 2 n more cost is twice what n more cost."""
    path = tmp_path / "telemetry.jsonl"

    def cost(n: int) -> int:
        path.write_text(growing.text(what, n))
        return opcodes(lambda: build_report([path]))

    n = 25
    cost(n)
    first, second, third = cost(n), cost(2 * n), cost(4 * n)
    # Quadratic would be 4.
    assert (third - second) / (second - first) < 2.4


@pytest.mark.parametrize("what", ["restarts", "what is not OTLP", "what does not follow OTLP"])
def test_memory_does_not_grow_with_what_adds_nothing(tmp_path: Path, what: str) -> None:
    """Points of a known series, and what is left out, are read line by line and not kept."""
    path = tmp_path / "telemetry.jsonl"

    def peak(n: int) -> int:
        path.write_text(growing.text(what, n))
        tracemalloc.start()
        build_report([path])
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(2000) < 1.2 * peak(200) + 20_000


def test_what_is_kept_has_a_bound_and_the_rest_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans, events and series beyond it are left out; the report says how many, and the fix."""
    for name in ("MOST_SPANS", "MOST_EVENTS", "MOST_SERIES"):
        monkeypatch.setattr(reader, name, 5)
    path = tmp_path / "telemetry.jsonl"
    path.write_text("".join(growing.text(what, 8) for what in ("holds", "findings", "series")))

    report = build_report([path])

    assert sum(finding.count for finding in report.findings) == 5
    assert [warning.split(":")[0] for warning in report.warnings] == [
        "left out 3 spans",
        "left out 3 events",
        "left out 4 metric points of further series",
    ]
    assert all("keeps the first 5" in warning and "Report on a part" in warning for warning in report.warnings)


def test_a_thousand_starts_of_one_counter_add_up(tmp_path: Path) -> None:
    """Also beyond those that are kept apart."""
    path = tmp_path / "telemetry.jsonl"
    path.write_text(growing.text("start times", 2500))

    (pool,) = [pool for pool in build_report([path]).pools if pool.name == "p"]

    assert pool.timeouts == 2500


# Terminals


def named(text: str) -> str:
    """A recording in which a pool, a service, a route, a reason and a finding have this text in their names."""
    everything = "".join(f"{line}\n" for line in RECORDED)
    for name in ("shop", "POST /checkout/{id}", "db.example", "close the session", "postgresql", "GET /cart/{id}"):
        everything = everything.replace(json.dumps(name), json.dumps(f"<{text}>"))
    return everything.replace('"poolscope.evidence.', f'"poolscope.evidence.{json.dumps(text)[1:-1]}')


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_names_are_shown_and_not_obeyed(tmp_path: Path, number: int) -> None:
    """Control codes and marks of direction are escaped, markup is text, and every row of a table is equally wide."""
    text = TEXTS[number]
    path = tmp_path / "telemetry.jsonl"
    path.write_text(named(text))

    result = run("--svg", tmp_path / "picture.svg", path)

    assert result.exit_code == 0
    check(0, result.stdout, result.stderr, path, as_json=False)
    assert {cell_len(line) for line in result.stdout.splitlines()} == {80}
    assert "<svg" in (tmp_path / "picture.svg").read_text()
    if text.startswith("["):
        assert f"<{text}>" in "".join(result.stdout.split())
    document = run("--json", path).stdout
    check(0, document, "", path, as_json=True)
    assert json.loads(document)["pools"][0]["name"].startswith(f"<{text[:9000]}")


def test_names_on_the_command_line_are_shown_and_not_obeyed(tmp_path: Path) -> None:
    """Those of files, of commands and of options."""
    odd = tmp_path / "a\x1b[31m\u202eb\n.jsonl"
    odd.write_text("no telemetry")
    surrogate = tmp_path / "c\udcff.jsonl"
    for arguments in (
        ["report", str(odd)],
        ["report", str(surrogate)],
        ["\x1b[2J"],
        ["report", "--\x1b[2J"],
        [odd.name],
    ):
        result = CliRunner().invoke(app, arguments, prog_name="poolscope")
        assert result.exit_code in {1, 2}
        assert [one for one in result.stderr if not (one.isprintable() or one == "\n")] == []
        assert "\\x1b" in result.stderr or "\\udcff" in result.stderr


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_the_doctor_shows_the_environment_and_does_not_obey_it(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is in the variables that it reads; none of them makes a check fail, none is printed with a login."""
    value = TEXTS[number].replace("\0", "").encode("utf-8", "replace").decode()[:2000]
    for variable in (
        "OTEL_METRICS_EXPORTER",
        "OTEL_TRACES_EXPORTER",
        "POOLSCOPE_DISABLED_ADAPTERS",
        "POOLSCOPE_LONG_HOLD",
    ):
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "otlp_proto_http")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://user:secret{value}@host:4317{value}")

    from poolscope import doctor

    only = [check for check in doctor.CHECKS if check.id in {"settings", "export"}]
    monkeypatch.setattr("poolscope.cli.doctor.examine", lambda: doctor.examine(only))
    for options in ([], ["--json"]):
        result = CliRunner().invoke(app, ["doctor", *options], prog_name="poolscope")
        assert result.exit_code in {0, 1}
        assert [one for one in result.output if not (one.isprintable() or one == "\n")] == []
        assert "This check failed" not in result.output
        assert "secret" not in result.output


@pytest.mark.parametrize("columns", ["0", "1", "7", "x", "-5", "100000000"])
def test_a_terminal_of_any_width_gets_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """What `COLUMNS` claims is taken as far as a table fits and a screen goes."""
    monkeypatch.setenv("COLUMNS", columns)
    path = tmp_path / "telemetry.jsonl"
    path.write_text(GOOD)

    result = run(path)

    assert result.exit_code == 0
    assert 20 <= max(map(cell_len, result.stdout.splitlines())) <= 500


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
def test_an_output_that_is_full_is_exit_code_1_with_a_message(tmp_path: Path) -> None:
    """No traceback, and none when the interpreter ends."""
    path = tmp_path / "telemetry.jsonl"
    path.write_text(GOOD)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "poolscope", "report", str(path)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )

    assert done.returncode == 1
    assert done.stderr.decode() == "Error: the output cannot be written: No space left on device\n"
