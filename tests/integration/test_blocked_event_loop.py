"""Blocked event loops: the code of the finding's page in a real loop, with the heartbeats of the background thread."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy

from examples.lab.processes import wait_until
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP
from tests.support.loops import wait_for_heartbeats
from tests.support.pages import run_block
from tests.support.telemetry import Telemetry, instrumented

pytest.importorskip("aiosqlite")

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from poolscope.core.finding import Finding

BAD, REPAIRED = (
    run_block(BLOCKED_EVENT_LOOP, number, lines_of=lambda number: sqlalchemy.text(f"select {number}"))["invoice"]
    for number in (0, 2)
)


@pytest.fixture
def telemetry(found: list[Finding]) -> Iterator[Telemetry]:
    """Poolscope, on; a hold is never long."""
    yield from instrumented(long_hold_threshold=600, exhaustion_threshold=0)


async def beside(engine: AsyncEngine, invoice: Coroutine[Any, Any, Any]) -> Any:
    """An invoice, while another task holds a connection."""
    async with engine.connect() as connection:
        await connection.execute(sqlalchemy.text("select 1"))
        return await asyncio.create_task(invoice)


def run(invoice: Callable[..., Coroutine[Any, Any, Any]], render: Callable[[Any], Any]) -> Any:
    """The page's function in a loop of its own."""

    async def main() -> Any:
        engine = create_async_engine("sqlite+aiosqlite://", poolclass=AsyncAdaptedQueuePool)
        try:
            return await beside(engine, invoice(engine, 7, render))
        finally:
            await engine.dispose()

    return asyncio.run(main())


@pytest.mark.usefixtures("telemetry")
def test_rendering_on_the_loop(found: list[Finding]) -> None:
    """It is found while it lasts, at the line that renders, with the connection that another task cannot return."""

    def render(rows: Any) -> Any:
        wait_until(lambda: bool(found), 60, "the block to be found")
        return rows

    assert run(BAD, render) == [(7,)]
    (finding,) = found
    assert finding.id == BLOCKED_EVENT_LOOP
    assert any(line.endswith("in invoice") for line in finding.evidence["stack"])  # type: ignore[union-attr]
    assert finding.evidence["held_up"] == 1
    assert finding.evidence["event_loop_thread"] == "MainThread"
    assert [str(one).endswith("in beside") for one in finding.evidence["holders"]] == [True]  # type: ignore[union-attr]


def test_rendering_in_a_thread(telemetry: Telemetry, found: list[Finding]) -> None:
    """The loop goes on: heartbeats come back while the thread renders, and nothing is found."""

    def render(rows: Any) -> Any:
        wait_for_heartbeats(telemetry)
        return rows

    assert run(REPAIRED, render) == [(7,)]
    telemetry.instrumentor.flush()
    assert found == []
