from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from examples.lab.pipeline import Credentials
    from tests.pipeline.emitter import Process


@pytest.fixture(scope="session")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    """Certificate and token for gateways on the loopback address."""
    from examples.lab.pipeline import make_credentials
    from examples.lab.processes import LOOPBACK

    return make_credentials(tmp_path_factory.mktemp("credentials"), LOOPBACK, "localhost")


@pytest.fixture
def processes() -> Iterator[Callable[..., Process]]:
    """
    Makes emitting processes and closes them at the end, at once: each may wait a second for a
    Collector that is gone.
    """
    from tests.pipeline.emitter import Process

    made: list[Process] = []

    def make(*arguments: object, **more: object) -> Process:
        made.append(Process(*arguments, **more))  # type: ignore[arg-type]
        return made[-1]

    yield make
    with ThreadPoolExecutor() as pool:
        list(pool.map(Process.close, made))
