"""N+1: diagnosed at the end of the unit of work, once for each, with the fix that fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from poolscope.adapters.django_loaders import PREFETCH, QUERY_SET, RELATED
from poolscope.adapters.sqlalchemy.loaders import EAGER, EXPIRED, LAZY
from poolscope.core.catalogue.holds import LONG_HOLD
from poolscope.core.catalogue.queries import N_PLUS_ONE
from poolscope.core.sql.repetition import EXPECTED_REPETITION, Repetition
from poolscope.detectors.n_plus_one import Repeated, found
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from poolscope.core.libraries import Loader
    from poolscope.core.work import UnitOfWork


def repeat(scene: Scene, times: int, name: str = "GET /feed", at: str = "loop") -> UnitOfWork:
    """A unit of work that runs one shape so often from one line."""
    with scene.unit(name) as unit:
        lease = scene.checkout("view")
        for number in range(times):
            scene.query(lease, f"select * from posts where user_id = {number} and kind = 'secret'", at, seconds=0.01)
        lease.released()
    return unit


def test_more_than_the_threshold_is_an_n_plus_one() -> None:
    """Six of five; exactly five are none. It says shape, count, time, line and fix, and no literal."""
    scene = Scene()
    fixed, bad = repeat(scene, 5, "GET /fixed"), repeat(scene, 6)
    (finding,) = scene.found()
    assert (finding.id, str(finding.unit)) == (N_PLUS_ONE, str(bad))
    assert (fixed.findings, bad.findings) == (set(), {N_PLUS_ONE})
    assert finding.summary == (
        "http GET /feed ran one statement 6 times from /application/loop.py:2 in loop (50 ms): "
        "select * from posts where user_id = ? and kind = ?"
    )
    assert finding.origin is not None
    assert finding.origin[0] is line("loop").__code__
    assert finding.evidence == {
        "statement": "select * from posts where user_id = ? and kind = ?",
        "repetitions": 6,
        "seconds": pytest.approx(0.05),
        "repeated": 0,
    }
    assert finding.fix == "one query for all: a join, or WHERE ... IN"


@pytest.mark.parametrize(
    ("parameters", "ids"),
    [
        ([[7, "x"]] * 9, []),
        ([{"id": 7}] * 9, []),
        ([[7, "x"]] * 8 + [[8, "x"]], [N_PLUS_ONE]),
        ([[number] for number in range(9)], [N_PLUS_ONE]),
        ([None] * 9, [N_PLUS_ONE]),
        ([[object()]] * 9, [N_PLUS_ONE]),
        ([[7, True, None, 1.5]] * 9, []),
    ],
    ids=["retry", "by name", "others at the end", "each another", "none known", "not plain", "true and null"],
)
def test_what_has_the_same_values_each_time_is_none(parameters: list[Any], ids: list[str]) -> None:
    """A retry, or a look whether something is done: no earlier row is behind it. What is not known counts."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        for each in parameters:
            scene.query(lease, "update jobs set state = %s where id = %s", parameters=each)
        lease.released()
    assert scene.ids() == ids


@pytest.mark.parametrize(("others", "ids"), [(False, []), (True, [N_PLUS_ONE])])
def test_values_in_the_text_are_values_too(others: bool, ids: list[str]) -> None:
    """The parameters are the same each time, and so must the text be; whatever else the same line runs in between."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        for number in range(9):
            key = number if others else 1
            scene.query(lease, f"select * from posts where user_id = {key} and kind = %s", parameters=["a"])
            scene.query(lease, "select * from news where kind = %s", parameters=["b"])
        lease.released()
    assert scene.ids() == ids


def test_values_that_change_in_one_list_are_others_each_time() -> None:
    """A loop may fill the same list anew for each row."""
    scene = Scene()
    with scene.unit():
        lease, values = scene.checkout(), [0]
        for number in range(9):
            values[0] = number
            scene.query(lease, "select * from posts where user_id = %s", parameters=values)
        lease.released()
    assert scene.ids() == [N_PLUS_ONE]


@pytest.mark.parametrize(
    ("times", "slow", "ids"),
    [
        (60, 0.0, [N_PLUS_ONE]),
        (60, 0.4, [N_PLUS_ONE]),
        (60, 0.6, [LONG_HOLD, N_PLUS_ONE]),
        (6, 0.6, [LONG_HOLD, N_PLUS_ONE]),
        (5, 0.6, [LONG_HOLD]),
    ],
)
def test_its_time_is_no_long_hold_of_its_own(times: int, slow: float, ids: list[str]) -> None:
    """
    One cause is reported once: the connection was held for long only because of the repetition. Held for long besides,
    by a slow query of another shape, it is both.
    """
    scene = Scene()
    with scene.unit("GET /feed") as unit:
        lease = scene.checkout("view")
        scene.query(lease, "select count(*) from users", "before", seconds=slow)
        for number in range(times):
            scene.query(lease, f"select * from posts where user_id = {number}", "loop", seconds=0.01)
        lease.released()
    assert scene.pool_registry.units.findings_of(unit) == ids
    assert sorted(finding.id for finding in scene.found()) == ids


def test_a_long_hold_beside_a_repetition_is_reported() -> None:
    """One connection is held for one slow query, while another one of the same unit runs the repetition."""
    scene = Scene()
    with scene.unit("GET /feed") as unit:
        slow, quick = scene.checkout("report"), scene.checkout("view")
        for number in range(60):
            scene.query(quick, f"select * from posts where user_id = {number}", "loop", seconds=0.01)
        quick.released()
        scene.query(slow, "select count(*) from users", "before", seconds=0.1)
        slow.released()
    assert LONG_HOLD in scene.pool_registry.units.findings_of(unit)


def test_it_is_diagnosed_at_the_end_of_the_unit() -> None:
    """Before, nothing is reported, though the unit's ids can be read; what is said is the whole of it."""
    scene = Scene()
    with scene.unit() as unit:
        lease = scene.checkout()
        for _ in range(20):
            scene.query(lease, at="loop")
        assert scene.found() == []
        assert scene.pool_registry.units.findings_of(unit) == [N_PLUS_ONE]
        for _ in range(20):
            scene.query(lease, at="loop")
        lease.released()
    scene.pool_registry.units.end(unit)
    (finding,) = scene.found()
    assert finding.evidence["repetitions"] == 40


