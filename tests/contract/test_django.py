"""What only Django's own connections do: statements by way of its cursors."""

from __future__ import annotations

import _thread
import contextlib
import functools
import gc
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from examples.lab.processes import wait_until
from poolscope.adapters import django as adapter
from poolscope.core.location import Location, resolve
from poolscope.core.origin import Origins
from poolscope.frameworks.registry import Frameworks
from poolscope.frameworks.registry import load as load_boundaries
from tests.support.watched import at_rest, closures, outcomes, watched

django = pytest.importorskip("django")

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from tests.support.watched import Watched


@pytest.fixture
def seen() -> Iterator[Watched]:
    """Poolscope's eyes."""
    gc.collect()  # the connections of other tests
    with watched("django") as eyes:
        yield eyes


def _handler(alias: str, **database: object) -> Any:
    from django.conf import settings
    from django.db.utils import ConnectionHandler

    if not settings.configured:
        settings.configure()
        django.setup()
    return ConnectionHandler({"default": {}, alias: database})


def _in_a_file(alias: str, folder: Path, **database: object) -> Any:
    return _handler(alias, ENGINE="django.db.backends.sqlite3", NAME=str(folder / "database"), **database)


@contextlib.contextmanager
def _foreign(name: str) -> Iterator[list[str]]:
    # Another library's wrapper around a method of Django's, of several frames.
    from django.db.backends.base.base import BaseDatabaseWrapper

    inner: Callable[..., Any] = vars(BaseDatabaseWrapper)[name]
    calls: list[str] = []

    def deeper(frames: int, *args: Any) -> Any:
        return deeper(frames - 1, *args) if frames else inner(*args)

    @functools.wraps(inner)
    def outer(*args: Any) -> Any:
        calls.append(name)
        return deeper(5, *args)

    setattr(BaseDatabaseWrapper, name, outer)
    try:
        yield calls
    finally:
        setattr(BaseDatabaseWrapper, name, inner)


def test_statements_and_phases(seen: Watched, database: Postgres) -> None:
    """
    Each execute, executemany and callproc is one statement, also of a server-side cursor; the ends of transactions are
    none. Idle in transaction is what lies between statements of an open transaction.
    """
    handler = _handler("statements", **database.django_settings())
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
        cursor.execute("select n from generate_series(1, 5) n, pg_sleep(0.02 * n)")
        before = lease.query_time
        assert (cursor.fetchone(), cursor.fetchmany(2), cursor.fetchall()) == ((1,), [(2,), (3,)], [(4,), (5,)])
        assert lease.query_time - before > 0.03
    assert (lease.queries, lease.phase) == (5, "idle_in_transaction")
    connection.rollback()
    connection.close()
    at_rest(seen.pool("statements"))


def test_the_interpreter_itself_may_call(seen: Watched, tmp_path: Path) -> None:
    """A thread's function has no frame around it."""
    connection = _in_a_file("thread", tmp_path)["thread"]
    connection.inc_thread_sharing()
    _thread.start_new_thread(connection.ensure_connection, ())
    (ours,) = wait_until(lambda: list(seen.pool_registry.pools.values()), 60, "the pool")
    wait_until(lambda: any(lease.acquired_at is not None for lease in ours.leases.copy()), 60, "the lease")
    assert not ours.pending
    connection.dec_thread_sharing()
    connection.close()
    at_rest(ours)


