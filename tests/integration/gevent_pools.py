"""
The program that `test_gevent.py` runs: psycopg2 under gevent, with SQLAlchemy's pool and its own.

Prints one JSON object: each checkout and how it ended, by our pool registry and by the program's own count.
"""

from __future__ import annotations

from gevent import monkey

monkey.patch_all()

import json  # noqa: E402 - gevent first
import sys  # noqa: E402
from typing import Any  # noqa: E402

import gevent  # noqa: E402
import gevent.socket  # noqa: E402
import psycopg2.extensions  # noqa: E402
import psycopg2.pool  # noqa: E402
import sqlalchemy  # noqa: E402

from poolscope.core.guard import guard  # noqa: E402
from tests.support.watched import at_rest, outcomes, watched  # noqa: E402

ROUNDS = 100


def wait(connection: Any) -> None:
    """Let other greenlets run, as psycopg2 asks."""
    while True:
        state = connection.poll()
        if state == psycopg2.extensions.POLL_OK:
            return
        if state == psycopg2.extensions.POLL_READ:
            gevent.socket.wait_read(connection.fileno())
        else:
            gevent.socket.wait_write(connection.fileno())


def sqlalchemys_pool(url: str) -> dict[str, Any]:
    """Greenlets that wait for the one connection are killed, time out by gevent's clock, or by the pool's."""
    engine = sqlalchemy.create_engine(url, pool_size=1, max_overflow=0, pool_timeout=0.02, pool_logging_name="s")
    truth = {"granted": 0, "killed": 0, "gevent": 0, "pool": 0}
    with watched("sqlalchemy") as seen:

        def checkout(limit: float | None = None) -> None:
            try:
                with gevent.Timeout(limit), engine.connect():
                    truth["granted"] += 1
            except gevent.Timeout:
                truth["gevent"] += 1
            except gevent.GreenletExit:
                truth["killed"] += 1
                raise
            except sqlalchemy.exc.TimeoutError:
                truth["pool"] += 1

        checkout()
        ours = seen.pool("s")
        for _ in range(ROUNDS):
            with engine.connect():
                truth["granted"] += 1
                killed, slow, patient = gevent.spawn(checkout), gevent.spawn(checkout, 0.005), gevent.spawn(checkout)
                gevent.sleep(0)
                killed.kill()
                gevent.joinall([slow, patient], timeout=60)
        checkout()
        at_rest(ours)
        result = {"truth": truth, "outcomes": outcomes(ours), "timeouts": ours.timeouts.read(), "pool": ours.used()}
    engine.dispose()
    return result


def own_pool(dsn: str) -> dict[str, Any]:
    """Greenlets are killed while they connect or query; the pool turns those away that find it exhausted."""
    truth = {"granted": 0, "killed": 0, "rejected": 0}
    with watched("psycopg2_pool") as seen:
        pool = psycopg2.pool.SimpleConnectionPool(0, 1, dsn)

        def checkout() -> None:
            try:
                connection = pool.getconn()
            except psycopg2.pool.PoolError:
                truth["rejected"] += 1
                return
            except gevent.GreenletExit:
                truth["killed"] += 1
                raise
            truth["granted"] += 1
            try:
                with connection.cursor() as cursor:
                    cursor.execute("select 1")
            finally:
                pool.putconn(connection, close=True)

        checkout()
        ours = seen.only()
        for tick in range(ROUNDS):
            held = pool.getconn()
            truth["granted"] += 1
            gevent.spawn(checkout).join(timeout=60)  # finds it exhausted
            pool.putconn(held, close=True)
            connecting = gevent.spawn(checkout)
            gevent.sleep(0)
            if tick % 2:
                connecting.kill()
            connecting.join(timeout=60)
        at_rest(ours)
        result = {"truth": truth, "outcomes": outcomes(ours), "timeouts": ours.timeouts.read(), "pool": ours.used()}
        pool.closeall()
    return result


if __name__ == "__main__":
    psycopg2.extensions.set_wait_callback(wait)
    told = {"sqlalchemy": sqlalchemys_pool(sys.argv[1]), "psycopg2": own_pool(sys.argv[2]), "errors": guard.counts()}
    sys.stdout.write(json.dumps(told))
