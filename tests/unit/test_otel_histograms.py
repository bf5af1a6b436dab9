"""Ready-made histogram points and ordinary instruments: two ways, the same points."""

from __future__ import annotations

import gc
import importlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import Histogram, MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics import _internal as sdk_metrics
from opentelemetry.sdk.metrics._internal.metric_reader_storage import MetricReaderStorage
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import (
    DropAggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from poolscope import semconv
from poolscope.core.lease import Outcome
from poolscope.core.pool_registry import PoolRegistry
from poolscope.otel.context import ambient
from poolscope.otel.metrics.instruments import Metrics
from poolscope.otel.metrics.metric_producer import understands
from tests.support.clocks import FakeClock
from tests.support.pools import Source, identity
from tests.support.skips import require
from tests.support.telemetry import Collected

if TYPE_CHECKING:
    from collections.abc import Iterator

#: SDKs before 1.30 have no advice: there the ordinary way has the SDK's own buckets.
ADVISED = "explicit_bucket_boundaries_advisory" in inspect.signature(api.Meter.create_histogram).parameters

DELTA: Any = dict.fromkeys((Histogram, ObservableCounter), AggregationTemporality.DELTA)


class Way:
    """
    One way from a pool registry to three readers: cumulative, delta, and cumulative again, each collected
    at its own times.
    """

    def __init__(self, *, native: bool, clock: FakeClock, **provider: Any) -> None:
        self.readers = [
            InMemoryMetricReader(),
            InMemoryMetricReader(preferred_temporality=DELTA),
            InMemoryMetricReader(),
        ]
        self.provider = MeterProvider(self.readers, shutdown_on_exit=False, **provider)
        self.pool_registry = PoolRegistry(
            semconv.DURATION_BOUNDARIES, count_bounds=semconv.COUNT_BOUNDARIES, ambient=ambient, now=clock
        )
        self.metrics = Metrics(self.provider)
        self.metrics.open(self.pool_registry, native=native)
        self.pools = [self.pool_registry.register(identity(name), Source(2)) for name in ("shop", "cart")]

    @property
    def is_native(self) -> bool:
        """Whether the bridge stands."""
        return self.metrics._producer is not None

    def collect(self, reader: int) -> Collected:
        """One reader's collection."""
        return Collected.of(self.readers[reader].get_metrics_data())

    def close(self) -> None:
        """Let go of everything."""
        self.metrics.close()
        self.provider.shutdown()


def values(collected: Collected) -> dict[tuple[Any, ...], dict[str, Any]]:
    """Every histogram point of a collection, in a form to compare."""
    found = {}
    for name, metric in collected.metrics.items():
        if not hasattr(metric.data.data_points[0], "bucket_counts"):
            continue
        for point in metric.data.data_points:
            assert point.start_time_unix_nano <= point.time_unix_nano
            value = {
                "unit": metric.unit,
                "description": metric.description,
                "temporality": metric.data.aggregation_temporality,
                "count": point.count,
                "sum": pytest.approx(point.sum),
                "min": point.min,
                "max": point.max,
            }
            if ADVISED:
                value |= {
                    "buckets": list(point.bucket_counts),
                    "bounds": list(point.explicit_bounds),
                    "exemplars": sorted((each.value, each.trace_id, each.span_id) for each in point.exemplars),
                }
            found[(name, *sorted(point.attributes.items()))] = value
    return found


@pytest.fixture
def clock() -> FakeClock:
    """The clock of both ways."""
    return FakeClock()


@pytest.fixture
def ways(clock: FakeClock) -> Iterator[tuple[Way, Way]]:
    """Both ways."""
    both = (Way(native=True, clock=clock), Way(native=False, clock=clock))
    assert [way.is_native for way in both] == [True, False]
    yield both
    for way in both:
        way.close()


def live(way: Way, clock: FakeClock, waits: list[float], *, tracer: Any = None) -> None:
    """Leases, failures, connects and a unit of work, with these waits; inside spans where there is a tracer."""
    start = clock.now
    for place, seconds in enumerate(waits):
        span = tracer.start_as_current_span("request") if tracer is not None and place % 2 else _nothing()
        with span:
            pool = way.pools[place % 2]
            checkout = pool.checkout()
            clock.advance(seconds)
            pool.created(seconds / 2, checkout)
            if place % 5 == 4:
                checkout.failed(Outcome.TIMEOUT, "some.TimeoutError")
            else:
                checkout.acquired()
                clock.advance(3 * seconds)
                checkout.released()
    unit = way.pool_registry.units.begin("http", "GET /")
    unit.usage_of(way.pools[0]).queries.add(len(waits))
    way.pool_registry.units.end(unit)
    clock.now = start


class _nothing:  # noqa: N801
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


WAITS = [0.00005, 0.0001, 0.0002, 0.003, 0.5, 0.7, 2.0, 61.0, 0.0, 0.01, 0.25]


def test_both_ways_give_the_same_points(ways: tuple[Way, Way], clock: FakeClock) -> None:
    """
    Count, sum, least, most, buckets, bounds, unit, description, temporality and attributes agree, for every reader, at
    every collection, however often another reader collected in between.
    """
    native, ordinary = ways
    seen = 0
    for tick, reader in enumerate((0, 1, 1, 2, 0, 1)):
        if tick != 2:
            for way in ways:
                live(way, clock, [seconds * (tick + 1) for seconds in WAITS])
        ours = values(native.collect(reader))
        assert ours == values(ordinary.collect(reader)), f"reader {reader}, turn {tick}"
        seen += len(ours)
    assert seen > 30


def test_both_ways_give_the_same_exemplars(ways: tuple[Way, Way], clock: FakeClock) -> None:
    """
    Points measured inside a sampled span refer to it, the last of each bucket; those outside, and those of a span that
    is sampled out, do not.
    """
    require(ADVISED, "the SDK has other buckets here", "a newer OpenTelemetry (make matrix)")
    tracer = TracerProvider(shutdown_on_exit=False, id_generator=Counting()).get_tracer("tests")
    dark = TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_OFF).get_tracer("tests")
    native, ordinary = ways
    for way in ways:
        tracer.id_generator.last = 0
        live(way, clock, WAITS, tracer=tracer)
        live(way, clock, [30.0, 40.0], tracer=dark)
    for reader in (0, 1):
        ours = values(native.collect(reader))
        assert ours == values(ordinary.collect(reader))
        exemplars = [each for value in ours.values() for each in value["exemplars"]]
        assert len(exemplars) > 8
        assert all(trace_id for _, trace_id, _ in exemplars)


