from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import MissingBinaryError, alertmanager_binary, collector_binary, prometheus_binary
from tests.support.skips import PIPELINE_TOOL_MISSING, require
from tools.pipeline_build import find_binaries

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.pipeline.emitter import Process


def _or_skip(find: Callable[[], Path]) -> Path:
    try:
        return find()
    except MissingBinaryError as missing:
        what, _, cure = str(missing).partition(": ")
        require(present=None, missing=f"{PIPELINE_TOOL_MISSING}: {what}", cure=cure)
        raise


@pytest.fixture(scope="session")
def collector() -> Path:
    """
    The built Collector.
    """
    return _or_skip(collector_binary)


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """
    The built Prometheus.
    """
    return _or_skip(prometheus_binary)


@pytest.fixture(scope="session")
def alertmanager() -> Path:
    """
    Alertmanager, as installed.
    """
    return _or_skip(alertmanager_binary)


@pytest.fixture(scope="session")
def promtool() -> Path:
    """
    The built promtool.
    """
    found = find_binaries().promtool
    require(found, f"{PIPELINE_TOOL_MISSING}: promtool is not built", "make pipeline-build (needs Go, minutes, once)")
    assert found
    return found


@pytest.fixture
def processes() -> Iterator[Callable[..., Process]]:
    """
    Makes emitting processes and closes them at the end, at once: each may wait a second for a Collector that is gone.
    """
    from tests.pipeline.emitter import Process

    made: list[Process] = []

    def make(*arguments: object, **more: object) -> Process:
        made.append(Process(*arguments, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    with ThreadPoolExecutor() as pool:
        list(pool.map(Process.close, made))
