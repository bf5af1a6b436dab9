"""The edges of what core counts, keeps and passes on: the first moment, an odd number, one word further."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import os
import zlib
from pathlib import Path
from threading import get_ident
from typing import Any

import pytest

from poolscope.core import failure, libraries, origin
from poolscope.core.blocks import NO_OVERLAP, SHORTEST, Overlap
from poolscope.core.dormancy import Dormancy
from poolscope.core.execution import stack_of_task
from poolscope.core.guard import Guard, SessionEndedError, guard
from poolscope.core.histogram import Distribution
from poolscope.core.lazy_jobs import LazyJob, excuses_here
from poolscope.core.lease import Outcome
from poolscope.core.listener import Listeners, NullListener
from poolscope.core.location import BEGINNING, know_template, locate
from poolscope.core.origin import Origins, _compiled_from
from poolscope.core.pool_registry import PoolRegistry
from poolscope.core.sql.fingerprint import LONGEST_SHAPE, _shortened, shape_of
from poolscope.core.sql.locking import locks_of
from poolscope.core.sql.locks import Mode
from poolscope.core.sql.remembered import Remembered
from poolscope.core.sql.repetition import EXPECTED_REPETITION
from poolscope.core.sql.syntax import _syntaxes
from poolscope.core.watched_loop import Samples, loop_of
from poolscope.core.work import EXPECTED_LONG_HOLD, OVERFLOW, UnitOfWork, Units
from poolscope.core.work_scope import Unclosed, finish, inside, inside_async
from tests.support.clocks import FakeClock
from tests.support.likeness import Like
from tests.support.scene import Scene


@pytest.mark.parametrize("places", range(1, 5))
@pytest.mark.parametrize(
    ("statement", "system"),
    [
        ("select * from a for update", "postgresql"),
        ("select * from a as b join c d on b.i = d.i for share of d nowait", "postgresql"),
        ("select * from generate_series(1, 3) g, t for update skip locked", "postgresql"),
        ("with x as (update a set z = 1 returning i) select * from b, x for share", "postgresql"),
        ("insert into a (x) values (1) on conflict (x) do update set y = 2", "postgresql"),
        ("lock table a, s.b in share mode nowait", "postgresql"),
        ("truncate table a, b cascade", "postgresql"),
        ("create unique index i on t (a)", "postgresql"),
        ("alter table if exists only s.t add column x int", "postgresql"),
        ("vacuum full t", "postgresql"),
        ("refresh materialized view m", "postgresql"),
        ("select * from a lock in share mode", "mysql"),
        ("select * from a as b, c lock in share mode", "mysql"),
        ("lock tables a read, b as c write", "mysql"),
    ],
)
def test_locks_are_the_same_wherever_a_statement_begins(statement: str, system: str, places: int) -> None:
    """Some words further in the text, as behind another one."""
    expected = locks_of(statement, system)
    assert expected
    assert locks_of(f"{';' * places} {statement}", system) == expected


def test_a_lock_that_is_shared_is_so_behind_an_update() -> None:
    """The strength of the rows' lock is what stands behind the FOR, and nothing before it."""
    locks = locks_of("with x as (update a set z = 1 returning i) select * from b for share", "postgresql")
    assert [lock.mode for lock in locks if "b" in lock.table] == [Mode.SHARED_ROWS]


def test_what_was_stopped_is_no_error_of_ours() -> None:
    """It is not counted; whatever else is."""

    def ends(text: str) -> None:
        raise SessionEndedError(text)

    counting = Guard()
    for function in (ends, int):
        try:
            function("no number")
        except Exception:
            counting.caught_quietly("tests.one")
    assert counting.counts() == {"tests.one": 1}


def test_every_event_is_passed_on() -> None:
    """Whichever there are: to each listener, in order, with what it is about; leases inside a span to one alone."""
    seen: list[tuple[object, ...]] = []
    events = [name for name in vars(NullListener) if not name.startswith("_")]

    def listener(mark: str) -> Any:
        def keep(name: str) -> Any:
            return lambda *given: seen.append((mark, name, *given))

        return Like(**{name: keep(name) for name in events})

    first, second, third = listener("first"), listener("second"), listener("third")
    both = Listeners(first, second, traced=third)
    for name in events:
        given = [object() for _ in list(inspect.signature(getattr(NullListener, name)).parameters)[1:]]
        getattr(both, name)(*given)
        marks = ["third"] if name == "traced" else ["first", "second"]
        assert seen == [(mark, name, *given) for mark in marks]
        seen.clear()


def test_it_stays_dormant_without_a_background_thread() -> None:
    """Also where starting it fails; it tries again a second later, or at once where the thread has ended."""
    clock = FakeClock()
    dormancy = Dormancy(clock)
    served: list[bool] = []

    def fails() -> bool:
        served.append(False)
        raise ValueError("no thread")

    dormancy.sleep()
    dormancy.has_listeners, dormancy.is_served = lambda: True, fails
    dormancy.still_dormant()
    assert (dormancy.dormant, served) == (True, [False])
    dormancy.still_dormant()
    assert served == [False]
    clock.advance(1)
    dormancy.is_served = lambda: True
    dormancy.still_dormant()
    assert not dormancy.dormant
    dormancy.unserved()
    assert dormancy.dormant
    dormancy.still_dormant()
    assert not dormancy.dormant


