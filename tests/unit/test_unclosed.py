"""Responses that are left open: their unit of work ends all the same, once, and takes nothing from the application."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.guard import guard
from poolscope.core.pool_registry import PoolRegistry, open_pool_registries
from poolscope.core.stepping import async_stepping
from poolscope.core.work import UNCLOSED_GRACE
from poolscope.core.work_scope import Unclosed, WorkScope, begin, current, inside_async
from poolscope.frameworks import asgi
from poolscope.frameworks.wsgi import Middleware
from tests.support.clocks import FakeClock
from tests.support.units import Queries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

ENVIRON = {"REQUEST_METHOD": "GET"}
NAME = "http GET <unmatched>"


class Server:
    """What serves an application, and the clock it lives by."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.pool_registry = PoolRegistry((1.0,), count_bounds=(10.0,), now=self.clock)
        open_pool_registries.append(self.pool_registry)
        self.queries = Queries()

    def get(self, body: Any, length: int | None = None) -> Any:
        """One request, which runs one query before it returns a body."""

        def application(_: Any, start_response: Callable[..., Any]) -> Any:
            start_response("200 OK", [] if length is None else [("Content-Length", str(length))])
            self.queries(1)
            return body

        return Middleware(application, self.pool_registry)(ENVIRON, lambda *_: None)

    def rows(self, number: int) -> Iterator[bytes]:
        """A body that runs a query for each row, and one when it is left."""
        try:
            for _ in range(number):
                self.queries(1)
                yield b"row"
        finally:
            self.queries(1)

    def ended(self) -> tuple[int, float]:
        """How many requests ended, and their queries."""
        reads = [series.queries.read() for series in self.pool_registry.units.series.values()]
        return sum(read.count for read in reads), sum(read.total for read in reads)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server without a network."""
    one = Server()
    yield one
    open_pool_registries.remove(one.pool_registry)


def test_a_body_that_is_dropped_ends_its_request(server: Server) -> None:
    """Unread, half read or read, also by the garbage collector; what a generator does when it is left is part of it."""
    server.get(server.rows(3))
    assert server.ended() == (1, 1.0)
    body = server.get(server.rows(3))
    next(body)
    assert server.ended() == (1, 1.0), "it goes on"
    del body
    assert server.ended() == (2, 4.0)
    list(server.get(server.rows(3)))
    assert server.ended() == (3, 9.0)
    circle = [server.get(iter([b"row"]))]
    circle.append(circle)
    del circle
    gc.collect()
    assert server.ended() == (4, 10.0)
    assert current() is None


def test_what_is_read_to_its_end_and_kept_ends_with_the_next_request(server: Server) -> None:
    """Of the same thread; the one that still runs does not end."""
    read, half = server.get(server.rows(2)), server.get(server.rows(2))
    list(read)
    next(half)
    assert server.ended() == (0, 0.0)
    server.get([b"whole"])
    assert server.ended() == (2, 5.0)
    read.close()
    assert server.ended() == (2, 5.0), "once"
    list(half)
    half.close()
    assert server.ended() == (3, 9.0)


def test_or_after_some_seconds_and_never_while_a_server_may_still_close_it(server: Server) -> None:
    """What runs at `close()` is part of the request, until the background thread has waited long enough."""
    body = server.get(Closing(server))
    list(body)
    server.clock.advance(UNCLOSED_GRACE / 2)
    server.pool_registry.tick()
    assert server.ended() == (0, 0.0)
    body.close()
    assert server.ended() == (1, 6.0)
    kept = server.get(Closing(server))
    list(kept)
    server.clock.advance(UNCLOSED_GRACE)
    server.pool_registry.tick()
    assert server.ended() == (2, 7.0)
    kept.close()
    assert server.ended() == (2, 7.0), "it was over"


def test_a_collection_may_end_one_while_they_are_looked_at(server: Server) -> None:
    """Before Python 3.12 the garbage collector starts wherever an object is made: also in between two of many."""
    units = server.pool_registry.units
    usual = gc.get_threshold()
    for objects in range(10, 60):
        work_scopes = [WorkScope(units, "http", "GET /") for _ in range(200)]
        for work_scope in work_scopes:
            work_scope.read()
        gc.collect(0)
        circle: list[Any] = [Unclosed(work_scopes[0])]
        circle.append(circle)
        del circle
        gc.set_threshold(objects)
        try:
            units.end_unclosed()
        finally:
            gc.set_threshold(*usual)
        units.end_unclosed_here()
        assert not units.unclosed


def test_the_last_byte_that_was_announced_is_the_end(server: Server) -> None:
    """
    Clients stop reading there. A connection that the request holds until it is closed is not left behind meanwhile: the
    server may be sending.
    """
    kept = server.get(iter([b"row", b"row"]), length=6)
    next(kept)
    server.clock.advance(UNCLOSED_GRACE)
    server.pool_registry.tick()
    assert server.ended() == (0, 0.0)
    next(kept)
    server.clock.advance(UNCLOSED_GRACE)
    server.pool_registry.tick()
    assert server.ended() == (1, 1.0)
    holding = server.get(Holding(server), length=3)
    assert next(holding) == b"row"
    server.clock.advance(UNCLOSED_GRACE)
    server.pool_registry.tick()
    assert server.ended() == (1, 1.0)
    holding.close()
    assert server.ended() == (2, 2.0)


class Closing:
    """A body that runs five queries when it is closed."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def __iter__(self) -> Iterator[bytes]:
        yield b"row"

    def close(self) -> None:
        """As `call_on_close` does."""
        self.server.queries(5)


