"""
What the picture of an exhausted pool costs: CPU time of the thread that takes it, and of the rules that read it.

Usage:
    python benchmarks/picture.py [--leases N] [--json]
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

from poolscope.detectors.diagnosis.cause import cause_of  # noqa: E402 - the project's root is no package
from poolscope.detectors.diagnosis.load import Record  # noqa: E402
from poolscope.detectors.diagnosis.picture import Picture  # noqa: E402
from tests.support.scene import Scene  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

_ROUNDS = 9
# Frames between the request's function and what it waits for.
_DEPTH = 20
_ROUTES = 7


def measured(scene: Scene) -> tuple[float, float]:
    """Milliseconds for a picture and for its cause; the median of some."""
    waiter = scene.begin_checkout()
    record = Record(scene.pool)
    pictures, causes = [], []
    for _ in range(_ROUNDS):
        began = time.thread_time()
        picture = Picture.take(scene.pool, waiter)
        taken = time.thread_time()
        cause_of(picture, record)
        pictures.append(taken - began)
        causes.append(time.thread_time() - taken)
    return sorted(pictures)[_ROUNDS // 2] * 1000, sorted(causes)[_ROUNDS // 2] * 1000


def in_tasks(leases: int) -> tuple[float, float]:
    """Holders are tasks of one event loop."""

    async def wait(event: asyncio.Event, depth: int) -> None:
        if depth:
            await wait(event, depth - 1)
        else:
            await event.wait()

    async def request(scene: Scene, event: asyncio.Event, number: int) -> None:
        with scene.unit(f"GET /{number % _ROUTES}"):
            scene.query(scene.checkout(f"view{number % _ROUTES}"))
            await wait(event, _DEPTH)

    async def main() -> tuple[float, float]:
        scene, event = Scene(leases), asyncio.Event()
        tasks = [asyncio.create_task(request(scene, event, number)) for number in range(leases)]
        await asyncio.sleep(0)
        for _ in range(leases // 2):
            scene.begin_checkout()
        result = measured(scene)
        event.set()
        await asyncio.gather(*tasks)
        return result

    return asyncio.run(main())


def in_threads(leases: int) -> tuple[float, float]:
    """Holders are threads."""
    scene, event = Scene(leases), threading.Event()
    holds = threading.Barrier(leases + 1)

    def wait(depth: int) -> None:
        if depth:
            wait(depth - 1)
        else:
            holds.wait()
            event.wait()

    def request(number: int) -> None:
        with scene.unit(f"GET /{number % _ROUTES}"):
            scene.query(scene.checkout(f"view{number % _ROUTES}"))
            wait(_DEPTH)

    threads = [threading.Thread(target=request, args=(number,)) for number in range(leases)]
    for thread in threads:
        thread.start()
    holds.wait()
    for _ in range(leases // 2):
        scene.begin_checkout()
    result = measured(scene)
    event.set()
    for thread in threads:
        thread.join()
    return result


@click.command()
@click.option("--leases", default=200, show_default=True, help="How many connections are held.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def main(leases: int, *, as_json: bool) -> None:
    """Print milliseconds for a picture of so many leases, and for its cause."""
    ways: dict[str, Callable[[int], tuple[float, float]]] = {"tasks": in_tasks, "threads": in_threads}
    found = {name: way(leases) for name, way in ways.items()}
    if as_json:
        print(json.dumps({name: {"picture_ms": one, "cause_ms": two} for name, (one, two) in found.items()}))
        return
    for name, (picture, cause) in found.items():
        print(f"{leases} leases of {name}: picture {picture:.1f} ms, cause {cause:.1f} ms")


if __name__ == "__main__":
    main()