def test_a_hold_of_the_first_moment_has_its_phases() -> None:
    """A clock may begin at nothing."""
    scene = Scene()
    scene.clock.now = 0.0
    lease = scene.checkout()
    scene.query(lease, seconds=2.0)
    scene.clock.advance(1.0)
    lease.released()
    assert scene.pool.holds.read().phases == {"query": 2.0, "idle_in_transaction": 1.0, "idle": 0.0}


def test_a_unit_of_work_has_waited_and_held_for_so_long() -> None:
    """Spans of the clock, and the wait by its phases."""
    scene = Scene()
    scene.clock.now = 2.0
    with scene.unit() as unit:
        lease = scene.begin_checkout()
        scene.clock.advance(1.5)
        lease.handed_over()
        scene.clock.advance(0.25)
        lease.acquired()
        scene.clock.advance(7.0)
        lease.released()
    (usage,) = unit.usages.values()
    assert (usage.wait_time.read(), usage.hold_time.read()) == (1.75, 7.0)
    assert sorted(scene.pool.waits.read().phases.values()) == [0.0, 0.25, 1.5]


def test_a_statement_that_nothing_knew_before_counts_below() -> None:
    """As one that is known does."""
    scene = Scene()
    lease = scene.checkout()
    for _ in range(2):
        lease.statement_begins_below("select forty_two from seen_nowhere_else")
        lease.call_ends(in_transaction=False)
    assert lease.queries == 2


@pytest.mark.parametrize("bounds", [(), (1.0,), (1.0, 2.0), (1.0, 2.0, 3.0)])
def test_what_is_above_every_bound_has_a_bucket(bounds: tuple[float, ...]) -> None:
    """However many bounds there are."""
    distribution: Distribution[Any] = Distribution(bounds)
    for value in (0.5, 99.0):
        distribution.record(value)
    read = distribution.read()
    assert len(read.counts) == len(bounds) + 1
    assert (sum(read.counts), read.counts[-1]) == (2, 1 if bounds else 2)


@pytest.mark.parametrize("depth", [3, 5, 7])
@pytest.mark.parametrize("frames", range(1, 9))
def test_a_stack_has_as_many_frames_as_there_are_and_are_kept(frames: int, depth: int) -> None:
    """The innermost ones, each with its instruction."""
    code = compile("", "/application/view.py", "exec")
    frame = None
    for number in reversed(range(frames)):
        frame = Like(f_code=code, f_lasti=number, f_back=frame)
    packed = Origins(depth).capture(frame)  # type: ignore[arg-type]
    assert packed == tuple(part for number in range(min(frames, depth)) for part in (code, number))


def test_a_library_and_an_event_loop_are_not_of_the_application() -> None:
    """Only what is neither."""
    origins = Origins()
    files = ("/application/view.py", asyncio.events.__file__, pytest.__file__, os.__file__)
    assert [origins.is_of_application(file) for file in files] == [True, False, False, False]


def test_a_compiled_module_lies_where_its_package_does() -> None:
    """Wherever it was compiled."""
    folder = Path(asyncio.__file__).parent
    for name in ("asyncio/a/b.pyx", "/build/x/asyncio/a/b.pyx", "build\\asyncio\\a\\b.pyx"):
        assert _compiled_from(name) == str(folder / "a" / "b.pyx")
    assert _compiled_from("nowhere_at_all/b.pyx") is None


def test_a_function_without_an_instruction_is_at_its_first_line() -> None:
    """An instruction that it does not have is at none."""
    code = test_a_compiled_module_lies_where_its_package_does.__code__
    assert (locate(code, -1).line, locate(code, 10**6).line) == (code.co_firstlineno, 0)
    assert BEGINNING == -1
    registry = PoolRegistry((1.0,), origins=Origins(application_paths=[str(Path(__file__).parent)]))
    function = test_a_compiled_module_lies_where_its_package_does
    assert registry.place_of(function) == (code, BEGINNING)
    assert PoolRegistry((1.0,)).place_of(function) == ()


def test_what_is_cut_off_a_shape_is_in_its_checksum() -> None:
    """Eight letters, of which each is four bits."""
    text = "x" * (LONGEST_SHAPE + 1)
    digits = f"{zlib.crc32(text.encode()):08x}"
    letters = "".join("abcdefghijklmnop"[int(digit, 16)] for digit in reversed(digits))
    assert _shortened(text) == "x" * (LONGEST_SHAPE - 10) + f"…{letters}"
    assert _shortened(text[:-1]) == text[:-1]


def test_a_memory_starts_over_once_it_is_full() -> None:
    """It holds what fits, and one more."""
    memory: Remembered[str, int] = Remembered(most=10)
    for place, key in enumerate("abcd"):
        memory.add(key, place, 5)
        assert list(memory.known) == [["a"], ["a", "b"], ["a", "b", "c"], ["d"]][place]
    assert memory.size == 5


