"""The shop's customers, where the machine is slower than their schedule."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING

from examples.shop import traffic

if TYPE_CHECKING:
    import httpx
    import pytest


class Customers(traffic.Traffic):
    """Customers who count how many of them are under way instead of sending anything."""

    most = 0

    async def _send(self, client: httpx.AsyncClient, request: str) -> None:
        self.most = max(self.most, len(asyncio.all_tasks()))
        self.tally.statuses[200] += 1


def test_customers_behind_the_schedule_do_not_come_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the schedule is past before it began, every customer still comes, but one after the other."""
    clock = iter([0.0])
    # The module's own name: the event loop needs the real clock.
    monkeypatch.setattr(traffic, "time", SimpleNamespace(monotonic=lambda: next(clock, 1000.0)))
    late = Customers("http://127.0.0.1:9", 60, rates={"GET /feed": 10.0})
    tally = asyncio.run(late.run(lambda _gone, _tally: None))
    assert tally.answered > 400
    assert late.most < 10
