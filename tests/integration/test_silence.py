"""Without a listener nothing happens; and with one nothing secret leaves."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy
from opentelemetry.instrumentation.utils import suppress_instrumentation

from poolscope import semconv
from tests.support.telemetry import Telemetry, instrumented

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

ROOT = Path(__file__).parent.parent.parent


def run(kind: str, **variables: str) -> Any:
    """Run the silent program."""
    program = subprocess.run(
        [sys.executable, "-m", "tests.integration.programs.silent", kind],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
        cwd=ROOT,
        env={**os.environ, **variables},
    )
    assert program.returncode == 0, program.stderr
    assert program.stderr == ""
    return json.loads(program.stdout)


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(checkout_spans="always")


def test_without_an_sdk_the_hooks_sleep() -> None:
    """
    The application works; no ask is measured, no thread runs, no pool is marked, nothing is logged. Looking out for an
    SDK now and then leaves nothing behind in the API.
    """
    report = run("none")
    dormant = {"asleep": True, "asks": 0, "marks": [], "threads": [], "errors": {}}
    assert report["before"] == report["after"] == dormant
    assert report["providers"] == ["_ProxyMeterProvider", "ProxyTracerProvider"]
    assert report["meters"] == 0


def test_with_the_sdk_disabled_the_hooks_sleep() -> None:
    """`OTEL_SDK_DISABLED=true` is as no SDK."""
    report = run("disabled", OTEL_SDK_DISABLED="true")
    assert report["before"] == report["after"]
    assert (report["after"]["asleep"], report["after"]["asks"], report["exported"]) == (True, 0, [])


def test_an_sdk_that_is_set_late_wakes_them() -> None:
    """
    A provider that comes after `instrument()` is heard of as it is set: the very next checkout is counted. What was
    held by then is in use until it comes back. A TracerProvider that comes after that one has its spans, and the first
    request under it has its figures on its own.
    """
    report = run("late")
    assert report["before"]["asleep"] is True
    assert report["after"]["asleep"] is False
    assert (report["asked"], report["holds"], report["queries"]) == (6, 1, 1)
    assert (report["used"], report["drift"]) == (0, 0)
    assert semconv.WAIT_TIME.name in report["exported"]
    assert report["after"]["errors"] == {}


def test_suppressed_instrumentation(telemetry: Telemetry, tmp_path: Path) -> None:
    """
    What is asked for under `suppress_instrumentation` is no point of wait or use and no span; it is in use all the
    same, so nothing drifts: not when it is returned outside, nor when one checked out outside is returned inside.
    """
    engine = sqlalchemy.create_engine(f"sqlite:///{tmp_path / 'suppressed.db'}", pool_logging_name="suppressed")
    with telemetry.tracer.start_as_current_span("request"):
        outside = engine.connect()
        with suppress_instrumentation():
            inside = engine.connect()
            engine.connect().close()
            outside.close()
            assert telemetry.collect().used("suppressed") == 1
        inside.close()
    collected = telemetry.collect()
    assert (collected.used("suppressed"), collected.value(semconv.DRIFT, "suppressed")) == (0, 0)
    assert collected.counts(semconv.WAIT_TIME, "suppressed") == {"": 1}
    assert collected.counts(semconv.USE_TIME, "suppressed") == {"": 1}
    assert len(telemetry.spans(semconv.CHECKOUT_SPAN)) == len(telemetry.spans(semconv.HOLD_SPAN)) == 1
    engine.dispose()


def test_nothing_of_a_dsn_leaves(telemetry: Telemetry, database: Postgres) -> None:
    """
    No byte of user, password or query string is in what is exported: of an engine that works, one that cannot connect,
    one with all of it in its URL, and statements with parameters.
    """
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    text = io.StringIO()
    telemetry.tracer_provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=text)))
    role = "SECRETUSER"
    with database.connect() as connection:
        connection.execute(f"CREATE ROLE \"{role}\" SUPERUSER LOGIN PASSWORD 'SECRETPASSWORD'")
    place = f"{database.host}:{database.port}/{database.database}"
    query = "application_name=SECRETQUERY&options=-c%20search_path%3DSECRETOPTION"
    working = sqlalchemy.create_engine(f"postgresql+psycopg://{role}:SECRETPASSWORD@{place}?{query}")
    broken = sqlalchemy.create_engine(f"postgresql+psycopg://{role}:SECRETPASSWORD@127.0.0.1:1/SECRETLESS?{query}")
    local = sqlalchemy.create_engine("sqlite:////nonexistent/SECRETFOLDER/shop.db?uri=true")
    with telemetry.tracer.start_as_current_span("request"):
        with working.connect() as connection:
            connection.execute(sqlalchemy.text("select :word"), {"word": "SECRETPARAMETER"})
        for engine in (broken, local):
            with pytest.raises(sqlalchemy.exc.OperationalError):
                engine.connect()
    exported = telemetry.reader.get_metrics_data().to_json()
    telemetry.spans()
    assert "hold 127.0.0.1" in text.getvalue()
    assert "checkout 127.0.0.1:1/SECRETLESS" in text.getvalue()
    assert "shop.db" in exported
    for output in (exported, text.getvalue()):
        assert "SECRET" not in output.replace("SECRETLESS", "")
    for engine in (working, broken, local):
        engine.dispose()
    with database.connect() as connection:
        connection.execute(f'DROP ROLE "{role}"')


def test_importing_poolscope_is_cheap() -> None:
    """`import poolscope` brings neither SQLAlchemy nor another pool library nor the SDK."""
    program = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import poolscope"],
        capture_output=True,
        text=True,
        timeout=110,
        check=True,
        cwd=ROOT,
    )
    imported = {line.rpartition("|")[2].strip() for line in program.stderr.splitlines()}
    assert "poolscope" in imported
    heavy = ("sqlalchemy", "psycopg", "asyncpg", "opentelemetry.sdk", "flask", "django", "click", "rich")
    assert [name for name in imported if name.startswith(heavy)] == []


def test_importing_the_instrumentor_brings_no_library() -> None:
    """What `opentelemetry-instrument` imports brings no pool library and no SDK either."""
    code = "import sys, poolscope.instrumentor; print('\\n'.join(sys.modules))"
    program = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=110, check=True)
    heavy = ("sqlalchemy", "psycopg", "asyncpg", "opentelemetry.sdk", "flask", "django")
    assert [name for name in program.stdout.splitlines() if name.startswith(heavy)] == []