@pytest.mark.parametrize(
    ("family", "escapes", "returns", "versions", "ways"),
    [
        ("postgresql", False, True, (), 1),
        ("postgresql", True, False, (), 2),
        ("cockroachdb", True, False, (), 2),
        ("mysql", False, True, (), 1),
        ("mysql", True, False, (), 3),
        ("mysql", False, False, ("/*!",), 2),
        ("mysql", False, False, ("/*!99999",), 4),
        ("mysql", True, False, ("/*!", "/*!99999"), 12),
        ("oracle.db", True, False, (), 1),
        ("oracle.db", False, True, (), 2),
        ("sqlite", False, True, (), 1),
    ],
)
def test_a_text_is_read_in_each_way_that_a_setting_allows(
    family: str, escapes: bool, returns: bool, versions: tuple[str, ...], ways: int
) -> None:
    """As many as there are, each another one; and no more, since each takes its time."""
    found = _syntaxes(family, escapes, returns, frozenset(versions))
    assert (len(found), len(set(found))) == (ways, ways)


@pytest.mark.parametrize(
    ("waiting", "seen", "usual", "certain"),
    [(7, 5, False, False),
     (0, 3, True, True), (3, 3, True, True), (4, 3, False, False), (5, 3, False, False), (0, 2, True, False),
     (2, 2, True, False), (1, 1, True, False), (3, 1, False, False)],
)  # fmt: skip
def test_a_block_is_by_what_is_seen_in_half_of_all_looks(waiting: int, seen: int, usual: bool, certain: bool) -> None:
    """Also those that found the loop waiting; three times are certain."""
    samples = Samples()
    assert samples.usual() == ((), False)
    stack = ((compile("", "/application/view.py", "exec"), 0),)
    samples.waiting = waiting
    for _ in range(seen):
        samples.add(stack)
    assert samples.usual() == ((stack, certain) if usual else ((), False))


def test_a_thread_of_a_request_is_waited_for_in_the_requests_loop() -> None:
    """One that checks out in the loop's own thread, outside of any task, holds it up by itself."""
    task = object()
    unit = Like(task=task, thread=int("1000000007"))
    lease: Any = Like(task=None, unit=unit, thread=int("1000000009"))
    assert loop_of(lease) == (unit.thread, task)
    lease.thread = int("1000000007")
    assert loop_of(lease) == (None, None)
    lease.task = own = object()
    assert loop_of(lease) == (lease.thread, own)


@pytest.mark.parametrize(("late", "found"), [(SHORTEST / 2, False), (SHORTEST, True), (SHORTEST * 9, True)])
def test_a_heartbeat_that_came_back_late_is_a_block(late: float, found: bool) -> None:
    """From the shortest block on; while one is known already, it is that."""
    scene = Scene()
    watched: Any = Like(beat=Like(sent=0.0, ran=late), block=None, thread=1)
    block = scene.event_loops._late_beat(watched)
    assert (block is not None) is found
    watched.block = object()
    assert scene.event_loops._late_beat(watched) is None
    watched.block = watched.beat = None
    assert scene.event_loops._late_beat(watched) is None


def test_what_is_no_coroutine_of_python_does_not_run() -> None:
    """A task of something compiled is looked into as far as that goes; one that runs is on its thread's stack."""
    task = Like(done=lambda: False, get_coro=Like)
    assert stack_of_task(lambda: task, 5) == ()  # type: ignore[arg-type, return-value]
    task.get_coro = lambda: Like(cr_running=True)
    assert stack_of_task(lambda: task, 5) is None  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("awaited", [False, True])
@pytest.mark.parametrize("fails", ["", "beginning", "call"])
def test_a_unit_of_work_ends_however_its_call_does(awaited: bool, fails: str) -> None:
    """What began is ended; where nothing began, what was raised is passed on as it is."""
    ended: list[int] = []

    def begins() -> Any:
        if fails == "beginning":
            raise KeyboardInterrupt
        return Like(end=lambda: ended.append(1))

    def call() -> str:
        if fails == "call":
            raise KeyboardInterrupt
        return "done"

    async def call_async() -> str:
        return call()

    def run() -> str:
        if not awaited:
            return inside(begins, call)
        with pytest.raises(StopIteration) as end:
            inside_async(begins, call_async).send(None)
        return str(end.value.value)

    if fails:
        with pytest.raises(KeyboardInterrupt):
            run()
    else:
        assert run() == "done"
    assert bool(ended) is (fails != "beginning")


@pytest.mark.parametrize("quotes", ["!!", "[]", "{}", "()", "<>", "qq", "''"])
@pytest.mark.parametrize("prefix", ["q", "nq"])
def test_a_string_of_oracle_ends_with_what_it_begins_with(prefix: str, quotes: str) -> None:
    """Or with the other one of a pair; a quote within it does not end it."""
    text = f"{prefix}'{quotes[0]}it's 7{quotes[1]}'"
    assert shape_of(f"select {text}, a from t", "oracle.db") == "select ?, a from t"


