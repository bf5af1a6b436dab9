"""Repetitions: what counting them costs, in time and space."""

from __future__ import annotations

import functools
import sys
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters import django_loaders
from poolscope.adapters.django_loaders import PREFETCH, QUERY_SET, RELATED
from poolscope.adapters.sqlalchemy.loaders import EAGER, EXPIRED, LAZY, LOADERS
from poolscope.core.sql import fingerprint as statements
from poolscope.core.sql import repetition as repetitions
from poolscope.core.sql.remembered import Remembered
from poolscope.core.sql.repetition import Repetitions, loader_of
from tests.support.libraries import known
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FrameType

    from poolscope.core.libraries import Loader

MEGABYTE = 1_000_000


@pytest.fixture
def analysed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The statements whose shape was computed; none is remembered from before."""
    texts: list[str] = []

    def counting(statement: str, system: str) -> Any:
        texts.append(statement)
        return statements.analyse(statement, system)

    monkeypatch.setattr(statements, "_remembered", Remembered())
    monkeypatch.setattr(repetitions, "analyse", counting)
    return texts


def code(name: str, file: str = "/application/a.py") -> CodeType:
    """A function's code."""
    made: dict[str, Any] = {}
    exec(compile(f"def {name}(call):\n    return call()\n", file, "exec"), made)
    return made[name].__code__  # type: ignore[no-any-return]


def somewhere(_: FrameType | None) -> tuple[CodeType, int]:
    """One line for all."""
    return (code.__code__, 0)


# Time -----------------------------------------------------------------------------------------------------------------


def test_the_shape_is_computed_for_repeats_only(analysed: list[str]) -> None:
    """
    A request that runs each line once computes none; one that repeats computes each text once, in
    the whole process.
    """
    scene = Scene()
    for _ in range(5):
        with scene.unit():
            lease = scene.checkout()
            for number in range(20):
                scene.query(lease, f"select * from table_{number}", f"line_{number}")
            lease.released()
    assert analysed == []
    for _ in range(5):
        with scene.unit():
            lease = scene.checkout()
            for _ in range(50):
                scene.query(lease, "select * from posts where user_id = %s", "loop")
            lease.released()
    assert analysed == ["select * from posts where user_id = %s"]


def test_the_work_for_one_unit_is_bounded(analysed: list[str]) -> None:
    """
    By characters: of a hundred thousand distinct statements a few thousand are looked at, and all are counted where
    it is clear what they are.
    """
    counted = Repetitions("postgresql", somewhere)
    for number in range(100_000):
        counted.saw(f"select * from posts where user_id = {number}", None)
    assert sum(map(len, analysed)) <= Repetitions.BUDGET + 100
    (group,) = counted.beyond_threshold(5)
    assert (group.count, counted.beyond) == (100_000, 0)


def test_beyond_the_budget_nothing_is_guessed(analysed: list[str]) -> None:
    """A line that has run several shapes: what is not looked at is counted to none; what is known already still is."""
    counted = Repetitions("postgresql", somewhere)
    for number in range(3):
        counted.saw(f"select a from b where c = {number}", None)
        counted.saw("delete from b", None)
    counted._budget = 0
    for number in range(100):
        assert counted.saw(f"select other from b where c = {number}", None) is None
    for _ in range(4):
        assert counted.saw("delete from b", None) is not None
    assert counted.beyond == 100
    assert {group.shape: group.count for group in counted.beyond_threshold(0)} == {
        "select a from b where c = ?": 3,
        "delete from b": 7,
    }


def test_a_line_of_which_nothing_is_known_counts_nothing(analysed: list[str]) -> None:
    """Where the budget is spent before its first statement: none of its shapes is known."""
    counted = Repetitions("postgresql", somewhere)
    counted._budget = 0
    for number in range(5):
        assert counted.saw(f"select a from b where c = {number}", None) is None
    assert analysed == []
    assert counted.beyond == 5
    assert list(counted.beyond_threshold(0)) == []


@pytest.mark.parametrize(
    ("pauses", "count", "works_off"),
    [
        (0, 9, False),
        (1, 9, False),
        (2, 9, False),
        (2, 100, False),
        (3, 9, True),
        (3, 150, True),
        (3, 151, False),
        (4, 200, True),
    ],
)
def test_what_pauses_often_works_off_messages(pauses: int, count: int, works_off: bool) -> None:
    """One run in fifty, and more than twice; in a unit of work that may run for as long as the process does."""
    counted = Repetitions("postgresql", somewhere)
    (group,) = {counted.saw("select a from b where c = %s", None, (number,)) for number in range(count)} - {None}
    assert group is not None
    group.pauses = pauses
    assert list(counted.beyond_threshold(5)) == [group]
    counted.may_last = True
    assert list(counted.beyond_threshold(5)) == ([] if works_off else [group])


