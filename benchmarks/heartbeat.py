"""
What the heartbeat of an event loop costs: CPU time of the whole process for one, the loop's own part included.

Usage:
    python benchmarks/heartbeat.py
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from poolscope.core.event_loops import INTERVAL, EventLoops  # noqa: E402 - the project's root is no package
from poolscope.core.pool_identity import Identity  # noqa: E402
from poolscope.core.pool_registry import PoolRegistry  # noqa: E402
from poolscope.core.runner import INTERVAL as RUN_INTERVAL  # noqa: E402
from tests.support.pools import Source  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.pool import Pool

NUMBER: Final = 3_000
#: Connections that tasks of the loop hold meanwhile: who uses loops is looked up once a second.
HELD: Final = 20
# Longer than a heartbeat takes, so that each comes back before the next one.
_PAUSE: Final = 0.001


def seconds_each(call: Callable[[], None]) -> float:
    """CPU seconds of the process for one call and the pause after it."""
    began = time.process_time()
    for _ in range(NUMBER):
        call()
        time.sleep(_PAUSE)
    return (time.process_time() - began) / NUMBER


async def hold(pool: Pool) -> None:
    """A task that holds a connection for ever."""
    pool.checkout().acquired()
    await asyncio.Event().wait()


def run(loop: asyncio.AbstractEventLoop, pool: Pool) -> None:
    """A loop with tasks that hold connections."""
    asyncio.set_event_loop(loop)
    tasks = [loop.create_task(hold(pool)) for _ in range(HELD)]
    loop.run_forever()
    for task in tasks:
        task.cancel()
    loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))


def main() -> None:
    """Print the cost."""
    event_loops = EventLoops(bounds=(0.1, 1.0))
    pool_registry = PoolRegistry((0.1, 1.0), event_loops=event_loops)
    pool = pool_registry.register(Identity("shop", "postgresql"), Source(HELD))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=run, args=(loop, pool))
    thread.start()
    while len(pool.leases) < HELD:
        time.sleep(_PAUSE)
    pools = [pool]
    each = min(
        seconds_each(lambda: event_loops.tick(pools)) - seconds_each(lambda: None) for _ in range(5)
    )  # the best of five: other processes only add
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    assert event_loops.lag is not None
    assert event_loops.lag.read().count > NUMBER
    print(f"one heartbeat: {each * 1e6:.1f} us of CPU")
    for name, interval in (("of an idle loop", INTERVAL), ("while connections are held", RUN_INTERVAL)):
        print(f"{name}: {1 / interval:.0f} a second, {each / interval:.4%} of a core")


if __name__ == "__main__":
    main()