def test_a_connection_that_failed_its_validation_counts_as_validation() -> None:
    """And what came afterwards as the queue, though the next one needs none."""
    scene = Scene()
    lease = scene.begin_checkout()
    scene.clock.advance(1.0)
    lease.handed_over()
    scene.clock.advance(0.5)
    lease.invalid()
    scene.clock.advance(2.0)
    lease.acquired()
    phases = scene.pool.waits.read().phases
    assert sorted(phases.values()) == [0.0, 0.5, 3.0]
    assert phases["queue"] == 3.0


def test_what_cannot_begin_a_unit_of_work_checks_out_without_one() -> None:
    """It is an error of ours, which is counted."""

    def name() -> str:
        raise KeyError("no name")

    scene = Scene()
    job = LazyJob(scene.pool_registry.units, name)
    lease = scene.checkout()
    before = guard.counts().get("job.begin", 0)
    job.take(lease)
    assert (lease.unit, job.unit) == (None, None)
    assert guard.counts()["job.begin"] == before + 1


def test_what_carries_queries_is_remembered_for_so_many_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it begins anew; and whenever a library is declared."""
    monkeypatch.setattr(libraries, "_MOST_MODULES", 2)
    known = libraries.Libraries()
    known.know(["orm"])
    for module, carries, remembered in (
        ("orm", True, ["orm"]),
        ("orm.session", True, ["orm", "orm.session"]),
        ("orm", True, ["orm", "orm.session"]),
        ("ormolu", False, ["ormolu"]),
    ):
        assert known.carries(module) is carries
        assert list(known._carries) == remembered
    known.know(["ormolu"])
    assert known.carries("ormolu")


@pytest.mark.parametrize(
    ("file", "function", "found"),
    [
        ("/lib/orm/loading.py", "load", True),
        ("C:\\lib\\orm\\loading.py", "load", True),
        ("/lib/orm/loading.py", "other", False),
        ("/lib/orm/saving.py", "load", False),
        ("/lib/orm/lazy.py", "whatever", True),  # a whole file
    ],
)
def test_a_function_is_part_of_a_loader_by_its_file_and_name(file: str, function: str, found: bool) -> None:
    """Where the loader says which functions; else all of the file are."""
    known = libraries.Libraries()
    assert known.loader_of(Like(co_filename=file, co_name=function)) is None  # type: ignore[arg-type]
    loaders: Any = [
        Like(name="lazy load", file="/orm/loading.py", functions=("load",)),
        Like(name="lazy file", file="/orm/lazy.py", functions=()),
    ]
    known.know(loaders=loaders)
    assert (known.loader_of(Like(co_filename=file, co_name=function)) in loaders) is found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "packages", "within"),
    [
        ("orm", ["orm"], True),
        ("orm.a", ["orm"], True),
        ("orms", ["orm"], False),
        ("a.orm", ["orm"], False),
        ("", [""], True),
        (".a", [""], False),
        ("orm", [], False),
        ("x", ["a", "x"], True),
    ],
)
def test_a_module_is_within_its_package(module: str, packages: list[str], within: bool) -> None:
    """By whole names; what has no name is within itself alone."""
    assert libraries.is_within(module, packages) is within


def test_what_is_declared_twice_is_known_once() -> None:
    """In the order of the first time."""
    known = libraries.Libraries()
    waits = libraries.Waits()
    for _ in range(2):
        known.know(
            loops=["/b.py", "/a.py"], templates=["t"], worker_queues=[("/q.py", "get")], servers=["s"], waits=waits
        )
    assert known.loops == ("/b.py", "/a.py")
    assert (known.templates, known.worker_queues, known.servers) == (("t",), (("/q.py", "get"),), ("s",))
    assert known.waits[1:] == (waits,)
    before = known.switches
    known.know()
    assert (known.switches, len(known.waits)) == (before, 2)


@pytest.mark.parametrize("hold", [None, "queue"])
@pytest.mark.parametrize("repetition", [None, "by design"])
def test_what_is_declared_here_is_passed_on(hold: str | None, repetition: str | None) -> None:
    """A long hold, a repetition, or both; nothing where nothing is."""
    tokens = (EXPECTED_LONG_HOLD.set(hold), EXPECTED_REPETITION.set(repetition))
    try:
        expected = (hold, repetition) if hold or repetition else None
        assert excuses_here() == expected
    finally:
        EXPECTED_LONG_HOLD.reset(tokens[0])
        EXPECTED_REPETITION.reset(tokens[1])


def test_a_pool_that_adopted_what_is_listed_settles_that() -> None:
    """What the library does not list ends by its return alone."""
    scene = Scene(4)
    scene.pool.adopt(scene.clock())
    assert not scene.pool.has_adopted
    scene.pool.adopt(scene.clock(), 7)
    assert scene.pool.has_adopted
    other = Scene(4)
    for claimed in (False, True):
        other.pool.adopt_held(other.clock(), 7, lambda lease, claimed=claimed: claimed)  # type: ignore[misc]
        assert other.pool.has_adopted is claimed
        assert len(other.pool.leases) == claimed


def test_a_hold_is_never_idle_for_less_than_no_time() -> None:
    """Calls of two tasks at once may add up to more than it lasted."""
    scene = Scene()
    lease = scene.checkout()
    assert lease.listened() == 0.0
    lease.query_time, lease.idle_in_transaction_time = 3.0, 2.0
    scene.clock.advance(4.0)
    assert lease.hold_phases() == {"query": 3.0, "idle_in_transaction": 2.0, "idle": 0.0}
    lease._mark = scene.clock.now
    lease.released()
    assert scene.pool.holds.read().phases["idle"] == 0.0


def frames(*names: tuple[str, str, str], **local: Any) -> Any:
    """What is like a stack: for each frame, the innermost first, its file, function and module."""
    frame = None
    for place, (file, function, module) in reversed(list(enumerate(names))):
        code = compile("", file, "exec").replace(co_name=function)
        frame = Like(f_code=code, f_lasti=place, f_back=frame, f_globals={"__name__": module}, f_locals=local)
    return frame


def lines_of(packed: Any) -> list[str]:
    """The files of a packed stack."""
    return [code.co_filename for code in packed[::2]]


VIEW, LIBRARY_FILE, LOOP_FILE = "/application/view.py", pytest.__file__, asyncio.events.__file__


@pytest.mark.parametrize(
    ("files", "nearest"),
    [
        ((VIEW,), VIEW),
        ((LIBRARY_FILE, VIEW), VIEW),
        ((LIBRARY_FILE, LOOP_FILE, VIEW), None),  # what runs jobs of others wants nothing
        ((LIBRARY_FILE,), None),
        ((LIBRARY_FILE,) * 40 + (VIEW,), VIEW),
        ((), None),
    ],
)
def test_the_nearest_frame_of_the_application_is_found_at_the_first_look(
    files: tuple[str, ...], nearest: str | None
) -> None:
    """Of files that were never seen before, and again of these."""
    origins = Origins()
    stack = frames(*((file, "f", "some.module") for file in files))
    for _ in range(2):
        assert lines_of(origins.of_application(stack)) == ([nearest] if nearest is not None else [])


def test_so_many_files_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then it begins anew, also where there are more by then."""
    origins = Origins()
    for number in range(3):
        assert origins.is_of_application(f"/application/{number}.py")
    monkeypatch.setattr(origin, "_MOST_FILES", 2)
    assert origins.is_of_application("/application/more.py")
    assert list(origins._classified) == ["/application/more.py"]
    origins.is_of_application("/application/again.py")
    assert len(origins._classified) == 2
    origins.is_of_application("/application/last.py")
    assert list(origins._classified) == ["/application/last.py"]