def test_a_signal_while_the_place_is_looked_for_ends_the_checkout(
    seen: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its handler raises is the application's, and nothing waits for a connection afterwards."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(adapter, "_place", interrupted)
    connection = _in_a_file("signal", tmp_path)["signal"]
    with pytest.raises(KeyboardInterrupt):
        connection.get_autocommit()
    ours = seen.pool("signal")
    assert outcomes(ours) == {"KeyboardInterrupt": 1}
    at_rest(ours)
    monkeypatch.undo()
    assert connection.get_autocommit()
    connection.close()
    at_rest(ours)


def test_one_collection_of_all_connections_counts_each(seen: Watched, tmp_path: Path) -> None:
    """
    The connections of many threads that end at once, and are collected together, are as many
    closures and returns.
    """
    handler = _in_a_file("threads", tmp_path, CONN_MAX_AGE=None)
    made: list[Any] = []

    def use() -> None:
        made.append(wrapper := handler.create_connection("threads"))
        wrapper.ensure_connection()

    threads = [threading.Thread(target=use) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    pool = seen.pool("threads")
    assert (pool.creates.read().count, len(pool.leases), closures(pool)) == (10, 10, {})
    del threads
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # sqlite3's own
        made.clear()
        gc.collect()
    assert closures(pool) == {"abandoned": 10}
    assert pool.holds.read().count == 10
    at_rest(pool)
    assert (len(pool.live_sources()), pool.idle()) == (1, 0)


@pytest.mark.parametrize("name", ["close", "close_if_unusable_or_obsolete", "ensure_connection", "connect"])
def test_other_libraries_wrappers_change_nothing(seen: Watched, tmp_path: Path, name: str) -> None:
    """
    Why a connection was closed, and that it was made and returned, is known however many frames of another library lie
    between Django's.
    """
    with _foreign(name) as calls:
        for alias, age, expected in (("new", 0, "not_pooled"), ("old", 60, "recycled")):
            wrapper = _in_a_file(alias, tmp_path, CONN_MAX_AGE=age)[alias]
            wrapper.ensure_connection()
            wrapper.close_at = wrapper.close_at - 60
            wrapper.close_if_unusable_or_obsolete()
            pool = seen.pool(alias)
            assert (pool.creates.read().count, pool.holds.read().count, closures(pool)) == (1, 1, {expected: 1})
            at_rest(pool)
    assert calls


def test_why_connections_are_closed(seen: Watched, tmp_path: Path) -> None:
    """Each reason is distinguished from the others."""
    wrapper = _in_a_file("reasons", tmp_path, CONN_MAX_AGE=60, CONN_HEALTH_CHECKS=True)["reasons"]
    wrapper.ensure_connection()
    wrapper.close()

    wrapper.ensure_connection()
    wrapper.set_autocommit(False)
    wrapper.close_if_unusable_or_obsolete()

    wrapper.is_usable = lambda: False
    wrapper.ensure_connection()
    wrapper.errors_occurred = True
    wrapper.close_if_unusable_or_obsolete()

    wrapper.ensure_connection()
    wrapper.close_if_unusable_or_obsolete()
    wrapper.cursor().close()  # a new request, whose health check fails
    pool = seen.pool("reasons")
    assert closures(pool) == {"closed": 1, "reset_failed": 1, "invalidated": 1, "failed_validation": 1}
    assert (pool.creates.read().count, len(pool.leases), pool.idle()) == (5, 1, 0)
    wrapper.close_if_unusable_or_obsolete()
    assert (len(pool.leases), pool.idle()) == (0, 1)
    wrapper.close()
    at_rest(pool)


def test_a_request_that_ends_inside_a_transaction_keeps_its_connection(seen: Watched, tmp_path: Path) -> None:
    """
    As where a test surrounds requests: the transaction goes on, and what uses its connection is one lease; once it is
    closed inside of the transaction, what comes before the end of that is none.
    """
    from django.db.transaction import Atomic

    handler = _handler("inside", ENGINE="django.db.backends.sqlite3", NAME=":memory:", CONN_MAX_AGE=0)
    wrapper = handler["inside"]
    with _using(handler), Atomic("inside", savepoint=False, durable=False):
        wrapper.close_if_unusable_or_obsolete()  # SQLite's, in memory, are never closed
        with wrapper.cursor() as cursor:
            cursor.execute("select 1")
        pool = seen.pool("inside")
        assert (len(pool.leases), pool.holds.read().count) == (1, 0)
    wrapper.close_if_unusable_or_obsolete()
    at_rest(pool)

    handler = _in_a_file("closed", tmp_path)
    wrapper = handler["closed"]
    with _using(handler), Atomic("closed", savepoint=False, durable=False):
        wrapper.close()
        wrapper.ensure_connection()
        pool = seen.pool("closed")
        assert (len(pool.leases), pool.holds.read().count, closures(pool)) == (0, 1, {"closed": 1})
    wrapper.ensure_connection()
    assert (len(pool.leases), pool.creates.read().count) == (1, 2)
    wrapper.close()
    at_rest(pool)
    assert closures(pool) == {"closed": 2}


@contextlib.contextmanager
def _using(handler: Any) -> Iterator[None]:
    # `Atomic` knows the connections of the process alone.
    from django.db import transaction

    known = transaction.get_connection
    transaction.get_connection = lambda using=None: handler[using]
    try:
        yield
    finally:
        transaction.get_connection = known


def test_marks_go_also_from_connections_that_are_not_watched(tmp_path: Path) -> None:
    """Where the pool is psycopg's, Django's connection is not watched; afterwards it carries no mark all the same."""
    wrappers = [_in_a_file("unmarked", tmp_path)["unmarked"], _in_a_file("psycopgs", tmp_path)["psycopgs"]]
    wrappers[1].settings_dict["OPTIONS"] = {"pool": True}
    connect = wrappers[1].get_connection_params
    wrappers[1].get_connection_params = lambda: {key: one for key, one in connect().items() if key != "pool"}
    with watched("django") as seen:
        for wrapper in wrappers:
            wrapper.ensure_connection()
        assert list(seen.pool_registry.pools) == ["unmarked"]
    for wrapper in wrappers:
        assert [name for name in vars(wrapper) if name.startswith("_poolscope")] == []
        wrapper.close()


@pytest.fixture
def atomic(tmp_path: Path) -> Iterator[Atomic]:
    """A database whose requests are atomic, seen with the places of checkouts."""
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
            boundaries = Frameworks(seen.pool_registry, hooks=load_boundaries(["django"]))
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
        """Where the connection was checked out that is held now."""
        (lease,) = self._seen.pool("atomic").leases
        return resolve(lease.origin)[0]

    def serve(self, view: Any, middleware: Callable[[Any, Any], Any] | None = None) -> Any:
        """What a view returns that Django calls in a thread, where at most a middleware of a test is below it."""
        from django.db import connections
        from django.http import HttpRequest

        def close() -> None:
            connections["atomic"].close()
            del connections["atomic"]

        request = HttpRequest()
        request.method = "GET"
        with ThreadPoolExecutor(1) as thread:
            try:
                served = self._handler.make_view_atomic(view)
                return thread.submit(*([middleware] if middleware else []), served, request).result()
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
        for middleware in (None, lambda get_response, request: get_response(request)):
            place = atomic.serve(called, middleware)
            place = getattr(place, "place", place)
            assert (place.file, place.line) == (__file__, code.co_firstlineno)


def response(place: Location) -> Any:
    """A response that carries a place."""
    from django.http import HttpResponse

    made = HttpResponse()
    made.place = place
    return made


def test_atomic_checks_out_for_the_line_or_the_view(atomic: Atomic) -> None:
    """Around a block, the place is the line of the block; around a view, it is the view."""
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
