"""
A script that does one thing with a pool, as scripts do; what is found of it is reported before it exits.

Usage:
    python tests/integration/programs/script.py engine|task|process
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import sys
import tempfile
from pathlib import Path
from typing import Any

import sqlalchemy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

sys.path.insert(0, str(Path(__file__).parents[3]))

from poolscope.instrumentor import PoolscopeInstrumentor
from tests.support.units import Queries

IDS = range(12)
ONE = sqlalchemy.text("select * from orders where id = :number")


def engine(name: str) -> sqlalchemy.Engine:
    """SQLAlchemy's pool of a database in a file."""
    made = sqlalchemy.create_engine(f"sqlite:///{tempfile.mkdtemp()}/shop.db", pool_logging_name=name)
    with made.begin() as connection:
        connection.execute(sqlalchemy.text("create table orders (id integer)"))
    return made


def one_by_one(shop: sqlalchemy.Engine) -> None:
    """A query for each."""
    for number in IDS:
        with shop.connect() as connection:
            connection.execute(ONE, {"number": number})


def all_at_once(shop: sqlalchemy.Engine) -> None:
    """The same with one query."""
    with shop.connect() as connection:
        connection.execute(sqlalchemy.text(f"select * from orders where id in ({', '.join(map(str, IDS))})"))


async def in_a_task() -> None:
    """The main task repeats; one in the background does too, and is none of the script's."""
    shop: Any = Queries()

    async def service() -> None:
        shop(40, "select * from u where id = 1")

    background = asyncio.create_task(service())
    shop(12, "select * from t where id = 1")
    await background
    shop(1)


def main(what: str) -> None:
    """Do it."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    exporter = ConsoleMetricExporter(formatter=lambda data: data.to_json(indent=None) + "\n")
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    PoolscopeInstrumentor().instrument(meter_provider=MeterProvider([reader]))
    if what == "task":
        asyncio.run(in_a_task())
        return
    shop = engine("shop")
    if what == "process":
        child = multiprocessing.get_context("fork").Process(target=one_by_one, args=(shop,))
        child.start()
        child.join()
        return
    one_by_one(shop)
    all_at_once(shop)


if __name__ == "__main__":
    main(sys.argv[1])
