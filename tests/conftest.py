"""What every test shares: a real PostgreSQL, a clean process, and the reports of skips."""

from __future__ import annotations

import gc
import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.handlers import handlers, put_back
from tests.support.programs import (
    alertmanager,
    collector,
    prometheus,
    promtool,
    pytest_runtest_teardown,
    scene,
    shops,
)
from tests.support.progress import pytest_configure
from tests.support.skips import pytest_runtest_makereport, pytest_terminal_summary

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from examples.lab.postgres import Postgres

# Fixtures and hooks that live beside what they need.
__all__ = [
    "alertmanager", "collector", "prometheus", "promtool", "pytest_configure", "pytest_runtest_makereport",
    "pytest_runtest_teardown", "pytest_terminal_summary", "scene", "shops",
]  # fmt: skip

TESTS = Path(__file__).parent
# One file after the other on one worker: these start servers or load the machine.
GROUPED_BY_FILE = ("integration", "pipeline")
# Not at the same time either: the one takes all of the machine, the other one looks for what is slow.
NEVER_TOGETHER = ("test_load.py", "test_demo.py")
# What waits for long, the longest first: a run starts with it, and works through the rest meanwhile.
LONGEST = (
    "scene", "pipeline/test_outage.py", "pipeline/test_failures.py", "integration/test_shop.py",
    "browser", "pipeline/test_rules.py", "pipeline/test_alerts_arrive.py", "test_load.py",
    "pipeline/test_postgresql.py", "integration/test_findings_orm.py",
)  # fmt: skip

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep on one worker what shares a server, and begin with what waits for long."""
    groups = {item: _group(item) for item in items}
    for item, group in groups.items():
        if group and not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(group))
    last = len(LONGEST)
    rank = {item: LONGEST.index(group) if group in LONGEST else last for item, group in groups.items()}
    # Where two layers look at one scene, first what is reported while it goes on, then what is drawn of it.
    items.sort(key=lambda item: (rank[item], _layer(item) != "pipeline"))


def _group(item: pytest.Item) -> str:
    if marker := item.get_closest_marker("xdist_group"):
        return str(marker.args[0])
    layer = _layer(item)
    if layer not in GROUPED_BY_FILE:
        return ""
    return NEVER_TOGETHER[0] if item.path.name in NEVER_TOGETHER else f"{layer}/{item.path.name}"


def _layer(item: pytest.Item) -> str:
    return item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    """Begin each file of tests with little garbage to collect."""
    result = yield
    if nextitem is not None and nextitem.path != item.path:
        _freeze()
    return result


def pytest_collection_finish() -> None:
    """Begin with little garbage to collect."""
    _freeze()


def _freeze() -> None:
    # What all tests share, and what a file of tests leaves behind in libraries, is taken out of every later collection,
    # and out of the search for pools that exist: hundreds of tests do both, and would look at a million objects each.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A PostgreSQL for the whole run of this worker; `POOLSCOPE_TEST_DSN` names another one, as a superuser."""
    from examples.lab.postgres import postgres

    with postgres(variable="POOLSCOPE_TEST_DSN", max_connections=200) as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Postgres]:
    """An empty database for the tests of one module."""
    made = postgres.create_database(f"poolscope_{uuid.uuid4().hex[:12]}")
    yield made
    postgres.drop_database(made.database)


@pytest.fixture(autouse=True)
def _originals_are_back() -> Iterator[None]:
    """Every test leaves the libraries as it found them: uninstrumented, every original in its place."""
    before = _patches()
    guard = sys.modules.get("poolscope.core.guard")
    if guard is not None:
        guard.guard.reset()  # what an earlier test made fail is not this one's
        guard.log_lines.forget()
    yield
    instrumentor = sys.modules.get("poolscope.instrumentor")
    if instrumentor is not None:
        active = instrumentor.PoolscopeInstrumentor()
        if active.is_instrumented_by_opentelemetry:
            active.uninstrument()
    # Not against (): one test that leaves something is one failure.
    assert _patches() == before, "uninstrument() left patches behind"


def _patches() -> tuple[str, ...]:
    patching = sys.modules.get("poolscope.hooks.patching")
    return () if patching is None else tuple(patching.active_patches())


@pytest.fixture(autouse=True)
def _handlers_are_back() -> Iterator[None]:
    """Every test leaves the handlers of signals as it found them."""
    before = handlers()
    yield
    left = put_back(before)
    assert not left, f"handlers of signals are left: {left}"
