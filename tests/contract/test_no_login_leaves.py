"""
What leaves by any way: exported bytes, log lines, what is printed. A pool is used, exhausted, and refused by its
server, with a login of words that occur nowhere else; none of them may be found.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs import export as log_export

import poolscope
from examples.lab.postgres import Postgres
from examples.lab.processes import wait_until
from poolscope import semconv
from poolscope.adapters.address import TORN, server_of
from poolscope.cli.app import app
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.clock import monotonic
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from poolscope.detectors.server_probe import ServerProbe
from poolscope.doctor import CHECKS, Check, examine
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import DEADLINE, Feature
from tests.support.markers import HOST, PORT, Login, odd, secrets_in, torn
from tests.support.scale import WHOLE, times
from tests.support.skips import require
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from poolscope.core.pool import Pool
    from tests.contract.drivers.base import Driver

USER, PASSWORD = "zq7xuser@a:b/c%20", "zq7xpass@zq7xrest/48271?zq7xmore#%"
WRONG = (
    Login(password="zq7xpass@zq7xrest?zq7xmore"),
    Login(password="48271/zq7xrest"),
    Login(user="zq7xuser@zq7xdomain", password="zq7x#zq7xrest", query=(("sslpassword", "zq7xkey"),)),
    Login(password="zq7x%zzz zq7xrest", query=(("options", "-c search_path=zq7xpath"), ("passfile", "/zq7xfile"))),
)


#: Every driver; in CI the first of each library.
KINDS = all_drivers() if WHOLE else list({kind.adapter: kind for kind in reversed(all_drivers())}.values())


@dataclass(frozen=True)
class Elsewhere(Postgres):
    """A place that is named by a text without quotes, and that refuses the login."""

    login: Login = field(default_factory=Login)

    def url(self, driver: str = "") -> str:
        return replace(self.login, host=self.host, port=str(self.port), database=self.database).url(
            f"postgresql+{driver}" if driver else "postgresql", quoted=False
        )


class Outlets:
    """
    Everything by which something leaves poolscope, kept.

    Args:
        folder: For the file of telemetry.
        settings: Poolscope's.
    """

    def __init__(self, folder: Path, **settings: object) -> None:
        self.lines: list[str] = []
        self._file = folder / "telemetry.jsonl"
        kept = getattr(log_export, "InMemoryLogRecordExporter", None) or log_export.InMemoryLogExporter
        self._events = kept()
        self._provider = LoggerProvider(shutdown_on_exit=False)
        self._provider.add_log_record_processor(log_export.SimpleLogRecordProcessor(self._events))
        self.telemetry = Telemetry(logger_provider=self._provider, **settings)

    def found(self) -> set[str]:
        """The ids of the findings so far."""
        self.telemetry.instrumentor.flush()
        records = [getattr(one, "log_record", one) for one in self._events.get_finished_logs()]
        return {str(dict(record.attributes or {}).get(semconv.FINDING_ID)) for record in records}

    def written(self) -> Iterator[tuple[str, str]]:
        """Each outlet, and what went out by it."""
        self.telemetry.instrumentor.flush()
        metrics, spans = self.telemetry.reader.get_metrics_data(), self.telemetry.exporter.get_finished_spans()
        events = self._events.get_finished_logs()
        assert metrics is not None
        yield "log", "\n".join(self.lines)
        yield "metrics", metrics.to_json()
        yield "spans", "\n".join(span.to_json() for span in spans)
        yield "events", "\n".join((one if hasattr(one, "to_json") else one.log_record).to_json() for one in events)
        proto, files = "opentelemetry.exporter.otlp.proto.common", "opentelemetry.exporter.otlp.json.file"
        signals = (
            ("metrics", metrics, "metrics_encoder", "encode_metrics", "metric_exporter", "FileMetricExporter"),
            ("spans", spans, "trace_encoder", "encode_spans", "trace_exporter", "FileSpanExporter"),
            ("events", events, "_log_encoder", "encode_logs", "_log_exporter", "FileLogExporter"),
        )
        for name, data, encoder, encode, exporter, kind in signals:
            with contextlib.suppress(ImportError):
                message = getattr(importlib.import_module(f"{proto}.{encoder}"), encode)(data)
                yield f"protobuf, {name}", message.SerializeToString().decode("utf-8", "replace")
            with contextlib.suppress(ImportError):
                file = getattr(importlib.import_module(f"{files}.{exporter}"), kind)(self._file)
                file.export(data)
                file.shutdown()
        if self._file.exists():
            yield "file", self._file.read_text()
            for arguments in (("report",), ("report", "--json")):
                said = CliRunner().invoke(app, [*arguments, str(self._file)], prog_name="poolscope")
                assert said.exit_code == 0
                yield "report", said.output

    def shutdown(self) -> None:
        """Uninstrument and end the SDK."""
        self.telemetry.shutdown()
        self._provider.shutdown()


class Lines(logging.Handler):
    """Keeps each line of poolscope's as it would be written, with what was raised."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(logging.DEBUG)
        self._lines = lines
        self.setFormatter(logging.Formatter("%(asctime)s %(name)s %(threadName)s %(pathname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.append(self.format(record))


@pytest.fixture
def outlets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outlets]:
    """Poolscope, on, with all its outlets open, and quick to find something."""
    monkeypatch.setattr(TORN, "_places", {})
    quick = {
        "long_hold_threshold": 0.01,
        "exhaustion_threshold": 0.01,
        "leak_threshold": 0.01,
        "finding_interval": 0.01,
    }
    outlets = Outlets(tmp_path, **quick, hold_spans=True, checkout_spans="always")
    logger, handler = logging.getLogger("poolscope"), Lines(outlets.lines)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        outlets.telemetry.start()
        yield outlets
    finally:
        outlets.shutdown()
        logger.removeHandler(handler)
        logger.setLevel(level)


@pytest.fixture
def place(database: Postgres) -> Iterator[Postgres]:
    """The database, for a role whose name and password are odd."""
    with database.connect() as connection:
        connection.execute(f"create role \"{USER}\" superuser login password '{PASSWORD}'")
    yield replace(database, user=USER, password=PASSWORD)
    with database.connect() as connection:
        connection.execute(f'drop role "{USER}"')


def span(outlets: Outlets, name: str) -> AbstractContextManager[object]:
    """A span of the application's, which keeps the messages of its exceptions to itself."""
    return outlets.telemetry.tracer.start_as_current_span(name, record_exception=False, set_status_on_exception=False)


def use(driver: Driver, outlets: Outlets) -> None:
    """Hold a connection for long, run into the limit, have the holders dumped."""
    session: Any = outlets.telemetry.instrumentor._session
    with span(outlets, "request"), poolscope.unit_of_work("orders"):
        handle = driver.acquire()
        if Feature.STATEMENTS in driver.features:
            driver.query(handle)
        if Feature.LIMIT in driver.features or Feature.REJECTS in driver.features:
            with contextlib.suppress(Exception), span(outlets, "another"):
                driver.acquire()
        session._dump.request()
        wait_until(lambda: LEAK in outlets.found() or LONG_HOLD in outlets.found(), DEADLINE, "a finding")
        driver.release(handle)


def probe(pools: Iterable[Pool]) -> None:
    """Ask each server whom one of its processes waits for, with the login of the pool."""
    for pool in pools:
        asked = ServerProbe(1.0, monotonic)
        asked.send(pool, pool.identity.name, {1})
        asked.wait(DEADLINE)


@pytest.mark.reliability(
    fault="a pool whose login is odd is exhausted, its server refuses logins, all that poolscope can say is asked for",
    application="the same values and exceptions",
    lost="nothing but what is no address for certain",
)
# Of mysql-connector, which sends the span along, to a server that does not take it.
@pytest.mark.filterwarnings("ignore:This version of the server does not support Query Attributes")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.label)
def test_no_word_of_a_login_leaves(
    kind: type[Driver], place: Postgres, outlets: Outlets, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """
    Neither metrics, spans, events, reports nor dumps have a word of a login, nor has any line of poolscope's log at its
    lowest level, nor standard error: with a login that works, and with others that are refused or malformed.
    """
    require(kind.missing() is None, str(kind.missing()), "make env")
    capfd: pytest.CaptureFixture[str] = request.getfixturevalue("capfd")
    monkeypatch: pytest.MonkeyPatch = request.getfixturevalue("monkeypatch")
    driver, pools = kind(), open_pool_registries[-1].pools
    driver.start(place if driver.on_postgres else None, tmp_path, size=1, timeout=0.05)
    try:
        use(driver, outlets)
        probe(list(pools.values()))
    finally:
        driver.stop()
    # Where the server refuses every login, psycopg's pools would try for as long.
    monkeypatch.setattr("tests.contract.drivers.psycopg_pool.DEADLINE", 0.05)
    for login in WRONG[:: times(2, whole=1)] if driver.on_postgres else ():
        other = kind()
        where = Elsewhere(place.host, place.port, login.user, login.password, place.database, login=login)
        with contextlib.suppress(Exception):
            other.start(where, tmp_path, size=1, timeout=0.05)
            try:
                with span(outlets, "refused"), poolscope.unit_of_work("orders"):
                    other.acquire()
            finally:
                probe(list(pools.values()))
                other.stop()
    for outlet, text in outlets.written():
        assert secrets_in(text) == [], outlet
        assert text or outlet == "log", f"nothing left by {outlet}"
    assert any("in use, limit" in line for line in outlets.lines), "no dump was made"
    said = capfd.readouterr()
    assert secrets_in(said.err) == []
    assert not guard.counts(), "an odd login is no error of poolscope's"


@pytest.mark.parametrize("scheme", ["http://", ""])
def test_the_doctor_prints_no_login(scheme: str) -> None:
    """Nor does the doctor, of endpoints and settings; of a well-formed endpoint it prints host and port."""
    for number, login in enumerate((*torn(), *odd())):
        url = login.url("http", quoted=False).removeprefix("" if scheme else "http://")
        assert secrets_in(server_of(url)) == [], url
        if number % times(40, whole=1) == 0:
            environ = {
                "OTEL_METRICS_EXPORTER": "otlp",
                "OTEL_EXPORTER_OTLP_ENDPOINT": url,
                "POOLSCOPE_DUMP_SIGNAL": url,
            }
            remarks = [
                one for check in CHECKS if check.id in ("export", "settings") for one in _remarks(check, environ)
            ]
            assert remarks
            assert secrets_in(remarks) == [], url
    assert server_of(f"{scheme}zq7xuser:zq7xpass@{HOST}:{PORT}") == f"{HOST}:{PORT}"


def _remarks(check: Check, environ: dict[str, str]) -> list[object]:
    (result,) = examine((check,), environ).results
    return [(remark.text, remark.fix, remark.facts) for remark in result.remarks]