class Counting:
    """Span and trace ids in order, the same for both ways."""

    last = 0

    def generate_span_id(self) -> int:
        self.last += 1
        return self.last

    def generate_trace_id(self) -> int:
        self.last += 1
        return self.last

    def is_trace_id_random(self) -> bool:
        return True


def test_a_delta_readers_intervals_meet(ways: tuple[Way, Way], clock: FakeClock) -> None:
    """Where one reading of a delta reader ends the next one begins; a cumulative one always begins at the start."""
    native, _ = ways
    began, ended = [], []
    for _ in range(3):
        live(native, clock, WAITS)
        points = native.collect(1).points(semconv.USE_TIME, "shop")
        assert len(points) == 1
        began.append(points[0].start_time_unix_nano)
        ended.append(points[0].time_unix_nano)
    assert began[0] == native.pool_registry.began_at
    assert began[1:] == ended[:2]
    live(native, clock, WAITS)
    assert native.collect(0).points(semconv.USE_TIME, "shop")[0].start_time_unix_nano == native.pool_registry.began_at


def test_nothing_measured_is_no_point(ways: tuple[Way, Way]) -> None:
    """Before the first value there is no histogram in either way."""
    for way in ways:
        assert values(way.collect(0)) == {}


@pytest.mark.parametrize(
    "views",
    [
        [View(instrument_name=semconv.WAIT_TIME.name, aggregation=DropAggregation())],
        [View(instrument_name="db.client.*", attribute_keys={semconv.POOL_NAME})],
        [View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())],
        [View(meter_name="poolscope", instrument_name="*", attribute_keys=set())],
    ],
    ids=["drop", "wildcard", "exponential", "scope"],
)
def test_a_view_of_the_users_holds(clock: FakeClock, views: list[View]) -> None:
    """Where a view concerns one of our histograms the ordinary way is taken, and the view does what it says."""
    way = Way(native=True, clock=clock, views=views)
    assert not way.is_native
    live(way, clock, WAITS)
    collected = way.collect(0)
    if views[0]._instrument_name == semconv.WAIT_TIME.name:
        assert collected.points(semconv.WAIT_TIME) == []
        assert len(collected.points(semconv.USE_TIME)) == 2
    elif views[0]._attribute_keys is not None:
        assert {frozenset(point.attributes) for point in collected.points(semconv.USE_TIME)} <= {
            frozenset({semconv.POOL_NAME}),
            frozenset(),
        }
    else:
        assert hasattr(collected.points(semconv.USE_TIME)[0], "positive")
    way.close()


