"""The doctor: what keeps poolscope from working is found, said with its fix, and is the exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from poolscope.cli.app import app
from poolscope.core.guard import guard
from poolscope.core.pool_registry import PoolRegistry
from poolscope.doctor import (
    CHECKS,
    Check,
    Environment,
    Examination,
    Remark,
    Result,
    Status,
    configuration,
    examine,
    export,
    hooks,
    installation,
)
from poolscope.hooks.patching import Refused, active_patches
from poolscope.hooks.registry import HookRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from types import ModuleType

SILENT = {"OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}


@pytest.fixture(autouse=True)
def _counts() -> Iterator[None]:
    """What is caught here is no other test's."""
    yield
    guard.reset()


def statuses(remarks: Any) -> list[tuple[str, str]]:
    """The remarks that are not fine; each has a fix."""
    found = [one for one in remarks if one.status is not Status.OK]
    assert all(one.fix for one in found)
    return [(one.status.value, one.text) for one in found]


def packages(monkeypatch: pytest.MonkeyPatch, installed: dict[str, str], points: dict[str, list[str]]) -> None:
    """An interpreter with these distributions and entry points."""
    for module in (installation, export):
        monkeypatch.setattr(module, "installed", lambda package: installed.get(package, ""))
        monkeypatch.setattr(
            module,
            "entry_points",
            lambda group, name=None: [
                EntryPoint(one.partition("=")[0], one.partition("=")[2], group)
                for one in points.get(group, [])
                if name in (None, one.partition("=")[0])
            ],
        )


# As a whole