def test_two_loops_of_one_unit_are_two() -> None:
    """By line and by shape."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        for at in ("first", "second"):
            for table in ("a", "b"):
                for _ in range(6):
                    scene.query(lease, f"select * from {table}", at)
        for _ in range(3):
            scene.query(lease, "select * from c", "first")
            scene.query(lease, "select * from c", "second")
        lease.released()
    assert len(scene.found(N_PLUS_ONE)) == 4


def test_units_do_not_add_up() -> None:
    """One run in each of a hundred requests is none."""
    scene = Scene()
    for _ in range(100):
        repeat(scene, 1)
    assert scene.found() == []


def test_what_is_annotated_is_none() -> None:
    """Inside `expected_repetition`; the same line outside of it counts what it ran there."""
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        token = EXPECTED_REPETITION.set("it polls")
        for _ in range(20):
            scene.query(lease, at="poll")
        EXPECTED_REPETITION.reset(token)
        for _ in range(5):
            scene.query(lease, at="poll")
        lease.released()
    assert scene.found() == []
    scene = Scene()
    with scene.unit():
        lease = scene.checkout()
        for _ in range(6):
            scene.query(lease, at="poll")
        lease.released()
    assert scene.ids() == [N_PLUS_ONE]


def test_the_threshold_is_a_setting() -> None:
    """Five by default."""
    for threshold, ids in ((5, [N_PLUS_ONE]), (10, []), (1, [N_PLUS_ONE])):
        scene = Scene(n_plus_one_threshold=threshold)
        repeat(scene, 10)
        assert scene.ids() == ids


def test_one_place_is_reported_once_in_an_interval() -> None:
    """The next says in how many units of work it was found meanwhile; each of these has the id."""
    scene = Scene()
    units = [repeat(scene, 6) for _ in range(4)]
    assert len(scene.found()) == 1
    assert all(unit.findings == {N_PLUS_ONE} for unit in units)
    scene.clock.advance(31)
    repeat(scene, 6)
    assert scene.found()[-1].evidence["repeated"] == 3


def test_a_batch_is_one_query_and_no_repetition() -> None:
    """What runs for many rows in one call."""
    scene = Scene()
    with scene.unit() as unit:
        lease = scene.checkout()
        for _ in range(20):
            scene.query(lease, "insert into t values (?)", many=True)
        lease.released()
    assert unit.usages[scene.pool].queries.read() == 20
    assert scene.found() == []


@pytest.mark.parametrize(
    ("shape", "loader", "fix"),
    [
        ("select ?", None, "WHERE ... IN"),
        ("insert into t values (?)", None, "executemany"),
        ("update t set a = ?", None, "CASE"),
        ("delete from t where id = ?", None, "WHERE ... IN"),
        ("call p(?)", None, "run it once"),
        ("select ?", LAZY, "selectinload"),
        ("select ?", EXPIRED, "expire_on_commit=False"),
        ("select ?", RELATED, "select_related"),
        ("select ?", QUERY_SET, "field__in"),
        ("select ?", EAGER, "yield_per"),
        ("select ?", PREFETCH, "chunk_size"),
        ("insert into t values (?)", QUERY_SET, "bulk_create"),
        ("update t set a = ?", QUERY_SET, "bulk_update"),
        ("delete from t where a = ?", RELATED, ".delete()"),
    ],
)
def test_the_fix_fits(shape: str, loader: Loader | None, fix: str) -> None:
    """Eager loading where an ORM loaded lazily, of the ORM that it was; by the kind of statement for SQL by hand."""
    scene = Scene()
    repetition = Repetition(shape, None)
    repetition.loader = loader
    finding = found(Repeated(scene.pool_registry.units.begin("http", "GET /"), scene.pool, repetition), 0)
    assert fix in finding.fix
    assert finding.evidence.get("loader") == (loader.name if loader is not None else None)
    assert "from unknown" in finding.summary
    assert ("as a " in finding.summary) == (loader is not None)
    assert loader is None or f"as a {loader.name}" in finding.summary