def test_a_view_that_does_not_concern_us_changes_nothing(clock: FakeClock) -> None:
    """Other people's views leave the bridge standing."""
    way = Way(native=True, clock=clock, views=[View(instrument_name="http.*", aggregation=DropAggregation())])
    assert way.is_native
    way.close()


@pytest.mark.parametrize("after", ["fork", "session"])
@pytest.mark.parametrize("native", [True, False])
def test_another_pool_registry_begins_anew(clock: FakeClock, after: str, *, native: bool) -> None:
    """
    In a child process, and in a second session on the same provider, no counter falls and no histogram goes on from the
    sums before: every series begins anew, at a time of its own.
    """
    way = Way(native=native, clock=clock)
    for tick in (0, 1):
        live(way, clock, WAITS)
        first = [way.collect(reader) for reader in (0, 1)]
        assert all(collected.total(semconv.TIMEOUTS) == 2 for collected in first)
        if tick:
            break
        before = max(point.time_unix_nano for each in first for point in each.points(semconv.TIMEOUTS))
        if after == "fork":
            way.pool_registry.forget_leases()
            way.metrics.after_fork()
        else:
            way.metrics.close()
            way.pool_registry = PoolRegistry(
                semconv.DURATION_BOUNDARIES, count_bounds=semconv.COUNT_BOUNDARIES, now=clock
            )
            way.metrics.open(way.pool_registry, native=native)
            way.pools = [way.pool_registry.register(identity(name), Source(2)) for name in ("shop", "cart")]
    for collected in first:
        assert min(point.start_time_unix_nano for point in collected.points(semconv.TIMEOUTS)) > before
        assert sum(point.count for point in collected.points(semconv.WAIT_TIME)) == len(WAITS)
    for reader in (0, 1):
        for point in way.collect(reader).points(semconv.WAIT_PHASE_TIME):
            assert point.value >= 0
    way.close()


@pytest.mark.parametrize(
    ("aggregation", "native"),
    [
        (ExplicitBucketHistogramAggregation(), True),
        (ExplicitBucketHistogramAggregation(boundaries=(1.0, 2.0)), False),
        (ExplicitBucketHistogramAggregation(record_min_max=False), False),
        (ExponentialBucketHistogramAggregation(), False),
    ],
    ids=["plain", "bounds", "no-extremes", "exponential"],
)
def test_explicit_buckets_in_so_many_words_are_the_usual_ones(
    clock: FakeClock, aggregation: Any, *, native: bool
) -> None:
    """
    A reader that asks for explicit buckets without saying which, as the OTLP exporters make theirs do, gets ready
    points; one that says which, or wants something else, gets that.
    """
    reader = InMemoryMetricReader(preferred_aggregation={Histogram: aggregation})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics = Metrics(provider)
    pool_registry = PoolRegistry(semconv.DURATION_BOUNDARIES, now=clock)
    metrics.open(pool_registry, native=True)
    assert (metrics._producer is not None) is native
    pool_registry.register(identity(), Source(2)).checkout().acquired()
    (point,) = Collected.of(reader.get_metrics_data()).points(semconv.WAIT_TIME)
    assert point.count == 1
    if native:
        assert tuple(point.explicit_bounds) == semconv.DURATION_BOUNDARIES
    metrics.close()
    provider.shutdown()


def test_the_otlp_exporters_readers_get_ready_points() -> None:
    """What most services export with is served by the bridge."""
    name = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
    try:
        exporter = importlib.import_module(name).OTLPMetricExporter(endpoint="http://127.0.0.1:1")
    except ImportError:
        exporter = None
    require(exporter is not None, f"{name} missing", "make env")
    reader = InMemoryMetricReader(
        preferred_temporality=exporter._preferred_temporality, preferred_aggregation=exporter._preferred_aggregation
    )
    provider = MeterProvider([reader], shutdown_on_exit=False)
    assert understands(provider, [])
    provider.shutdown()


def test_a_reader_that_wants_exponential_histograms_gets_them(clock: FakeClock) -> None:
    """A reader's preferred aggregation counts as a view does."""
    reader = InMemoryMetricReader(preferred_aggregation={Histogram: ExponentialBucketHistogramAggregation()})
    provider = MeterProvider([reader], shutdown_on_exit=False)
    metrics = Metrics(provider)
    pool_registry = PoolRegistry(semconv.DURATION_BOUNDARIES, now=clock)
    metrics.open(pool_registry, native=True)
    pool = pool_registry.register(identity(), Source(2))
    pool.checkout().acquired()
    (point,) = Collected.of(reader.get_metrics_data()).points(semconv.WAIT_TIME)
    assert (point.count, hasattr(point, "positive")) == (1, True)
    metrics.close()
    provider.shutdown()


