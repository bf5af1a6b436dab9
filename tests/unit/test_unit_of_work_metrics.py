"""The metrics of units of work, as a reader collects them; by the bridge and by ordinary instruments."""

from __future__ import annotations

import contextvars
import logging
from typing import TYPE_CHECKING

import pytest

import poolscope
from poolscope import semconv
from poolscope.core.lease import Outcome
from poolscope.core.work import OVERFLOW
from tests.support.telemetry import Telemetry
from tests.support.units import Queries, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPEATED = "select * from t where id = 1"


@pytest.fixture(params=[True, False], ids=["bridge", "instruments"])
def start(request: pytest.FixtureRequest) -> Iterator[Callable[..., Telemetry]]:
    """Starts poolscope with settings."""
    started: list[Telemetry] = []

    def start_it(**settings: object) -> Telemetry:
        telemetry = Telemetry(native_aggregation=request.param, **settings)
        telemetry.start()
        started.append(telemetry)
        return telemetry

    yield start_it
    for telemetry in started:
        telemetry.shutdown()


def test_each_unit_is_one_point_of_each_histogram_for_each_pool(start: Callable[..., Telemetry]) -> None:
    """A unit of work that uses two pools is in the series of both; one that uses none is in no series."""
    telemetry = start()
    shop, stock = Queries("shop"), Queries("stock")
    with poolscope.unit_of_work("both", kind="task"):
        shop(2)
        shop(1)
        stock(5)
    with poolscope.unit_of_work("none"):
        pass
    collected = telemetry.collect()
    for metric in (semconv.UNIT_QUERIES, semconv.UNIT_CONNECTIONS, semconv.UNIT_WAIT_TIME, semconv.UNIT_HOLD_TIME):
        assert {tuple(sorted(point.attributes.items())): point.count for point in collected.points(metric)} == {
            tuple(
                sorted(
                    {
                        semconv.UNIT_OF_WORK_KIND: "task",
                        semconv.UNIT_OF_WORK_NAME: "both",
                        semconv.POOL_NAME: pool,
                    }.items()
                )
            ): 1
            for pool in ("shop", "stock")
        }
    assert collected.total(semconv.UNIT_QUERIES, "shop") == 3
    assert collected.total(semconv.UNIT_QUERIES, "stock") == 5


def test_connections_is_the_most_held_at_once(start: Callable[..., Telemetry]) -> None:
    """Not how many were used one after the other."""
    telemetry = start()
    queries = Queries()
    with poolscope.unit_of_work("one after the other"):
        for _ in range(4):
            queries(1)
    with poolscope.unit_of_work("at once"):
        held = [queries.pool.checkout() for _ in range(3)]
        for lease in held:
            lease.acquired()
        for lease in held:
            lease.released()
    collected = telemetry.collect()
    most = {
        point.attributes[semconv.UNIT_OF_WORK_NAME]: point.sum for point in collected.points(semconv.UNIT_CONNECTIONS)
    }
    assert most == {"one after the other": 1, "at once": 3}


def test_failed_waits_count_and_so_does_what_is_still_held(start: Callable[..., Telemetry]) -> None:
    """A timeout is part of the wait; a connection that the unit of work leaves behind is part of its hold."""
    telemetry = start()
    queries = Queries()
    now = queries.pool.now
    began = now()
    with poolscope.unit_of_work("slow"):
        vain = queries.pool.checkout()
        vain.requested_at = now() - 3.0
        vain.failed(Outcome.TIMEOUT, "TimeoutError")
        kept = queries.pool.checkout()
        kept.acquired()
        kept.acquired_at = now() - 7.0
    took = now() - began
    collected = telemetry.collect()
    waited, held = collected.total(semconv.UNIT_WAIT_TIME), collected.total(semconv.UNIT_HOLD_TIME)
    assert 3.0 <= waited <= 3.0 + took
    assert 7.0 <= held <= 7.0 + took
    kept.released()
    assert telemetry.collect().total(semconv.UNIT_HOLD_TIME) == pytest.approx(held), "it ended once"


def test_repeated_queries_counts_those_of_loops_only(start: Callable[..., Telemetry]) -> None:
    """Beyond the threshold all runs of the loop count; below it and when excused none."""
    telemetry = start(n_plus_one_threshold=5)
    queries = Queries()
    for number in (5, 6):
        with poolscope.unit_of_work(f"{number} times"):
            queries(number, REPEATED)
    with poolscope.unit_of_work("excused"), poolscope.expected_repetition("it polls"):
        queries(9, REPEATED)
    collected = telemetry.collect()
    assert {
        point.attributes[semconv.UNIT_OF_WORK_NAME]: point.value for point in collected.points(semconv.REPEATED_QUERIES)
    } == {"5 times": 0, "6 times": 6, "excused": 0}


def test_names_are_bounded(start: Callable[..., Telemetry], caplog: pytest.LogCaptureFixture) -> None:
    """Beyond the allowed number of names units of work share one series, and that is said once."""
    telemetry = start(max_units=3)
    queries = Queries()
    with caplog.at_level(logging.WARNING, "poolscope"):
        for number in range(10):
            with poolscope.unit_of_work(f"name-{number}"):
                queries(1)
    found = queries_by_unit(telemetry.collect())
    assert found == {**{f"job name-{number}": (1, 1.0) for number in range(3)}, f"job {OVERFLOW}": (7, 7.0)}
    assert caplog.text.count("POOLSCOPE_MAX_UNITS") == 1


def test_a_name_that_becomes_known_late_is_the_one_that_counts(start: Callable[..., Telemetry]) -> None:
    """It is read at the end."""
    from poolscope.core.work_scope import current

    telemetry = start()
    queries = Queries()
    with poolscope.unit_of_work("early"):
        queries(1)
        unit = current()
        assert unit is not None
        unit.name = "late"
    assert queries_by_unit(telemetry.collect()) == {"job late": (1, 1.0)}


def test_what_belongs_to_no_unit_of_work_is_counted(start: Callable[..., Telemetry]) -> None:
    """Outside of any, and where the one that the context still has is over; 0 from the pool's first moment."""
    telemetry = start()
    queries = Queries()
    assert telemetry.collect().value(semconv.UNATTRIBUTED, "shop") == 0
    queries(1)
    with poolscope.unit_of_work("inside"):
        queries(1)
        context = contextvars.copy_context()
    context.run(queries, 1)
    assert telemetry.collect().value(semconv.UNATTRIBUTED, "shop") == 2
