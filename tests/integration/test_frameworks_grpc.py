"""gRPC servers, with threads and with asyncio: each call is a unit of work, streams included."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorServer, GrpcInstrumentorServer
from opentelemetry.trace import SpanKind

from poolscope import semconv
from poolscope.core.catalogue.queries import N_PLUS_ONE
from tests.support.telemetry import Telemetry, instrumented
from tests.support.units import Queries, figures, queries_by_unit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

REPEATED = "select * from t where id = 1"
#: No request holds or waits for so long, however busy the machine is: what is found is what the test makes.
PATIENT = {"long_hold_threshold": 60, "exhaustion_threshold": 0}


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """Poolscope, on."""
    yield from instrumented(hold_spans=False, checkout_spans="never")


@pytest.fixture
def queries(telemetry: Telemetry) -> Queries:
    """A pool."""
    return Queries()


#: What both servers must show: three calls of one method, one of each of the others.
EXPECTED = {
    "rpc shop.Shop/Get": (3, 9.0),
    "rpc shop.Shop/List": (1, 4.0),
    "rpc shop.Shop/Fails": (1, 2.0),
    "rpc shop.Shop/Chat": (1, 3.0),
}


def handlers(get: Any, list_: Any, fails: Any, chat: Any) -> Any:
    """A service without generated code: its messages are bytes."""
    return grpc.method_handlers_generic_handler(
        "shop.Shop",
        {
            "Get": grpc.unary_unary_rpc_method_handler(get),
            "List": grpc.unary_stream_rpc_method_handler(list_),
            "Fails": grpc.unary_unary_rpc_method_handler(fails),
            "Chat": grpc.stream_stream_rpc_method_handler(chat),
        },
    )


def call_everything(channel: grpc.Channel) -> None:
    """The calls of `EXPECTED`, and one of a method that does not exist."""
    get = channel.unary_unary("/shop.Shop/Get")
    assert [get(b"3") for _ in range(3)] == [b"ok"] * 3
    assert list(channel.unary_stream("/shop.Shop/List")(b"4")) == [b"row"] * 4
    assert list(channel.stream_stream("/shop.Shop/Chat")(iter([b"1", b"2"]))) == [b"ok", b"ok"]
    for method in ("Fails", "Nobody/7"):
        with pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/shop.Shop/{method}")(b"2")


def in_threads(methods: grpc.GenericRpcHandler, call: Callable[[grpc.Channel], None]) -> None:
    """Run a server with threads while a client calls it."""
    with ThreadPoolExecutor(4) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers((methods,))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call(channel)
        server.stop(None).wait()


def in_asyncio(methods: grpc.GenericRpcHandler, call: Callable[[grpc.Channel], None]) -> None:
    """The same with asyncio."""

    async def serve() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((methods,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()

        def in_thread() -> None:
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                call(channel)

        await asyncio.to_thread(in_thread)
        await server.stop(None)

    asyncio.run(serve())


def serve_with_threads(queries: Queries, call: Callable[[grpc.Channel], None]) -> None:
    """A server with threads, and what a client does with it."""

    def get(request: bytes, _: Any) -> bytes:
        queries(int(request), REPEATED)
        return b"ok"

    def list_(request: bytes, _: Any) -> Iterator[bytes]:
        for _row in range(int(request)):
            queries(1)
            yield b"row"

    in_threads(handlers(get, list_, get, get), call)


def serve_with_asyncio(queries: Queries, call: Callable[[grpc.Channel], None]) -> None:
    """The same with asyncio."""

    async def get(request: bytes, _: Any) -> bytes:
        queries(int(request), REPEATED)
        return b"ok"

    async def list_(request: bytes, _: Any) -> AsyncIterator[bytes]:
        for _row in range(int(request)):
            queries(1)
            yield b"row"

    in_asyncio(handlers(get, list_, get, get), call)


@pytest.mark.parametrize("upstream_first", [True, False], ids=["upstream_first", "we_first"])
@pytest.mark.parametrize(
    ("serve", "upstream"),
    [(serve_with_threads, GrpcInstrumentorServer), (serve_with_asyncio, GrpcAioInstrumentorServer)],
    ids=["threads", "asyncio"],
)
def test_the_server_span_of_the_upstream_instrumentation_has_the_figures(
    serve: Callable[..., None], upstream: Any, *, upstream_first: bool
) -> None:
    """Whoever starts first, streams included; and the findings are there before the span ends."""
    telemetry = Telemetry(hold_spans=False, checkout_spans="never", **PATIENT)
    theirs = upstream()

    def start_upstream() -> None:
        theirs.instrument(tracer_provider=telemetry.tracer_provider)

    def call(channel: grpc.Channel) -> None:
        get = channel.unary_unary("/shop.Shop/Get")
        assert [get(b"3"), get(b"8")] == [b"ok", b"ok"]
        assert list(channel.unary_stream("/shop.Shop/List")(b"4")) == [b"row"] * 4

    stops = [telemetry.stop, theirs.uninstrument]
    for start in (start_upstream, telemetry.start) if upstream_first else (telemetry.start, start_upstream):
        start()
    try:
        serve(Queries(), call)
        collected = telemetry.collect()
    finally:
        for stop in stops if upstream_first else reversed(stops):  # each takes back what it put over the other's
            stop()
        spans = telemetry.exporter.get_finished_spans()
        telemetry.shutdown()
    assert queries_by_unit(collected) == {"rpc shop.Shop/Get": (2, 11.0), "rpc shop.Shop/List": (1, 4.0)}
    servers = [figures(span) for span in spans if span.kind is SpanKind.SERVER]
    found = sorted((span[semconv.UNIT_OF_WORK_QUERIES], span.get(semconv.FINDINGS)) for span in servers)  # type: ignore[type-var]
    assert found == [(3, None), (4, None), (8, (N_PLUS_ONE,))]


@pytest.mark.parametrize("positional", [True, False])
def test_the_applications_own_interceptors_stay(telemetry: Telemetry, queries: Queries, *, positional: bool) -> None:
    """However they are given."""
    seen: list[str] = []

    class Theirs(grpc.ServerInterceptor):  # type: ignore[misc]
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            seen.append(details.method)
            return continuation(details)

    def get(request: bytes, _: Any) -> bytes:
        queries(int(request))
        return b"ok"

    with ThreadPoolExecutor(4) as threads:
        handler = (handlers(get, get, get, get),)
        named = {"handlers": handler, "interceptors": [Theirs()]}
        server = grpc.server(threads, *named.values()) if positional else grpc.server(threads, **named)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert channel.unary_unary("/shop.Shop/Get")(b"3") == b"ok"
        server.stop(None).wait()
    assert seen == ["/shop.Shop/Get"]
    assert queries_by_unit(telemetry.collect()) == {"rpc shop.Shop/Get": (1, 3.0)}


def test_with_threads(telemetry: Telemetry, queries: Queries) -> None:
    """Named for the method; a method that does not exist names nothing."""

    def get(request: bytes, _: Any) -> bytes:
        queries(int(request))
        return b"ok"

    def list_(request: bytes, _: Any) -> Iterator[bytes]:
        for _row in range(int(request)):
            queries(1)
            yield b"row"

    def fails(request: bytes, _: Any) -> bytes:
        queries(int(request))
        raise RuntimeError("theirs")

    def chat(requests: Iterator[bytes], _: Any) -> Iterator[bytes]:
        for request in requests:
            queries(int(request))
            yield b"ok"

    in_threads(handlers(get, list_, fails, chat), call_everything)
    assert queries_by_unit(telemetry.collect()) == EXPECTED


def test_with_asyncio(telemetry: Telemetry, queries: Queries) -> None:
    """The same."""

    async def get(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(0)
        queries(int(request))
        return b"ok"

    async def list_(request: bytes, _: Any) -> AsyncIterator[bytes]:
        for _row in range(int(request)):
            queries(1)
            yield b"row"

    async def fails(request: bytes, _: Any) -> bytes:
        queries(int(request))
        raise RuntimeError("theirs")

    async def chat(requests: AsyncIterator[bytes], context: Any) -> None:
        async for request in requests:
            queries(int(request))
            await context.write(b"ok")

    in_asyncio(handlers(get, list_, fails, chat), call_everything)
    assert queries_by_unit(telemetry.collect()) == EXPECTED
