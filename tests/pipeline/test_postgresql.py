"""PostgreSQL's side, as the Collector sees it with the role that the committed script makes."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import CONFIG, MONITOR, Addresses, Collector, Prometheus, monitoring_role
from examples.lab.postgres import postgres
from examples.lab.processes import wait_until
from grafana import collector as made
from grafana.prometheus import family, label
from poolscope import semconv

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres

pytestmark = pytest.mark.timeout(300)

PASSWORD = "not-a-secret"
SUPERUSERS, RESERVED = 3, 2


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL with the monitoring role."""
    with postgres(max_connections=30, settings={"reserved_connections": str(RESERVED)}) as server:
        monitoring_role(server, PASSWORD)
        yield server


@pytest.fixture(scope="module")
def seen(
    collector: Path, prometheus: Path, server: Postgres, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus with what the Collector asked the server, under the least-privilege role."""
    folder = tmp_path_factory.mktemp("postgresql")
    env = {
        "POOLSCOPE_PG_HOST": server.host,
        "POOLSCOPE_PG_PORT": str(server.port),
        "POOLSCOPE_PG_USERNAME": MONITOR,
        "POOLSCOPE_PG_PASSWORD": PASSWORD,
        "POOLSCOPE_PG_INTERVAL": "1s",
        "POOLSCOPE_SERIES_EXPIRE": "10s",
    }
    with contextlib.ExitStack() as stack:
        otel = stack.enter_context(Collector(folder / "c", CONFIG / "collector.yaml", env=env))
        addresses = Addresses({"poolscope-processes": otel.address("processes")})
        prom = stack.enter_context(Prometheus(folder / "p", addresses))
        for metric in (*made.SERVER_METRICS, *made.RECEIVER_METRICS):
            wait_until(lambda metric=metric: prom.query(family(metric)), 60, metric.name)
        yield prom


def value(prom: Prometheus, expression: str) -> float:
    """The sum of an expression."""
    return sum(sample.value for sample in prom.query(expression))


def test_connections_are_counted_by_state_and_application(seen: Prometheus, server: Postgres) -> None:
    """Other roles' sessions are seen with their state, each where it belongs, and leave the counts when they end."""
    by = f"{family(made.SERVER_CONNECTIONS)}{{application_name='shop', state='%s'}}"
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(server.connect(application_name="shop"))
        open_transaction = stack.enter_context(server.connect(application_name="shop"))
        open_transaction.execute("BEGIN")
        wait_until(lambda: value(seen, by % "idle") == 3, 60, "three idle connections")
        wait_until(lambda: value(seen, by % "idle in transaction") == 1, 60, "one idle in transaction")
    wait_until(lambda: value(seen, by % "idle") == 0, 60, "the connections to leave")


def test_connections_in_any_other_state_count_as_well(seen: Prometheus, server: Postgres) -> None:
    """A session that does not say what it does is one that the server has: it counts against max_connections."""
    shy = f"{family(made.SERVER_CONNECTIONS)}{{application_name='shy'}}"
    with server.connect(application_name="shy") as connection:
        connection.execute("SET track_activities = off")
        wait_until(lambda: value(seen, shy) == 1, 60, "the session")
        wait_until(lambda: value(seen, f'{shy[:-1]}, state="disabled"}}') == 1, 60, "its state")


def test_what_ordinary_roles_do_not_get_is_reserved(seen: Prometheus) -> None:
    """The connections for superusers and those of `reserved_connections` (PostgreSQL 16) are both left out."""
    assert value(seen, family(made.SERVER_CONNECTIONS_RESERVED)) == SUPERUSERS + RESERVED


def test_the_number_of_databases_costs_no_connections(seen: Prometheus, server: Postgres) -> None:
    """A server with more databases than the role may have connections is watched as before, under the role's limit."""
    with server.connect() as owner:
        for number in range(8):
            owner.execute(f"CREATE DATABASE tenant_{number}")
        scrapes = f"count_over_time({family(made.POSTGRESQL_CONNECTION_MAX)}[1h])"
        before = value(seen, scrapes)
        wait_until(lambda: value(seen, scrapes) >= before + 3, 60, "three more scrapes")
        log = (seen.log.parents[1] / "c" / "collector.log").read_text()
    assert "too many connections" not in log
    assert PASSWORD not in log


def test_the_oldest_idle_transaction_has_an_age(seen: Prometheus, server: Postgres) -> None:
    """The age grows while a transaction stands idle, and is 0 again when there is none."""
    age = family(made.SERVER_OLDEST_IDLE_IN_TRANSACTION)
    with server.connect(application_name="dawdler") as connection:
        connection.execute("BEGIN")
        wait_until(lambda: value(seen, age) > 2, 60, "an age")
        connection.execute("ROLLBACK")
        wait_until(lambda: seen.query(age) and value(seen, age) == 0, 60, "no age")


def test_limits_and_backends_agree_between_both_receivers(seen: Prometheus) -> None:
    """max_connections is the same by either receiver; both carry the address by which applications know the server."""
    assert value(seen, family(made.SERVER_CONNECTIONS_MAX)) == 30
    assert value(seen, family(made.POSTGRESQL_CONNECTION_MAX)) == 30
    assert value(seen, family(made.POSTGRESQL_BACKENDS)) >= 1


def test_series_join_with_those_of_pools(seen: Prometheus, server: Postgres) -> None:
    """Server address and port are labels of every series of the server: what the fleet budget joins on."""
    for metric in (*made.SERVER_METRICS, *made.RECEIVER_METRICS):
        found = seen.query(family(metric))
        assert found, metric.name
        for sample in found:
            assert sample.labels[label(semconv.SERVER_ADDRESS)] == server.host
            assert sample.labels[label(semconv.SERVER_PORT)] == str(server.port)
