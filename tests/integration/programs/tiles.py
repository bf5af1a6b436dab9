"""A service that draws what a query returns: while it holds its connection, or afterwards."""

from __future__ import annotations

import threading
from typing import Any

import poolscope


class Drawing:
    """Tiles that are drawn until the test says that they are."""

    def __init__(self) -> None:
        self.begun = 0
        self.done = threading.Event()
        self._lock = threading.Lock()

    def draw(self) -> None:
        """Draw one."""
        with self._lock:
            self.begun += 1
        assert self.done.wait(60)


def look(pool: Any) -> int:
    """A query in a transaction of its own."""
    connection = pool.getconn()
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute("select 7")
            return int(cursor.fetchone()[0])
    finally:
        pool.putconn(connection)


def tile(pool: Any, drawing: Drawing) -> int:
    """Drawn with the transaction open."""
    with poolscope.unit_of_work("GET /tiles/<int:z>", kind="http"):
        connection = pool.getconn()
        try:
            with connection.cursor() as cursor:
                cursor.execute("select 7")
                found = int(cursor.fetchone()[0])
            drawing.draw()
            return found
        finally:
            pool.putconn(connection)


def tile_repaired(pool: Any, drawing: Drawing) -> int:
    """Drawn afterwards."""
    with poolscope.unit_of_work("GET /tiles/<int:z>", kind="http"):
        found = look(pool)
        drawing.draw()
        return found