def test_runs_after_a_pause_are_no_repetition() -> None:
    """The others have to be more than the threshold."""
    counted = Repetitions("postgresql", somewhere)
    (group,) = {counted.saw("select a from b where c = %s", None, (number,)) for number in range(9)} - {None}
    assert group is not None
    group.pauses = 3
    assert list(counted.beyond_threshold(5)) == [group]
    assert list(counted.beyond_threshold(6)) == []


@pytest.mark.parametrize(
    ("values", "texts", "same"),
    [
        ([1] * 9, ["x"] * 9, True),
        ([1] * 8 + [0], ["x"] * 9, False),
        ([1] * 8 + [2], ["x"] * 9, False),
        ([1] * 9, ["x"] * 8 + ["y"], False),
        ([1] * 9, ["x"] * 8 + ["w"], False),
        ([1] * 9, ["x"] * 8 + ["v"], False),
        ([1] * 9, ["x"] * 8 + ["u"], False),
        ([1] * 9, ["x"] * 8 + ["t"], False),
        ([2] + [1] * 8, ["y"] + ["x"] * 8, True),
        ([2, 3] + [1] * 7, ["x"] * 9, False),
    ],
)
@pytest.mark.parametrize("others", [False, True])
def test_what_wants_the_same_each_time_is_no_repetition(
    values: list[int], texts: list[str], same: bool, others: bool
) -> None:
    """From the second run on, in the text and in the parameters; whatever the same line runs in between."""
    counted = Repetitions("postgresql", somewhere)
    for value, text in zip(values, texts, strict=True):
        counted.saw(f"update jobs set state = '{text}' where id = %s", None, (value,))
        if others:
            counted.saw("update others set state = %s", None, (1_000_000,))
    assert len([*counted.beyond_threshold(5)]) == (0 if same else 1)


def test_the_texts_are_those_of_all_lines() -> None:
    """As it was sent, of a line that ran one; the shapes of one that ran more. The first line comes first."""
    sites = [(code(name), 0) for name in ("one", "two", "three")]
    now = iter(sites * 3)
    counted = Repetitions("postgresql", lambda _: next(now))
    for text in ("select 1 from a", "select 2 from b", "select 3 from c"):
        counted.saw(text, None)
    assert [*counted.texts()] == ["select 1 from a", "select 2 from b", "select 3 from c"]
    counted.saw("select 4 from a", None)
    counted.saw("delete from b", None)
    assert [*counted.texts()] == ["select ? from a", "select ? from b", "delete from b", "select 3 from c"]


def test_a_shape_that_has_run_once_has_nothing_to_say() -> None:
    """No time, no pause and no values: they begin with the second run."""
    counted = Repetitions("postgresql", somewhere)
    counted.saw("select a from b", None, (1,))
    group = counted.saw("delete from b", None, (1,))
    assert group is not None
    assert (group.count, group.seconds, group.queried, group.pauses, group.same) == (1, 0.0, 0.0, 0, None)


def test_lines_are_bounded() -> None:
    """What others run is not counted; what the known ones run still is."""
    sites = [(code(f"line_{number}"), 0) for number in range(Repetitions.MOST + 3)]
    now = iter([*sites, sites[0], sites[-1], sites[0]])
    counted = Repetitions("postgresql", lambda _: next(now))
    assert [counted.saw("select a from b where c = 1", None) for _ in sites] == [None] * len(sites)
    assert counted.beyond == 3
    assert counted.saw("select a from b where c = 2", None) is not None
    assert counted.saw("select a from b where c = 2", None) is None
    group = counted.saw("select a from b where c = 2", None)
    assert group is not None
    assert (group.count, counted.beyond) == (3, 4)


# Space ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "template",
    [
        "select column_{number} from t where x = '{number}{padding}'",
        "select column_{number} from t where x = '{padding}' and a = {number} and b > {number} order by b limit 5",
        "select a from t where x = '{padding}' and a = %s and b > %s and c = {number} order by b limit %s",
    ],
    ids=["statements", "pages", "pages with parameters"],
)
def test_memory_is_bounded_under_a_hundred_thousand_distinct_statements(template: str) -> None:
    """
    A unit of work of 100,000 different statements from 2,000 lines, some of them megabytes: what is kept for it, and
    what is kept for the process, stays below a few megabytes.
    """
    sites = [(code(f"line_{number}"), 0) for number in range(2_000)]
    place = iter(range(10**9))

    def spread(_: FrameType | None) -> tuple[CodeType, int]:
        return sites[next(place) % len(sites)]

    scene = Scene()
    with scene.unit() as unit:
        counted = unit.usage_of(scene.pool).repetitions
        counted._locate = spread
        tracemalloc.start()
        try:
            before, _ = tracemalloc.get_traced_memory()
            for number in range(100_000):
                padding = "x" * MEGABYTE if number % 5_000 == 1 else ""
                statement = template.replace("{number}", str(number)).replace("{padding}", padding)
                counted.saw(statement, None, (number, number, 5))
            after, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert after - before < 4 * MEGABYTE
        assert counted.beyond > 0
        assert len(counted._lines) == Repetitions.MOST
        assert len(counted._groups) <= Repetitions.MOST