@pytest.mark.parametrize(
    ("function", "module", "found"),
    [
        ("inner", "contextlib", True),
        ("__exit__", "contextlib", False),
        ("wrapper", "contextlib", False),
        ("inner", "other", False),
    ],
)
def test_what_a_context_manager_decorates_is_where_it_begins(function: str, module: str, found: bool) -> None:
    """As `contextlib` calls it; not in another of its functions, nor in one of that name elsewhere."""

    def view() -> None:
        """A function of the application."""

    origins = Origins(application_paths=[str(Path(__file__).parent)])
    inner = (os.__file__, function, module)
    stack = frames((LIBRARY_FILE, "f", "pytest"), inner, (VIEW, "f", "application.view"), func=view)
    decorated = origins.decorated(stack)
    assert lines_of(decorated) == ([__file__, VIEW] if found else [])
    assert origins.decorated(frames((VIEW, "f", "application.view"), inner, func=view)) == ()
    assert origins.decorated(None) == ()
    many = frames(inner, *[(VIEW, "f", "application.view")] * 9, func=view)
    assert len(lines_of(origins.decorated(many))) == (5 if found else 0)


@pytest.mark.parametrize(
    ("place", "given"),
    [("first", True), ("second", True), ("rest", True), ("key", False), ("local", False), ("", False)],
)
def test_a_signal_handler_is_given_what_it_interrupts(place: str, given: bool) -> None:
    """By position, or among the rest; a keyword or a variable of its own may be any frame."""

    def handler(first: Any, second: Any, *rest: Any, key: Any = None) -> None:
        local = key
        del local

    interrupted: Any = object()
    values: dict[str, Any] = {"first": None, "second": 1, "rest": (2, 3), "key": None, "local": None}
    if place:
        values[place] = (2, interrupted) if place == "rest" else interrupted
    assert failure._was_given(Like(f_code=handler.__code__, f_locals=values), interrupted) is given  # type: ignore[arg-type]

    def plain(first: Any) -> Any:
        return (first,)

    values = {"first": None, "rest": (interrupted,)}
    assert not failure._was_given(Like(f_code=plain.__code__, f_locals=values), interrupted)  # type: ignore[arg-type]


class OfGevent(Exception):  # noqa: N818 - what is like one of gevent's
    """What a switch of gevent's may raise."""

    __module__ = "gevent.exceptions"


