"""
What every test shares: a real PostgreSQL, a clean process, and the reports of skips.
"""

from __future__ import annotations

import os
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from tests.support.skips import pytest_runtest_makereport, pytest_terminal_summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

__all__ = ["pytest_runtest_makereport", "pytest_terminal_summary"]

TESTS = Path(__file__).parent
# One file after the other on one worker: these start servers or load the machine.
GROUPED_BY_FILE = ("integration",)
GROUPED_WHOLE = ("pipeline",)
# Not at the same time either: the one takes all of the machine, the other one looks for what is slow.
NEVER_TOGETHER = ("test_load.py", "test_demo.py")

hypothesis.settings.register_profile("dev", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "dev")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """
    Keep on one worker what shares a server.
    """
    for item in items:
        layer = item.path.relative_to(TESTS).parts[0] if item.path.is_relative_to(TESTS) else ""
        if layer in GROUPED_WHOLE:
            item.add_marker(pytest.mark.xdist_group(layer))
        elif layer in GROUPED_BY_FILE:
            name = item.path.name
            item.add_marker(pytest.mark.xdist_group(NEVER_TOGETHER[0] if name in NEVER_TOGETHER else name))


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """
    A PostgreSQL for the whole run of this worker; `POOLSCOPE_TEST_DSN` names another one, as a superuser.
    """
    from examples.lab.postgres import postgres

    with postgres(variable="POOLSCOPE_TEST_DSN", max_connections=200) as server:
        yield server


@pytest.fixture(scope="module")
def database(postgres: Postgres) -> Iterator[Postgres]:
    """
    An empty database for the tests of one module.
    """
    made = postgres.create_database(f"poolscope_{uuid.uuid4().hex[:12]}")
    yield made
    postgres.drop_database(made.database)


@pytest.fixture(autouse=True)
def _originals_are_back() -> Iterator[None]:
    """
    Every test leaves the libraries as it found them: uninstrumented, every original in its place.
    """
    before = _patches()
    guard = sys.modules.get("poolscope.core.guard")
    if guard is not None:
        guard.guard.reset()  # what an earlier test made fail is not this one's
    yield
    instrumentor = sys.modules.get("poolscope.instrumentor")
    if instrumentor is not None:
        active = instrumentor.PoolscopeInstrumentor()
        if active.is_instrumented_by_opentelemetry:
            active.uninstrument()
    # Not against (): one test that leaves something is one failure.
    assert _patches() == before, "uninstrument() left patches behind"


def _patches() -> tuple[str, ...]:
    patching = sys.modules.get("poolscope.patching")
    return () if patching is None else tuple(patching.active_patches())
