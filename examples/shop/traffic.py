"""Customers: a steady stream of requests of every kind, and a few that leave a session behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

# Requests per second. The rates of the slow report and of the checkout keep about seven connections busy; the healthy
# ones and the repaired twins hardly any. What the carts leave of the pool is then too little.
RATES = {
    "GET /users/{user}": 12.0,
    "GET /reports/sales": 5.0,
    "POST /checkout/{user}": 5.0,
    "GET /feed": 3.0,
    "GET /profile/{user}": 5.0,
    "GET /fixed/reports/sales": 1.0,
    "POST /fixed/checkout/{user}": 1.0,
    "GET /fixed/feed": 1.0,
    "GET /fixed/cart/{user}": 1.0,
    "GET /fixed/profile/{user}": 1.0,
}
# The same customers, once every route is the repaired one.
REPAIRED = {
    request if request.startswith("GET /users") else request.replace(" /", " /fixed/"): rate
    for request, rate in RATES.items()
    if "/fixed/" not in request
}
# Carts are left behind one by one in the first part of the run, while few customers come: the pool fills up, and no
# request waits yet. Then they come in full number.
CARTS = 11
QUIET_PART = 0.45
QUIET_SHARE = 0.4
USERS = 200
PATIENCE_SECONDS = 15.0


@dataclass
class Tally:
    """What came back: requests by status; 0 is no answer at all."""

    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """Every request that ended."""
        return self.statuses.total()

    @property
    def answered(self) -> int:
        """Requests that got what they asked for."""
        return self.statuses[httpx.codes.OK]

    @property
    def failed(self) -> int:
        """Requests that failed for another reason than the lack of a connection."""
        return self.total - self.answered - self.rejected

    @property
    def rejected(self) -> int:
        """Requests that got no connection."""
        return self.statuses[httpx.codes.SERVICE_UNAVAILABLE]


class Traffic:
    """
    The customers of one run.

    Args:
        address: The shop, ``http://127.0.0.1:8000``.
        seconds: How long customers keep coming.
        seed: Makes the arrivals the same again.
        rates: Requests per second; of `RATES`, the carts that are left behind come with them.
    """

    def __init__(self, address: str, seconds: float, seed: int = 7, rates: Mapping[str, float] = RATES) -> None:
        self.tally = Tally()
        self._address = address
        self._seconds = seconds
        self._rates = rates
        self._random = random.Random(seed)

    async def run(self, progress: Callable[[float, Tally], None]) -> Tally:
        """
        Send everything and wait for the answers.

        Args:
            progress: Called about ten times a second with the seconds gone and the tally.
        """
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
        async with httpx.AsyncClient(base_url=self._address, timeout=PATIENCE_SECONDS, limits=limits) as client:
            schedule = self._arrivals()
            begin = time.monotonic()
            requests: set[asyncio.Task[None]] = set()
            for moment, request in schedule:
                while (gone := time.monotonic() - begin) < moment:
                    progress(gone, self.tally)
                    await asyncio.sleep(min(moment - gone, 0.1))
                # Those behind the schedule come one by one: the client's work for each grows with all that are under
                # way, and a thousand at once would keep it busy for minutes.
                await asyncio.sleep(0)
                task = asyncio.create_task(self._send(client, request))
                requests.add(task)
                task.add_done_callback(requests.discard)
            await asyncio.gather(*requests)
            progress(self._seconds, self.tally)
        return self.tally

    def _arrivals(self) -> list[tuple[float, str]]:
        leaves_carts = self._rates is RATES
        opening = self._seconds * QUIET_PART if leaves_carts else 0.0
        moments = [(opening * user / CARTS, f"GET /cart/{user}") for user in range(1, CARTS + 1) if leaves_carts]
        for request, rate in self._rates.items():
            moment = self._random.expovariate(rate)
            while moment < self._seconds:
                if moment >= opening or self._random.random() < QUIET_SHARE:
                    moments.append((moment, request.format(user=self._random.randint(1, USERS))))
                moment += self._random.expovariate(rate)
        return sorted(moments)

    async def _send(self, client: httpx.AsyncClient, request: str) -> None:
        method, path = request.split(" ")
        try:
            answer = await client.request(method, path)
        except httpx.HTTPError:
            self.tally.statuses[0] += 1
        else:
            self.tally.statuses[answer.status_code] += 1
