from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.pipeline.emitter import Process


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
