"""
Forks with a connection of each of several libraries' pools out, and prints what parent and child see, each as one line.

    python -m tests.integration.programs.forking_pools DSN
"""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import psycopg2
import psycopg2.pool
import psycopg_pool
from dbutils.pooled_db import PooledDB

from poolscope import pool_name
from poolscope.core.guard import guard
from tests.support.watched import watched

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.watched import Watched


def pools(dsn: str) -> list[tuple[Callable[[], Any], Callable[[Any], Any]]]:
    """How to take from each pool and how to return."""
    psycopg = psycopg_pool.ConnectionPool(dsn, min_size=2, max_size=3, name="psycopg_pool", open=True)
    psycopg.wait(20)
    with pool_name("psycopg2"):
        own = psycopg2.pool.ThreadedConnectionPool(2, 3, dsn)
    with pool_name("dbutils"):
        steady = PooledDB(psycopg2, mincached=2, maxconnections=3, dsn=dsn)
    return [
        (psycopg.getconn, psycopg.putconn),
        (own.getconn, own.putconn),
        (steady.connection, lambda connection: connection.close()),
    ]


def told(seen: Watched) -> dict[str, list[int]]:
    """Of each pool: what is in use, the drift from the library's account, waits and uses."""
    return {
        pool.identity.name: [
            len(pool.leases),
            len(pool.leases) + len(pool.inherited) - sum(source.in_use() or 0 for source in pool.live_sources()),
            pool.waits.read().count,
            pool.holds.read().count,
        ]
        for pool in seen.pool_registry.pools.values()
    }


def main() -> None:
    """See above."""
    with watched("psycopg_pool", "psycopg2_pool", "dbutils") as seen:
        ways = pools(sys.argv[1])
        out = [(give, take()) for take, give in ways]
        child = os.fork()
        if child == 0:
            report = {"after the fork": told(seen)}
            own = [(give, take()) for take, give in ways]
            report["one out"] = told(seen)
            for give, connection in own:
                give(connection)
            report["at rest"] = told(seen)
            for give, connection in out:  # it should not, but may
                give(connection)
            report["the parent's returned"] = told(seen)
            print(json.dumps({**report, "errors": guard.counts()}), flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        print(json.dumps({"parent": told(seen), "errors": guard.counts()}), flush=True)
        os._exit(0)


if __name__ == "__main__":
    main()
