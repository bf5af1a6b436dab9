"""Fixtures: the programs of the pipeline, or a skip that says how to get them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.skips import PIPELINE_TOOL_MISSING, require

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.shops import Scene, Shops


SCENE: pytest.StashKey[Scene] = pytest.StashKey()


def _or_skip(name: str) -> Path:
    # Not at the top: the matrix has no PyYAML.
    from examples.lab import pipeline

    try:
        found: Path = getattr(pipeline, f"{name}_binary")()
    except pipeline.MissingBinaryError as missing:
        what, _, fix = str(missing).partition(": ")
        require(present=None, missing=f"{PIPELINE_TOOL_MISSING}: {what}", fix=fix)
        raise
    return found


@pytest.fixture(scope="session")
def collector() -> Path:
    """The built Collector."""
    return _or_skip("collector")


@pytest.fixture(scope="session")
def prometheus() -> Path:
    """The built Prometheus."""
    return _or_skip("prometheus")


@pytest.fixture(scope="session")
def alertmanager() -> Path:
    """Alertmanager, as installed."""
    return _or_skip("alertmanager")


@pytest.fixture(scope="session")
def promtool() -> Path:
    """The built promtool."""
    from tools.pipeline_build import find_binaries

    found = find_binaries().promtool
    require(found, f"{PIPELINE_TOOL_MISSING}: promtool is not built", "make pipeline-build (needs Go, minutes, once)")
    assert found
    return found


@pytest.fixture(scope="session")
def scene(
    collector: Path,
    prometheus: Path,
    alertmanager: Path,
    tmp_path_factory: pytest.TempPathFactory,
    pytestconfig: pytest.Config,
) -> Iterator[Scene]:
    """The shops under load, not yet opened."""
    from tests.support.shops import Scene

    made = pytestconfig.stash[SCENE] = Scene(tmp_path_factory.mktemp("shops"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def shops(scene: Scene) -> Shops:
    """The shops under load, one scene for every test of the run that looks at them."""
    return scene.open()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Close the shops once no test looks at them any more: they report twice a second for as long as they stand."""
    looks, goes_on = ("shops" in getattr(each, "fixturenames", ()) for each in (item, nextitem))
    if looks and not goes_on and (made := item.config.stash.get(SCENE, None)):
        made.close()
