"""
What only Django's own connections do: statements by way of its cursors.
"""

from __future__ import annotations

import contextlib
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.origin import Location, Origins, resolve
from poolscope.frameworks.registry import Boundaries
from poolscope.frameworks.registry import load as load_boundaries
from tests.support.watched import at_rest, watched

django = pytest.importorskip("django")

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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


@pytest.fixture
def atomic(tmp_path: Path) -> Iterator[Atomic]:
    """
    A database whose requests are atomic, seen with the places of checkouts.
    """
    from django.conf import settings
    from django.core.handlers.base import BaseHandler
    from django.db import connections
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    place = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "atomic.sqlite"), "ATOMIC_REQUESTS": True}
    connections.settings["atomic"] = ConnectionHandler({"default": {}, "atomic": place}).settings["atomic"]
    try:
        with watched("django", origins=Origins()) as seen:
            boundaries = Boundaries(seen.ledger, hooks=load_boundaries(["django"]))
            boundaries.start()
            try:
                yield Atomic(seen, BaseHandler())
            finally:
                boundaries.stop()
    finally:
        del connections.settings["atomic"]


class Atomic:
    """
    A database whose requests are atomic.

    Args:
        seen: Poolscope's eyes.
        handler: Django's, of requests.
    """

    def __init__(self, seen: Watched, handler: Any) -> None:
        self._seen = seen
        self._handler = handler

    def place(self) -> Location:
        """
        Where the connection was checked out that is held now.
        """
        (lease,) = self._seen.pool("atomic").leases
        return resolve(lease.origin)[0]

    def serve(self, view: Any) -> Any:
        """
        What a view returns that Django calls in a thread, where no frame of a test stands below it.
        """
        from django.db import connections
        from django.http import HttpRequest

        def close() -> None:
            connections["atomic"].close()
            del connections["atomic"]

        request = HttpRequest()
        request.method = "GET"
        with ThreadPoolExecutor(1) as thread:
            try:
                return thread.submit(self._handler.make_view_atomic(view), request).result()
            finally:
                thread.submit(close).result()


def test_an_atomic_request_is_checked_out_by_its_view(atomic: Atomic) -> None:
    """
    The transaction begins before the view does: its place is where the view begins, be that a function, decorated or
    not, or a class.
    """
    from django.views import View
    from django.views.decorators.cache import never_cache

    def view(request: Any) -> Location:
        return atomic.place()

    class Page(View):
        def get(self, request: Any) -> Location:
            return atomic.place()

    decorated = never_cache(lambda request: response(atomic.place()))
    for called, code in (
        (view, view.__code__),
        (Page.as_view(), Page.get.__code__),
        (decorated, decorated.__wrapped__.__code__),
    ):
        place = atomic.serve(called)
        place = getattr(place, "place", place)
        assert (place.file, place.line) == (__file__, code.co_firstlineno)


def response(place: Location) -> Any:
    """
    A response that carries a place.
    """
    from django.http import HttpResponse

    made = HttpResponse()
    made.place = place
    return made


def test_atomic_checks_out_for_the_line_or_the_view(atomic: Atomic) -> None:
    """
    Around a block, the place is the line of the block; around a view, it is the view.
    """
    from django.db import transaction

    def block(request: Any) -> Location:
        with transaction.atomic(using="atomic"):
            return atomic.place()

    @transaction.atomic(using="atomic")
    def view(request: Any) -> Location:
        return atomic.place()

    block._non_atomic_requests = {"atomic"}  # type: ignore[attr-defined]
    view._non_atomic_requests = {"atomic"}
    assert atomic.serve(block).line == block.__code__.co_firstlineno + 1
    assert atomic.serve(view).line == view.__wrapped__.__code__.co_firstlineno


def test_what_a_framework_reads_by_itself_is_checked_out_by_it(atomic: Atomic) -> None:
    """
    Where no frame is the application's, the place is in the framework that wants something of the database, and not in
    what of Django only carries the query.
    """
    from django.db import connections

    source = "def load(request):\n    connections['atomic'].cursor().close()\n    return place()\n"
    framework: dict[str, Any] = {
        "__name__": "rest_framework.serializers",
        "connections": connections,
        "place": atomic.place,
    }
    exec(compile(source, contextlib.__file__, "exec"), framework)
    framework["load"]._non_atomic_requests = {"atomic"}
    assert atomic.serve(framework["load"]).function == "load"