def test_a_long_statement_is_kept_only_as_far_as_it_is_looked_at() -> None:
    """A first one that is noted, of which no second comes."""
    counted = Repetitions("postgresql", somewhere)
    counted.saw("insert into t values " + "(1)," * MEGABYTE, None)
    assert [len(text) for text in counted._lines.values()] == [statements.LONGEST + 1]


def test_long_values_are_not_kept() -> None:
    """To compare a file that is written with the next one, should one come."""
    counted = Repetitions("postgresql", somewhere)
    for _ in range(2):
        counted.saw("insert into t values (%s)", None, (b"x" * MEGABYTE,))
    (group,) = counted.beyond_threshold(1)
    assert group.same is None


def test_shapes_are_bounded_too(analysed: list[str]) -> None:
    """One line that runs a thousand shapes twice: as many as there is room for."""
    counted = Repetitions("postgresql", somewhere)
    for _ in range(2):
        for number in range(1_000):
            counted.saw(f"select column_{number} from t", None)
    assert len(counted._groups) == Repetitions.MOST
    assert counted.beyond > 0


# Who ran it -----------------------------------------------------------------------------------------------------------


def stacked(*files_and_names: tuple[str, str]) -> FrameType:
    """A frame with callers in those files and functions, innermost first."""

    def call() -> FrameType:
        return sys._getframe(1)

    step: Any = call
    for file, name in files_and_names:
        made: dict[str, Any] = {}
        exec(compile(f"def {name}(call):\n    return call()\n", file, "exec"), made)
        step = functools.partial(made[name], step)
    return step()  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def libraries() -> Iterator[None]:
    """Those that load lazily."""
    with known(loaders=(*LOADERS, *django_loaders.LOADERS)):
        yield


BASE = ("/lib/site-packages/sqlalchemy/engine/base.py", "_execute_context")
STRATEGIES = "/lib/site-packages/sqlalchemy/orm/strategies.py"
QUERY = ("/lib/site-packages/django/db/models/query.py", "_fetch_all")
DESCRIPTOR = ("/lib/site-packages/django/db/models/fields/related_descriptors.py", "__get__")


@pytest.mark.parametrize(
    ("frames", "loader"),
    [
        ((BASE, (STRATEGIES, "_emit_lazyload")), LAZY),
        ((BASE, (STRATEGIES.replace("/", "\\"), "_load_for_state")), LAZY),
        ((BASE, (STRATEGIES, "_load_via_parent")), EAGER),
        ((BASE, ("/lib/sqlalchemy/orm/loading.py", "load_scalar_attributes")), EXPIRED),
        ((BASE, ("/lib/sqlalchemy/orm/loading.py", "load_on_pk_identity")), None),
        ((QUERY,), QUERY_SET),
        ((QUERY, DESCRIPTOR), RELATED),
        ((BASE,), None),
        ((BASE, (STRATEGIES, "_emit_lazyload"), QUERY), LAZY),
        ((QUERY, (QUERY[0], "prefetch_one"), DESCRIPTOR), PREFETCH),
    ],
)
def test_lazy_loads_are_recognised_by_the_stack(frames: tuple[tuple[str, str], ...], loader: Loader | None) -> None:
    """By the frames between the query and the application; those of other loaders are not lazy."""
    assert loader_of(stacked(*frames), None) is loader


def test_the_search_ends_at_the_application() -> None:
    """What calls the application is not between it and the query."""
    view = ("/application/views.py", "view")
    frame = stacked(BASE, view, QUERY)
    assert frame.f_back is not None
    inner = frame.f_back.f_back
    assert inner is not None
    assert loader_of(frame, (next_code(frame, "view"), 0)) is None
    assert loader_of(frame, None) is QUERY_SET
    frame = stacked(BASE, (STRATEGIES, "_emit_lazyload"), view, QUERY)
    assert loader_of(frame, (next_code(frame, "view"), 0)) is LAZY


def next_code(frame: FrameType | None, name: str) -> CodeType:
    """The code of the first function of that name on the stack."""
    while frame is not None and frame.f_code.co_name != name:
        frame = frame.f_back
    assert frame is not None
    return frame.f_code


def test_the_stack_is_looked_at_once_for_each_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the second run, not at the first and not later."""
    looked: list[object] = []

    def looking(frame: object, _: object) -> Loader:
        looked.append(frame)
        return LAZY

    monkeypatch.setattr(repetitions, "loader_of", looking)
    counted = Repetitions("postgresql", somewhere)
    frames = [stacked(BASE) for _ in range(9)]
    for frame in frames:
        counted.saw("select 1 from t", frame)
    assert looked == [frames[1]]
    (group,) = counted.beyond_threshold(5)
    assert group.loader is LAZY


def test_without_any_frame_statements_are_of_one_place() -> None:
    """Where no line is known: better counted by shape alone than not at all."""
    counted = Repetitions("postgresql", lambda _: None)
    for _ in range(10):
        counted.saw("select 1 from t", None)
    (group,) = counted.beyond_threshold(5)
    assert (group.count, group.call_site) == (10, None)