@pytest.mark.parametrize("native", [True, False])
def test_a_meter_that_is_switched_off_reports_nothing(clock: FakeClock, *, native: bool) -> None:
    """
    Where the provider's configurator switches our meter off there are no histograms in either way, and there are again
    once it is switched on.
    """
    config = getattr(sdk_metrics, "_MeterConfig", None)
    require(config is not None, "this SDK switches no meter off", "a newer OpenTelemetry (make matrix)")
    off: Any = lambda scope: config(is_enabled=scope.name != semconv.SCOPE)  # noqa: E731
    way = Way(native=native, clock=clock, _meter_configurator=off)
    live(way, clock, WAITS)
    way.metrics.drain()
    assert way.collect(0).metrics == {}
    way.provider._set_meter_configurator(meter_configurator=lambda _: config())
    live(way, clock, WAITS)
    assert values(way.collect(0)) != {}
    way.close()


def test_no_histogram_is_exported_in_both_ways_at_once(clock: FakeClock) -> None:
    """
    After a session with ordinary instruments, one with the bridge on the same provider gives each histogram once: its
    own.
    """
    way = Way(native=False, clock=clock)
    live(way, clock, WAITS)
    assert values(way.collect(0)) != {}
    way.metrics.close()
    pool_registry = PoolRegistry(semconv.DURATION_BOUNDARIES, now=clock)
    way.metrics.open(pool_registry, native=True)
    pool_registry.register(identity(), Source(2)).checkout().acquired()
    data = way.readers[0].get_metrics_data()
    told = [m for s in data.resource_metrics[0].scope_metrics for m in s.metrics if m.name == semconv.WAIT_TIME.name]
    assert [[point.count for point in metric.data.data_points] for metric in told] == [[1]]
    way.close()


def test_a_reader_that_goes_leaves_nothing_behind(clock: FakeClock) -> None:
    """Readers come and go in newer SDKs; what the bridge kept for one goes with it."""
    changes = hasattr(MeterProvider, "add_metric_reader")
    require(changes, "this SDK has its readers for good", "a newer OpenTelemetry (make matrix)")
    way = Way(native=True, clock=clock)
    live(way, clock, WAITS)
    passing = InMemoryMetricReader(preferred_temporality=DELTA)
    way.provider.add_metric_reader(passing)
    assert values(Collected.of(passing.get_metrics_data())) != {}
    assert len(way.pools[0].waits._taps) == 1
    way.provider.remove_metric_reader(passing)
    gc.collect()
    assert len(way.pools[0].waits._taps) == 0
    way.close()


def test_what_is_no_sdk_is_not_understood() -> None:
    """The API's own provider, and one that only looks like an SDK's, get the ordinary way."""
    assert understands(api.NoOpMeterProvider(), []) is False
    broken = MeterProvider(shutdown_on_exit=False)
    del broken._sdk_config
    assert understands(broken, []) is False
    broken.__dict__["_sdk_config"] = None  # for its finaliser


def test_the_sdks_own_method_is_back_afterwards(clock: FakeClock) -> None:
    """Two bridges at once serve each its own provider; when both are gone the SDK is as it was, in either order."""
    original = MetricReaderStorage.collect
    for first_out in (0, 1):
        both = [Way(native=True, clock=clock), Way(native=True, clock=clock)]
        live(both[0], clock, WAITS)
        assert values(both[1].collect(0)) == {}
        assert values(both[0].collect(0)) != {}
        both.pop(first_out).close()
        live(both[0], clock, WAITS)
        assert values(both[0].collect(2)) != {}
        both[0].close()
        assert MetricReaderStorage.collect is original
    gc.collect()


def test_other_peoples_metrics_are_left_alone(ways: tuple[Way, Way], clock: FakeClock) -> None:
    """Ours are joined in; whatever else the application measures is in the same collection, in its own scope."""
    native, _ = ways
    native.provider.get_meter("shop").create_counter("orders").add(3)
    live(native, clock, WAITS)
    data = native.readers[0].get_metrics_data()
    (resource,) = data.resource_metrics
    assert sorted(scope.scope.name for scope in resource.scope_metrics) == ["poolscope", "shop"]
    assert Collected.of(data, "shop").metrics["orders"].data.data_points[0].value == 3
    assert resource.resource == native.provider._sdk_config.resource
    assert data.to_json()
