"""
What only Django's own connections do: statements by way of its cursors.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

from tests.support.watched import at_rest, watched

django = pytest.importorskip("django")

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """
    Poolscope's eyes.
    """
    gc.collect()  # the connections of other tests
    with watched("django") as eyes:
        yield eyes


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each execute, executemany and callproc is one statement, also of a server-side cursor; the ends of transactions are
    none. Idle in transaction is what lies between statements of an open transaction.
    """
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    place = {"NAME": database.database, "USER": database.user, "PASSWORD": database.password, "HOST": database.host}
    engine = {"ENGINE": "django.db.backends.postgresql", "PORT": database.port, **place}
    handler = ConnectionHandler({"default": {}, "statements": engine})
    connection = handler["statements"]
    with connection.cursor() as cursor:
        cursor.execute("select 1")
        cursor.executemany("select %s", [(1,), (2,)])
        cursor.callproc("version")
        assert cursor.fetchone() is not None
        (lease,) = seen.pool("statements").leases
        assert (lease.queries, lease.statement, lease.phase) == (3, "CALL version", "idle")
        connection.set_autocommit(False)
        cursor.execute("select 2")
        assert (lease.queries, lease.phase) == (4, "idle_in_transaction")
        connection.commit()
        assert lease.phase == "idle"
    with connection.chunked_cursor() as cursor:
        cursor.execute("select 3")
        assert cursor.fetchone() == (3,)
    assert lease.queries == 5
    connection.rollback()
    connection.close()
    at_rest(seen.pool("statements"))
