"""Who waits for whom: every way by which a task or thread waits for another one, and none by which it does not."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from threading import get_ident
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core import awaiting
from poolscope.core.awaiting import Dependents, dependents_of
from poolscope.core.guard import guard
from poolscope.core.jobs import loop_that_submits
from poolscope.core.origin import Origins
from poolscope.hooks.registry import declare
from tests.support.likeness import Like
from tests.support.skips import is_installed, require

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    Child = Callable[[], Coroutine[Any, Any, None]]
    Way = Callable[[Child], Awaitable[Any]]

ORIGINS = Origins()
TASK_GROUP: Any = getattr(asyncio, "TaskGroup", None)  # from Python 3.11


def _awaited_by(task: Any) -> list[Any]:
    # Those that wait for a task, without a look at threads.
    return dependents_of(task, 0, {}).tasks


def _settled(is_so: Callable[[Dependents], bool], task: Any = None) -> Dependents:
    # What runs in a thread may run before the thread that wants it has come to wait for it.
    found = dependents_of(task, get_ident(), origins=ORIGINS)
    for _ in range(20_000):
        if is_so(found):
            break
        found = dependents_of(task, get_ident(), origins=ORIGINS)
    return found


def _anyio() -> Any:
    require(is_installed("anyio"), "anyio", "make env")
    import anyio

    from poolscope.frameworks.starlette import StarletteFramework

    declare(StarletteFramework())
    return anyio


# Ways in which a task waits for a child ------------------------------------------------------


async def _awaits(child: Child) -> None:
    await asyncio.create_task(child())


async def _gathers(child: Child) -> None:
    await asyncio.gather(child(), asyncio.sleep(0))


async def _waits(child: Child) -> None:
    await asyncio.wait([asyncio.create_task(child())])


async def _waits_for(child: Child) -> None:
    await asyncio.wait_for(asyncio.create_task(child()), 60)


async def _shields(child: Child) -> None:
    await asyncio.shield(child())


async def _as_completed(child: Child) -> None:
    for one in asyncio.as_completed([child()]):
        await one


async def _gathers_gathered(child: Child) -> None:
    await asyncio.gather(asyncio.gather(asyncio.shield(child())))


async def _through_a_task(child: Child) -> None:
    await asyncio.create_task(_gathers(child))


async def _ends_group(child: Child) -> None:
    if TASK_GROUP is None:
        await _awaits(child)
        return
    async with TASK_GROUP() as group:
        group.create_task(child())


async def _queue_in_group(child: Child) -> None:
    if TASK_GROUP is None:
        await _awaits(child)
        return
    answers: asyncio.Queue[int] = asyncio.Queue()

    async def answering() -> None:
        await child()
        await answers.put(1)

    async with TASK_GROUP() as group:
        group.create_task(answering())
        await answers.get()


async def _anyio_ends_group(child: Child) -> None:
    async with _anyio().create_task_group() as group:
        group.start_soon(child)


async def _anyio_stream(child: Child) -> None:
    anyio = _anyio()
    send, receive = anyio.create_memory_object_stream(1)

    async def answering() -> None:
        async with send:
            await child()
            await send.send(1)

    async with receive, anyio.create_task_group() as group:
        group.start_soon(answering)
        await receive.receive()


async def _thread_of_a_loop(child: Child) -> None:
    # The child runs in this loop on behalf of a thread, whose job this task awaits.
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(child(), loop).result(60))


async def _loop_of_a_thread(child: Child) -> None:
    await asyncio.to_thread(lambda: asyncio.run(child()))


WAYS: tuple[Way, ...] = (
    _awaits, _gathers, _waits, _waits_for, _shields, _as_completed, _gathers_gathered, _through_a_task, _ends_group,
    _queue_in_group, _anyio_ends_group, _anyio_stream, _thread_of_a_loop, _loop_of_a_thread,
)  # fmt: skip


# Ways in which it does not -------------------------------------------------------------------


async def _starts(child: Child) -> None:
    task = asyncio.create_task(child())
    await asyncio.sleep(0.01)
    await task


async def _is_told(child: Child) -> None:
    # What an application does when a task is done is its own affair.
    done = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(child())
    task.add_done_callback(lambda _: done.set_result(None))
    task.add_done_callback(functools.partial(lambda _, __: None, asyncio.current_task()))
    await done


async def _works_beside_group(child: Child) -> None:
    if TASK_GROUP is None:
        await _starts(child)
        return
    async with TASK_GROUP() as group:
        group.create_task(child())
        await asyncio.sleep(0.01)


async def _anyio_works_beside_group(child: Child) -> None:
    anyio = _anyio()
    async with anyio.create_task_group() as group:
        group.start_soon(child)
        await anyio.sleep(0.01)


OTHER_WAYS: tuple[Way, ...] = (_starts, _is_told, _works_beside_group, _anyio_works_beside_group)


@pytest.mark.parametrize(
    ("way", "waits"),
    [(way, True) for way in WAYS] + [(way, False) for way in OTHER_WAYS],
    ids=lambda one: one.__name__.strip("_") if callable(one) else "",
)
def test_a_task_waits_for_the_one_that_it_awaits(way: Way, waits: bool) -> None:
    """By whatever means it awaits it; a task that only runs beside another one does not. Its sibling never does."""
    seen: list[tuple[bool, bool]] = []

    async def run() -> None:
        holder = asyncio.create_task(both())
        await holder

    async def both() -> None:
        this = asyncio.current_task()
        ready = asyncio.Event()

        async def child() -> None:
            found = _settled(lambda found: found.waits(this, 0) or not waits, asyncio.current_task())
            sibling = next((one for one in asyncio.all_tasks(this.get_loop()) if one.get_name() == "sibling"), None)  # type: ignore[union-attr]
            seen.append((found.waits(this, 0), sibling is not None and found.is_parent(sibling)))

        async def beside() -> None:
            await ready.wait()

        sibling = asyncio.create_task(beside(), name="sibling")
        await asyncio.sleep(0)
        await way(child)
        ready.set()
        await sibling

    asyncio.run(run())
    assert seen == [(waits, False)]
    assert "awaiting" not in guard.counts()


def test_another_thread_can_find_out() -> None:
    """As the diagnosis does: of two tasks, which one waits for the other."""
    started, asked = threading.Event(), threading.Event()
    tasks: list[Any] = []

    async def holder() -> None:
        async def child() -> None:
            tasks.append(asyncio.current_task())
            await asyncio.sleep(0)
            started.set()
            await asyncio.get_running_loop().run_in_executor(None, asked.wait, 60)

        tasks.append(asyncio.current_task())
        await asyncio.gather(child(), asyncio.sleep(0))

    thread = threading.Thread(target=lambda: asyncio.run(holder()))
    thread.start()
    assert started.wait(60)
    outer, inner = tasks
    assert outer in _awaited_by(inner)
    assert inner not in _awaited_by(outer)
    assert _awaited_by(inner)[-1] is outer
    asked.set()
    thread.join(60)


def _job_of_to_thread(job: Callable[[], None]) -> Awaitable[Any]:
    return asyncio.to_thread(job)


def _job_of_executor(job: Callable[[], None]) -> Awaitable[Any]:
    return asyncio.get_running_loop().run_in_executor(None, job)


async def _job_of_anyio(job: Callable[[], None]) -> None:
    await _anyio().to_thread.run_sync(job)


async def _job_of_asgiref(job: Callable[[], None]) -> None:
    from asgiref.sync import sync_to_async

    await sync_to_async(job)()


async def _job_of_a_job(job: Callable[[], None]) -> None:
    def outer() -> None:
        with ThreadPoolExecutor(1) as executor:
            executor.submit(job).result(60)

    await asyncio.to_thread(outer)


@pytest.mark.parametrize(
    "way",
    [_job_of_to_thread, _job_of_executor, _job_of_anyio, _job_of_asgiref, _job_of_a_job],
    ids=lambda way: way.__name__,
)
def test_a_task_waits_for_the_thread_whose_job_it_awaits(way: Callable[[Callable[[], None]], Awaitable[Any]]) -> None:
    """A job that runs beside it, for another task, is no concern of it."""
    seen: list[tuple[bool, bool]] = []
    awaited = threading.Event()

    async def run() -> None:
        other = asyncio.create_task(asyncio.sleep(60))
        this = asyncio.current_task()

        def job() -> None:
            assert awaited.wait(60)
            found = _settled(lambda found: found.waits(this, 0))
            seen.append((found.waits(this, 0), found.is_parent(other)))

        asyncio.get_running_loop().call_soon(awaited.set)  # once this task has nothing else to do
        await way(job)
        other.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await other

    asyncio.run(run())
    assert seen == [(True, False)]


def test_a_job_that_begins_at_once_is_waited_for() -> None:
    """A thread that is new may run its job before the task that submits it has gone on to await it."""
    seen: list[bool] = []
    looked = threading.Event()

    class Eager(ThreadPoolExecutor):
        def _adjust_thread_count(self) -> None:
            super()._adjust_thread_count()
            assert looked.wait(60)

    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(Eager(1))
        this = asyncio.current_task()

        def job() -> None:
            seen.append(_settled(lambda found: found.waits(this, 0)).waits(this, 0))
            looked.set()

        await asyncio.to_thread(job)

    asyncio.run(run())
    assert seen == [True]


def test_what_an_application_keeps_of_its_variables_stays() -> None:
    """Its functions may have the names of those that submit jobs."""
    future: Future[None] = Future()

    def submit(f: object) -> dict[str, Any]:
        mine = locals()
        assert loop_that_submits(f, sys._getframe()) is None
        return mine

    def wrap_future(future: object) -> dict[str, Any]:
        mine = locals()
        assert loop_that_submits(future, sys._getframe()) is None
        return mine

    assert submit(future) == {"f": future}
    assert wrap_future(future) == {"future": future}


def _result(executor: ThreadPoolExecutor, job: Callable[[], None]) -> None:
    executor.submit(job).result(60)


def _map(executor: ThreadPoolExecutor, job: Callable[[], None]) -> None:
    list(executor.map(lambda _: job(), range(1)))


def _join(executor: ThreadPoolExecutor, job: Callable[[], None]) -> None:
    thread = threading.Thread(target=job)
    thread.start()
    thread.join(60)


@pytest.mark.parametrize("way", [_result, _map, _join], ids=lambda way: way.__name__)
def test_a_thread_waits_for_the_thread_whose_job_it_wants(
    way: Callable[[ThreadPoolExecutor, Callable[[], None]], None],
) -> None:
    """By its future, or by joining it; a thread that waits for something else does not."""
    this, done = get_ident(), threading.Event()
    seen: list[tuple[bool, bool]] = []

    def job() -> None:
        found = _settled(lambda found: found.waits(None, this))
        seen.append((found.waits(None, this), found.waits(None, beside.ident or 0)))
        done.set()

    beside = threading.Thread(target=done.wait)
    beside.start()
    with ThreadPoolExecutor(1) as executor:
        way(executor, job)
    beside.join(60)
    assert seen == [(True, False)]


def test_nothing_exotic_ends_it() -> None:
    """What a future calls may have no code, and says nothing; what raises at any touch ends the look, and no more."""

    class Hostile:
        def __call__(self, *_: object) -> None:
            pass

        def __getattribute__(self, name: str) -> Any:
            if name.startswith("__") and name not in {"__self__", "__closure__", "__module__"}:
                return object.__getattribute__(self, name)
            raise RuntimeError(name)

    async def run() -> None:
        task = asyncio.create_task(asyncio.sleep(60))
        task.add_done_callback(functools.partial(print, end=""))
        task.add_done_callback(set().discard)
        holder = asyncio.create_task(asyncio.wait([task]))
        await asyncio.sleep(0)
        assert _awaited_by(task) == [holder]
        assert guard.counts() == {}
        task.add_done_callback(Hostile())
        assert _awaited_by(task) == [holder]
        assert guard.counts() == {"awaiting": 1}
        task.cancel()
        await holder

    asyncio.run(run())
    assert _awaited_by(None) == []
    assert _awaited_by(object()) == []


def test_a_circle_ends_and_so_does_a_long_chain() -> None:
    """Tasks that wait for one another, and more futures than are ever looked at."""

    async def run() -> None:
        start, over = (asyncio.get_running_loop().create_future() for _ in range(2))
        tasks: list[asyncio.Task[None]] = []

        async def waits(other: int) -> None:
            await asyncio.wait([tasks[other], over], return_when=asyncio.FIRST_COMPLETED)

        tasks += [asyncio.create_task(waits(1)), asyncio.create_task(waits(0))]
        chain = [start]
        for _ in range(2000):
            chain.append(asyncio.gather(chain[-1]))
        holder = asyncio.create_task(asyncio.wait(chain[-1:]))
        await asyncio.sleep(0)
        assert _awaited_by(tasks[0]) == [tasks[1]]
        assert _awaited_by(chain[-100]) == [holder]
        assert _awaited_by(start) == []
        start.set_result(None)
        over.set_result(None)
        await asyncio.gather(holder, *tasks)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("stack", "origins", "exchanges"),
    [
        (["stream"], False, True),
        (["lock", "stream"], False, True),
        (["pause", "lock", "stream"], False, True),
        (["lock", "view"], True, True),
        (["lock", "view"], False, False),  # whose files are the application's is not known
        (["lock", "library"], True, False),  # it may wait for a server
        (["pause", "view"], True, False),
        (["pause", "lock", "view"], True, True),
        (["lock", "pause", "view"], True, False),
        (["view", "lock"], True, False),
        (["library", "stream"], True, False),
        (["lock"], True, False),
        ([], True, False),
    ],
)
def test_a_task_stands_in_an_exchange_by_the_first_that_is_none_of_its_parts(
    stack: list[str], origins: bool, exchanges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream in memory, or an event or queue that the application itself waits for."""
    files = {
        "stream": "/m/streams.py",
        "lock": "/m/locks.py",
        "pause": "/m/tasks.py",
        "view": "/a.py",
        "library": "/l.py",
    }
    codes = tuple((Like(co_filename=files[name]), 0) for name in stack)
    monkeypatch.setattr(awaiting, "stack_of_task", lambda task, depth: codes)
    waits = Like(exchanges=("/m/streams.py",), events=("/m/locks.py",), pauses=("/m/tasks.py",))
    monkeypatch.setattr(awaiting.KNOWN, "waits", (waits,))
    known: Any = Like(applications=lambda frames: {one for one, _ in frames if one.co_filename == "/a.py"})
    assert awaiting._exchanges(Like(), known if origins else None) is exchanges
    monkeypatch.setattr(awaiting, "stack_of_task", lambda task, depth: None)
    assert not awaiting._exchanges(Like(), known)