@pytest.mark.parametrize(
    ("function", "module", "error", "thrown"),
    [
        ("switch", "eventlet.hubs.hub", ValueError, True),
        ("_greenlet_switch", "gevent._greenlet", ValueError, True),
        ("switch_to", "gevent._greenlet", ValueError, False),
        ("run", "gevent._greenlet", ValueError, False),
        ("switch", "builtins", ValueError, False),  # of its own
        ("switch", "builtins.hub", ValueError, False),
        ("switch", "gevent.hub", OfGevent, False),
        ("switch", "eventlet.hubs.hub", OfGevent, True),
    ],
)
def test_another_greenlet_throws_where_one_gave_way(function: str, module: str, error: Any, thrown: bool) -> None:
    """What is wrong with the switch itself is of the hub's own types."""
    frame = frames(("hub.py", function, module))
    assert failure._was_thrown(error(), frame) is thrown


@pytest.mark.parametrize(
    ("arguments", "texts"),
    [
        (("a", 1, b"b", "c"), ["a", "c"]),
        (({"M": "d", "C": 5, "E": "e"},), ["d", "e"]),
        ((Like(message="f"), Like(message=6), Like(text="g")), ["f"]),
        (("x",) * 20, ["x"] * 8),
        (({str(number): "y" for number in range(20)},), ["y"] * 8),
        ((), []),
    ],
)
def test_texts_of_an_error_are_those_of_its_arguments(arguments: tuple[Any, ...], texts: list[str]) -> None:
    """Not of too many."""
    assert list(failure.texts_of(ValueError(*arguments))) == texts


def test_an_instruction_without_a_line_is_at_none() -> None:
    """Before a span's end it is in that, and at its beginning."""
    code: Any = Like(
        co_firstlineno=3, co_lines=lambda: [(0, 2, 4), (2, 4, None), (4, 6, 7)], co_name="f", co_filename="f.py"
    )
    assert [locate(code, place).line for place in (0, 1, 2, 3, 4, 5, 6, BEGINNING)] == [4, 4, 0, 0, 7, 7, 0, 3]


def test_a_function_of_a_library_is_at_no_place_of_the_application() -> None:
    """Nor one that runs the jobs of others, or what is no function of Python's."""
    origins = Origins(application_paths=[str(Path(__file__).parent)])
    assert origins.of_function(lines_of) == (lines_of.__code__, BEGINNING)
    for function in (pytest.fixture, asyncio.events.Handle._run, len, None):
        assert origins.of_function(function) == ()