class Holding(Closing):
    """A body that holds a connection until it is closed."""

    def __iter__(self) -> Iterator[bytes]:
        self.lease = self.server.queries.pool.checkout()
        self.lease.acquired()
        yield b"row"

    def close(self) -> None:
        """Return it."""
        self.lease.released()


def test_a_file_is_collected_when_it_would_be_without_us(server: Server) -> None:
    """The server's file wrapper gets a `close` of ours, which does not keep it; and the request ends with it."""

    class FileWrapper:
        def __iter__(self) -> Iterator[bytes]:
            yield b"file"

        def close(self) -> None:
            server.queries(2)

    environ = {**ENVIRON, "wsgi.file_wrapper": FileWrapper}

    def application(_: Any, __: Any) -> Any:
        server.queries(1)
        return FileWrapper()

    def ends(*, closed: bool) -> list[tuple[int, float]]:
        file = Middleware(application, server.pool_registry)(environ, None)
        gone = weakref.ref(file)
        if closed:
            file.close()
        before = server.ended()
        del file
        assert gone() is None
        return [before, server.ended()]

    assert ends(closed=True) == [(1, 3.0), (1, 3.0)]
    assert ends(closed=False) == [(1, 3.0), (2, 4.0)]


@pytest.mark.parametrize("slots", [(), ("__weakref__",)], ids=str)
def test_a_file_that_takes_no_close_of_ours_ends_its_request_at_once(server: Server, slots: tuple[str, ...]) -> None:
    """Its class has slots: the span around the request gets the figures, and that is no error."""

    class FileWrapper:
        __slots__ = slots

        def close(self) -> None:
            """Nothing."""

    span, errors = object(), guard.counts()
    units: list[Any] = []

    def application(_: Any, __: Any) -> Any:
        server.queries(1)
        unit = current()
        assert unit is not None
        unit.span = span
        units.append(unit)
        return FileWrapper()

    Middleware(application, server.pool_registry)({**ENVIRON, "wsgi.file_wrapper": FileWrapper}, None)
    assert server.ended() == (1, 1.0)
    (unit,) = units
    assert unit.span is span
    assert guard.counts() == errors
    assert current() is None


def test_an_asynchronous_request_that_is_dropped_ends(server: Server) -> None:
    """As a task does that is destroyed while it waits; the span around it is left alone then."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        server.queries(2)
        await receive()

    async def receive() -> None:
        await Never()

    scope = {"type": "http", "method": "GET"}
    request = asgi.Middleware(application, server.pool_registry)(scope, receive, None)
    request.send(None)
    unit = current()
    assert unit is not None
    unit.span = object()
    del request
    assert server.ended() == (1, 2.0)
    assert unit.span is None
    assert current() is None


class Never:
    """What is awaited for ever."""

    def __await__(self) -> Iterator[None]:
        yield


@pytest.mark.parametrize("streaming", [False, True], ids=["coroutine", "generator"])
def test_an_asynchronous_call_that_is_dropped_ends(server: Server, *, streaming: bool) -> None:
    """As a job or a remote call is whose task is destroyed while it waits; the span around it is left alone then."""

    async def answer() -> None:
        server.queries(2)
        await Never()

    async def answers() -> AsyncIterator[None]:
        await answer()
        yield

    def begins() -> WorkScope | None:
        return begin(server.pool_registry, "rpc", "shop.Orders/List")

    call: Any = anext(async_stepping(begins, answers)()) if streaming else inside_async(begins, answer)
    call.send(None)
    unit = current()
    assert unit is not None
    unit.span = object()
    del call
    assert server.ended() == (1, 2.0)
    assert unit.span is None
    assert current() is None


def test_what_an_application_does_about_a_client_that_is_gone_is_a_request(server: Server) -> None:
    """The server's `receive` of a websocket may raise; the next queries are no message's, but of a unit of work."""

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        try:
            await receive()
        except ConnectionResetError:
            server.queries(3)

    messages = iter([{"type": "websocket.connect"}])

    async def receive() -> Any:
        for message in messages:
            return message
        raise ConnectionResetError

    request = asgi.Middleware(application, server.pool_registry)({"type": "websocket"}, receive, None)
    with pytest.raises(StopIteration):
        request.send(None)
    assert server.ended() == (1, 3.0)
    assert current() is None