class FutureLike(Like):
    """What is like a future, by its class."""

    _asyncio_future_blocking = False


class TaskLike(FutureLike):
    """What is like a task."""

    def get_coro(self) -> None:
        """No coroutine of Python's."""


def test_what_a_callback_of_asyncio_sets_is_found() -> None:
    """In its arguments or its variables; not in those of another's."""
    future, threads = FutureLike(), Like(_done_callbacks=[])

    def closure() -> Any:
        return future, threads

    closure.__module__ = "asyncio.tasks"
    assert set(awaiting._set_by(closure)) == {future, threads}
    closure.__module__ = "application.asyncio"
    assert list(awaiting._set_by(closure)) == []

    def called(*_: Any) -> None:
        """A function of asyncio's."""

    called.__module__ = "asyncio.futures"
    assert list(awaiting._set_by(functools.partial(called, future, object(), threads))) == [future, threads]
    called.__module__ = "application"
    assert list(awaiting._set_by(functools.partial(called, future))) == []
    queue: Any = asyncio.Queue()
    queue._getters.append(future)
    called.__module__ = "asyncio.tasks"
    assert list(awaiting._set_by(functools.partial(called, queue))) == [future]
    assert list(awaiting._set_by(object())) == []


def test_dependents_are_tasks_that_wait_and_parents_that_may_not() -> None:
    """What is no task is followed to those; each is visited once, and not too many."""
    found = Dependents()
    task, future, parent = TaskLike(), FutureLike(), TaskLike()
    for _ in range(2):
        found._visit(task, waiting=True)
        found._visit(future, waiting=True)
        found._visit(parent, waiting=False)
    assert (found.tasks, found.parents, len(found._visited)) == ([task], [parent], 3)
    assert [found.waits(one, 1) for one in (task, parent)] == [True, False]
    assert [found.is_parent(one) for one in (task, parent, TaskLike())] == [True, True, False]
    found.threads.append(7)
    assert [found.waits(None, thread) for thread in (7, 8)] == [True, False]
    many = Dependents()
    for _ in range(awaiting._MOST + 5):
        many._visit(TaskLike(), waiting=True)
    assert len(many.tasks) == awaiting._MOST


@pytest.mark.parametrize(
    ("end", "waits_at", "waiting", "exchanges", "waits"),
    [
        ("end", "end", True, False, True),
        ("end", "else", True, False, False),
        ("end", "else", True, True, True),
        ("end", "end", False, True, False),
        (None, None, True, False, False),
        (None, "else", True, True, True),
    ],
)  # fmt: skip
def test_the_parent_of_a_group_waits_at_its_end_or_in_an_exchange(
    end: Any, waits_at: Any, waiting: bool, exchanges: bool, waits: bool
) -> None:
    """Else it may do something else meanwhile; what is no task is no parent."""
    found = Dependents()
    parent = TaskLike(_fut_waiter=waits_at)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(awaiting, "_exchanges", lambda *_: exchanges)
        found._enclose(Like(parent=parent, end=end), waiting=waiting)  # type: ignore[arg-type]
        found._enclose(Like(parent=FutureLike(), end=end), waiting=waiting)  # type: ignore[arg-type]
    assert (found.tasks, found.parents) == (([parent], []) if waits else ([], [parent]))