def test_here_it_works() -> None:
    """
    In an environment where telemetry is configured: exit code 0, no problem, every installed pool library is
    instrumented, and the document says so.
    """
    done = subprocess.run(
        [sys.executable, "-m", "poolscope", "doctor", "--json"],
        env={**os.environ, **SILENT},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert (document["version"], document["works"]) == (1, True)
    assert [check["id"] for check in document["checks"]] == [check.id for check in CHECKS]
    pools = {one["facts"]["name"]: one["facts"] for one in document["checks"][3]["remarks"]}
    assert pools["sqlalchemy"]["state"] == "active"
    assert pools["sqlalchemy"]["version"]


def test_a_check_that_fails_keeps_no_other_from_running() -> None:
    """It is a problem of its own."""

    def breaks(_: Environment) -> list[Remark]:
        raise OSError("no such thing")

    fine = Check("fine", "Fine", lambda _: [Remark(Status.OK, "fine")])
    examination = examine((Check("broken", "Broken", breaks), fine), {})
    assert [result.id for result in examination.results] == ["broken", "fine"]
    assert f"OSError at {__file__}:" in examination.results[0].remarks[0].text
    assert not examination.works


@pytest.mark.parametrize(("status", "code"), [(Status.OK, 0), (Status.WARNING, 0), (Status.PROBLEM, 1)])
def test_a_problem_is_exit_code_1(status: Status, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warning is not: poolscope works. The fix stands below what it is for, in text and in the document."""
    remark = Remark(status, "it is so", "do that" if status is not Status.OK else "")
    monkeypatch.setattr("poolscope.cli.doctor.examine", lambda: Examination((Result("a", "A", (remark,)),)))
    text, document = (CliRunner().invoke(app, ["doctor", *option]) for option in ([], ["--json"]))
    assert (text.exit_code, document.exit_code) == (code, code)
    assert "it is so" in text.stdout
    assert ("do that" in text.stdout) == (status is not Status.OK)
    assert json.loads(document.stdout)["works"] is (code == 0)


# What is installed


def test_the_way_in_for_auto_instrumentation(monkeypatch: pytest.MonkeyPatch) -> None:
    """The entry point is found, or that it is not; a variable that disables it is named."""
    group = "opentelemetry_instrumentor"
    packages(monkeypatch, {}, {group: ["poolscope=poolscope.instrumentor:PoolscopeInstrumentor"]})
    assert statuses(installation.entry_point(Environment.of({}))) == []
    disabled = Environment.of({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "flask, poolscope"})
    ((status, text),) = statuses(installation.entry_point(disabled))
    assert (status, "DISABLED_INSTRUMENTATIONS" in text) == ("problem", True)
    packages(monkeypatch, {}, {group: ["flask=opentelemetry.instrumentation.flask:FlaskInstrumentor"]})
    assert [status for status, _ in statuses(installation.entry_point(Environment.of({})))] == ["problem"]


def test_what_poolscope_needs_and_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each by its name."""
    packages(monkeypatch, {"opentelemetry-api": "1.45", "opentelemetry-semantic-conventions": "1", "wrapt": "2"}, {})
    assert statuses(installation.versions(Environment.of({}))) == [
        ("problem", "opentelemetry-instrumentation is not installed")
    ]


# Settings


def test_settings_in_effect_and_wrong_ones() -> None:
    """
    What differs from its default is shown; a wrong value, a misspelt name and an unknown adapter are warnings; that
    poolscope is off is a problem.
    """
    environ = {
        "POOLSCOPE_STACK_DEPTH": "9",
        "POOLSCOPE_MAX_POOLS": "many",
        "POOLSCOPE_LEAK_TRESHOLD": "5",
        "POOLSCOPE_DISABLED_ADAPTERS": "asyncpgg",
    }
    remarks = list(configuration.settings(Environment.of(environ)))
    assert any(one.text.startswith("POOLSCOPE_STACK_DEPTH=9 ") for one in remarks)
    found = statuses(remarks)
    assert {status for status, _ in found} == {"warning"}
    for words in ("POOLSCOPE_MAX_POOLS='many'", "Did you mean POOLSCOPE_LEAK_THRESHOLD?", "'asyncpgg'"):
        assert sum(words in text for _, text in found) == 1
    assert statuses(configuration.settings(Environment.of({}))) == []
    off = statuses(configuration.settings(Environment.of({"POOLSCOPE_ENABLED": "false"})))
    assert [status for status, _ in off] == ["problem"]


# Hooks


class Library:
    """
    A pool library, with an adapter for it.

    Args:
        name: Of both.
        hook: What hooking does.
        versions: What is supported.
    """

    def __init__(self, name: str, hook: Callable[[ModuleType], None], versions: str = ">=1,<2") -> None:
        self.name = self.module = name
        self.versions = versions
        self.released = 0
        self._hook = hook

    def hook(self, module: ModuleType, patcher: Any, _: PoolRegistry) -> None:
        patcher.wrap(module, "connect", lambda wrapped, _, args, kwargs: wrapped(*args, **kwargs))
        self._hook(module)

    def release(self) -> None:
        self.released += 1


def refuses(_: ModuleType) -> None:
    """As where a symbol is gone."""
    raise Refused("Pool has no acquire")


def fails(_: ModuleType) -> None:
    """As a bug of ours."""
    raise KeyError("ours")


@pytest.mark.parametrize(
    ("hook", "source", "status", "words"),
    [
        (lambda _: None, "__version__ = '1.5'", "ok", "1.5 is instrumented (supported: >=1,<2)"),
        (lambda _: None, "__version__ = '2.1'", "warning", "2.1 is instrumented, but no version outside of >=1,<2"),
        (lambda _: None, "__version__ = 'unknown'", "ok", "is instrumented"),
        (refuses, "__version__ = '1.5'", "problem", "1.5 is not instrumented: Pool has no acquire"),
        (fails, "__version__ = '1.5'", "problem", "1.5 is not instrumented: its hooks failed"),
        (lambda _: None, "raise OSError('libpq')", "warning", "cannot be imported: OSError at "),
    ],
    ids=["fits", "newer", "odd", "refuses", "fails", "broken"],
)
def test_hooks_are_tried_and_taken_out(
    hook: Callable[[ModuleType], None],
    source: str,
    status: str,
    words: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    """Each library that is installed is reported as it is, with its version; nothing is patched afterwards."""
    name = f"doctors_pool_{request.node.callspec.id}"
    (tmp_path / f"{name}.py").write_text(f"{source}\n\ndef connect():\n    pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    library, absent = Library(name, hook), Library("doctors_absent_pool", hook)
    before = active_patches()
    registry: HookRegistry[Any] = HookRegistry(PoolRegistry(()), [library, absent], (), "")
    (remark,) = hooks._remarks(registry, {})
    assert (remark.status.value, bool(remark.fix)) == (status, status != "ok")
    assert words in remark.text
    assert active_patches() == before


def test_without_a_pool_library_there_is_nothing_to_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """
    It says how to run the doctor where the service runs; a library that a setting disables is no
    problem by itself.
    """
    monkeypatch.setattr(hooks, "_is_installed", lambda _: False)
    assert [status for status, _ in statuses(hooks.pool_libraries(Environment.of({})))] == ["problem"]
    assert [status for status, _ in statuses(hooks.frameworks(Environment.of({})))] == ["warning"]
    monkeypatch.setattr(hooks, "_is_installed", lambda hook: hook.name == "asyncpg")
    disabled = Environment.of({"POOLSCOPE_DISABLED_ADAPTERS": "asyncpg"})
    assert [text for _, text in statuses(hooks.pool_libraries(disabled))] == [
        "Every pool library is disabled by a setting"
    ]


# Telemetry

SDK = {"opentelemetry-sdk": "1.45"}
DISTRO = {**SDK, "opentelemetry-distro": "0.66b1"}
CONFIGURATOR = {"opentelemetry_configurator": ["configurator=opentelemetry.distro:OpenTelemetryConfigurator"]}
HTTP = {f"opentelemetry_{signal}_exporter": ["otlp_proto_http=package"] for signal in ("metrics", "traces", "logs")}


def exporters(signals: str) -> dict[str, str]:
    """The variables that send all three signals there."""
    return {f"OTEL_{signal}_EXPORTER": signals for signal in ("METRICS", "TRACES", "LOGS")}


@pytest.mark.parametrize(
    ("installed", "points", "environ", "found"),
    [
        ({}, {}, {}, ["problem"]),
        (SDK, {**CONFIGURATOR, **HTTP}, exporters("otlp_proto_http"), []),
        (SDK, {**CONFIGURATOR, **HTTP}, {**exporters("otlp"), "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, []),
        (SDK, {**CONFIGURATOR, **HTTP}, exporters("otlp"), ["problem"] * 3),
        (SDK, {**CONFIGURATOR, **HTTP}, exporters("none"), ["warning"]),
        (SDK, {**CONFIGURATOR, **HTTP}, {}, ["warning"]),
        (SDK, HTTP, exporters("otlp_proto_http"), ["warning"]),
        (DISTRO, {**CONFIGURATOR, **HTTP}, {}, ["warning"] * 3),
        (DISTRO, {**CONFIGURATOR, **HTTP}, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, []),
        (DISTRO, {**CONFIGURATOR, **HTTP}, {**exporters("otlp_proto_http"), "OTEL_SDK_DISABLED": "True"}, ["problem"]),
    ],
)
def test_whether_telemetry_leaves(
    installed: dict[str, str],
    points: dict[str, list[str]],
    environ: dict[str, str],
    found: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A missing SDK, an SDK that is off and an exporter that is asked for and not there are problems. What only
    opentelemetry-instrument would miss, or the application may configure itself, is a warning.
    """
    packages(monkeypatch, installed, points)
    assert [status for status, _ in statuses(export.export(Environment.of(environ)))] == found


def test_no_login_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where telemetry goes is said without what a URL or a header may hold of secrets."""
    packages(monkeypatch, SDK, {**CONFIGURATOR, **HTTP})
    environ = {
        **exporters("otlp_proto_http"),
        "OTEL_EXPORTER_OTLP_ENDPOINT": "https://user:secret@collector.example:4318",
        "OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret",
    }
    texts = " ".join(one.text for one in export.export(Environment.of(environ)))
    assert "metrics: otlp_proto_http to collector.example:4318" in texts
    assert "secret" not in texts