@pytest.mark.parametrize(
    ("stack", "found"),
    [
        ([("carrier.a", "f"), ("wants.b", "g"), ("carrier.c", "h")], ["1", "2"]),  # the first that does not carry
        ([("wants.b", "g"), ("carrier.a", "f")], ["0", "1"]),
        ([("carrier.a", "f"), ("carrier.b", "g")], ["0", "1"]),  # all of them carry
        ([("carrier.a", "f"), ("threading", "run")], ["0"]),  # a thread runs it
        ([("carrier.a", "f"), ("carrier.b", "g"), ("threading", "run")], ["1"]),
        ([("threading", "run")], ["0"]),
        ([("carrier.a", "f"), ("contextlib", "inner"), ("wants.b", "g")], ["here", "2"]),
        ([("carrier.a", "f"), ("contextlib", "wrapper"), ("wants.b", "g")], ["2"]),
        ([("carrier.a", "f"), ("contextlib", "__exit__"), ("wants.b", "g")], ["2"]),
        ([("carrier.a", "f"), ("other", "inner"), ("wants.b", "g")], ["1", "2"]),
        ([], []),
    ],
)
def test_where_no_frame_of_the_application_is_near_a_library_wanted_something(
    stack: list[tuple[str, str]], found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What carries queries for others does not; what it decorates does, and so does what a thread was started for."""

    def view() -> None:
        """A function of the application."""

    carries = {"contextlib", *(module for module, _ in stack if module.startswith("carrier"))}
    monkeypatch.setattr(origin.KNOWN, "carries", lambda module: module in carries)
    folder = Path(pytest.__file__).parent
    origins = Origins(application_paths=[str(Path(__file__).parent)])
    here = frames(*((f"{folder}/{place}.py", name, module) for place, (module, name) in enumerate(stack)), func=view)
    names = ["here" if file == __file__ else Path(file).stem for file in lines_of(origins.capture(here))]
    assert names == found
    nearest = origins.nearest(here)
    assert (nearest[0].co_filename if nearest is not None else None) == (
        None if not found else __file__ if found[0] == "here" else f"{folder}/{found[0]}.py"
    )


def test_what_waits_for_this_thread_is_where_a_library_wants_something() -> None:
    """Where that is known."""
    origins = Origins()
    stack = frames((pytest.__file__, "f", "some.library"))
    token = origin.CALLED_FROM.set(("code", 7))
    try:
        assert origins.capture(stack) == ("code", 7)
        assert origins.nearest(stack) == ("code", 7)
    finally:
        origin.CALLED_FROM.reset(token)


def test_a_stack_is_trimmed_to_the_application_and_shown_without_what_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has no frame of that, what neither carries queries nor only waits; else the outermost that carries."""
    monkeypatch.setattr(origin.KNOWN, "carries", lambda module: module.endswith("carrier"))
    folder = Path(pytest.__file__).parent

    def stack(*files: str) -> Any:
        return tuple((compile(f"x = {file!r}", file, "exec"), place) for place, file in enumerate(files))

    origins = Origins()
    library, view = stack(pytest.__file__)[0], stack(VIEW)[0]
    assert origins.trim((library, view, library)) == (view, library)
    assert origins.trim((library, library)) == (library, library)
    assert origins.shown((library, view, library, view)) == (view, view)
    wants, carrier, waits, source = (
        stack(file)[0]
        for file in (f"{folder}/wants.py", f"{folder}/carrier.py", asyncio.locks.__file__, f"{folder}/fast.pyx")
    )
    assert origins.shown((waits, carrier, wants, source)) == (wants,)
    assert origins.shown((carrier, waits)) == (carrier,)
    assert origins.shown((waits,)) == (waits,)
    assert origins.shown((source,)) == ()


def test_nothing_is_blocked_where_no_loop_is() -> None:
    """For no time, at no line."""
    assert NO_OVERLAP == (0.0, 0.0, (), False, 0.0)
    assert not NO_OVERLAP.explains
    for share, stack, explains in ((0.5, ("line",), True), (0.49, ("line",), False), (1.0, (), False)):
        assert Overlap(1.0, share, stack).explains is explains  # type: ignore[arg-type]


@pytest.mark.parametrize("way", ["call", "awaited", "response"])
@pytest.mark.parametrize("interrupted", ["end", "call", "nothing"])
def test_the_end_of_a_unit_of_work_that_is_interrupted_is_done_again(way: str, interrupted: str) -> None:
    """Whatever it was that came; what was raised is passed on."""
    ended: list[int] = []

    def end() -> None:
        ended.append(1)
        if interrupted == "end" and len(ended) == 1:
            raise KeyboardInterrupt

    def call() -> None:
        if interrupted == "call":
            raise KeyboardInterrupt

    async def call_async() -> None:
        call()

    scope: Any = Like(enter=lambda: None, end=end)

    def run() -> None:
        if way == "response":
            finish(scope, call)
        elif way == "call":
            inside(lambda: scope, call)
        else:
            with contextlib.suppress(StopIteration):
                inside_async(lambda: scope, call_async).send(None)

    with pytest.raises(KeyboardInterrupt) if interrupted != "nothing" else contextlib.nullcontext():
        run()
    assert len(ended) == (1 if interrupted == "nothing" else 2)


def test_a_response_without_anything_to_close_ends_its_unit_of_work() -> None:
    """Which is entered again for it."""
    done: list[str] = []
    finish(Like(enter=lambda: done.append("enter"), end=lambda: done.append("end")), None)  # type: ignore[arg-type]
    assert done == ["enter", "end"]


def test_what_is_dropped_half_way_ends_in_a_collection() -> None:
    """As such."""
    done: list[str] = []
    scope: Any = Like(end=lambda: done.append("end"), end_in_collection=lambda: done.append("end in collection"))

    async def waits() -> None:
        await asyncio.Future()

    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        awaited = inside_async(lambda: scope, waits)
        awaited.send(None)
        awaited.close()
    finally:
        asyncio.set_event_loop(None)
        loop.close()
    assert done[:2] == ["end in collection", "end"]


def test_a_unit_of_work_is_measured_at_its_end_with_what_it_still_holds() -> None:
    """One point for each pool, however often it is ended."""
    scene = Scene(5)
    scene.clock.now = 2.0
    units = scene.pool_registry.units
    with scene.unit("GET /a") as unit:
        first = scene.begin_checkout()
        scene.clock.advance(0.5)
        first.acquired()
        scene.query(first, "select 1 from a", seconds=1.0)
        scene.clock.advance(1.0)
        first.released()
        held = [scene.checkout(), scene.checkout()]
        waiting = scene.begin_checkout()
        scene.clock.advance(4.0)
        waiting.failed(Outcome.TIMEOUT, "TimeoutError")
    units.end(unit)
    series = units.series_of("http", "GET /a", "shop")
    figures = {name: getattr(series, name).read() for name in ("queries", "connections", "wait_time", "hold_time")}
    assert {name: (read.count, read.total) for name, read in figures.items()} == {
        "queries": (1, 1.0), "connections": (1, 2.0), "wait_time": (1, 4.5), "hold_time": (1, 10.0),
    }  # fmt: skip
    assert len(held) == 2
    assert unit.timeouts == 1
    assert (unit.ended, str(unit)) == (True, "http GET /a")


@pytest.mark.parametrize("last", [False, True])
def test_names_beyond_the_last_place_share_a_series(last: bool, caplog: pytest.LogCaptureFixture) -> None:
    """Each kind by itself, and said once of each; a name that has a place keeps it, in whichever pool."""
    units = Units((1.0,), (1.0,), most_names=2)
    first, second = units.series_of("http", "a", "shop"), units.series_of("http", "b", "shop")
    assert first is units.series_of("http", "a", "shop") is not second
    beyond = units.series_of("http", "c", "shop")
    assert beyond is units.series_of("http", "d", "shop")
    assert beyond not in (first, second)
    assert units.series_of("http", "a", "other") not in (first, beyond)
    assert units.series_of("task", "c", "shop") is not beyond
    assert set(units.series) == {
        ("http", "a", "shop"), ("http", "b", "shop"), ("http", OVERFLOW, "shop"), ("http", "a", "other"),
        ("task", OVERFLOW, "shop"),
    }  # fmt: skip
    assert len([one for one in caplog.messages if "more than 2 names" in one]) == 2
    if last:
        units.forget()
        assert units.series == {}
        units.series_of("http", "c", "shop")
        assert list(units.series) == [("http", "c", "shop")]


@pytest.mark.parametrize(
    ("since", "sent", "held", "ends"),
    [(8.0, True, True, True), (8.0, False, True, False), (8.0, False, False, True), (8.5, True, False, False)],
)
def test_a_response_that_was_read_to_its_end_is_ended_after_a_while(
    since: float, sent: bool, held: bool, ends: bool
) -> None:
    """Where the server knows that it was all, or it holds nothing; at the end of the process in any case."""
    units = Units((1.0,), (1.0,), now=lambda: 10.0)
    ended: list[int] = []
    unit = Like(usages={"pool": Like(leases={1} if held else set())}, thread=1, task=None)
    response: Any = Like(unit=unit, end=lambda: ended.append(1))
    units.unclosed[response] = (since, 1, sent)
    units.end_unclosed(2.0)
    assert bool(ended) is ends
    ended.clear()
    units.end_all()
    assert ended == [1]


@pytest.mark.parametrize(
    ("reader", "began", "task", "ends"),
    [
        (0, 0, None, True),
        (1, 0, None, False),
        (0, 1, None, False),
        (0, -1, None, False),
        (0, 0, "other", False),
        (-1, -1, None, False),
    ],
)
def test_the_next_one_ends_what_this_thread_began_and_read(reader: int, began: int, task: Any, ends: bool) -> None:
    """In the same task; what another thread has to do with it goes on."""
    units = Units((1.0,), (1.0,))
    ended: list[int] = []
    unit = Like(thread=get_ident() + began, task=task)
    response: Any = Like(unit=unit, end=lambda: ended.append(1))
    units.unclosed[response] = (0.0, get_ident() + reader, True)
    units.end_unclosed_here()
    assert bool(ended) is ends


@pytest.mark.parametrize(("line", "shown"), [(1, 1), (2, 10), (3, 10), (4, 20), (6, 20), (7, 30), (99, 30)])
def test_a_line_of_a_template_is_that_of_the_code_before_it(line: int, shown: int) -> None:
    """The last one that is not after it; before the first it is the code's own."""
    code: Any = Like(co_firstlineno=line, co_lines=list, co_name="f", co_filename="f.html")
    template = Like(debug_info=[(10, 2), (20, 4), (30, 7)])
    frame: Any = Like(f_code=code, f_globals={"__template__": template})
    before = origin.KNOWN.templates
    origin.KNOWN.templates = ("__template__",)
    try:
        know_template(frame)
        frame.f_globals["__template__"] = Like(debug_info=[])
        know_template(frame)  # it is known
    finally:
        origin.KNOWN.templates = before
    assert locate(code, BEGINNING).line == shown


def test_of_several_that_end_a_unit_of_work_one_does() -> None:
    """The first."""
    unit = UnitOfWork("http", "GET /a")
    assert [unit.claim_end() for _ in range(3)] == [True, False, False]


@pytest.mark.parametrize(("exists", "is_of_application"), [("file", True), ("path", True), ("", False)])
def test_a_source_that_is_there_is_where_it_says(
    exists: str, is_of_application: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the folder of now, or that of the start; else its package says where it was compiled from."""
    file = "asyncio/compiled.pyx"
    there = {"file": file, "path": origin.absolute(file)}.get(exists)
    monkeypatch.setattr(origin.os.path, "exists", lambda name: name == there)
    assert Origins().is_of_application(file) is is_of_application


@pytest.mark.parametrize(("interrupted", "ended", "times"), [(True, False, 2), (False, False, 1), (False, True, 0)])
def test_a_response_that_is_left_open_ends_its_unit_of_work(interrupted: bool, ended: bool, times: int) -> None:
    """When it is collected; again where that is interrupted. One that has ended is left alone."""
    done: list[str] = []

    def end_in_collection() -> None:
        done.append("end")
        if interrupted and len(done) == 2:
            raise KeyboardInterrupt

    scope: Any = Like(unit=Like(ended=ended), enter=lambda: done.append("enter"), end_in_collection=end_in_collection)
    unclosed = Unclosed(scope)
    with pytest.raises(KeyboardInterrupt) if interrupted else contextlib.nullcontext():
        unclosed.__del__()
    assert done == ["enter"] * bool(times) + ["end"] * times
    scope.unit.ended = True


def test_a_checkout_that_fails_has_waited_for_so_long() -> None:
    """By its error; its parts are those of a wait."""
    scene = Scene(1)
    scene.clock.now = 2.0
    lease = scene.begin_checkout()
    scene.clock.advance(5.0)
    lease.failed(Outcome.TIMEOUT, "TimeoutError")
    (waits,) = scene.pool.failed_waits.values()
    assert (waits.read().total, waits.read().phases["queue"]) == (5.0, 5.0)
