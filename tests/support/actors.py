"""
Threads and tasks that act step by step, as a test says: an application of several at once, without its timing.

An actor runs a function of the application, in a file of its own name, inside of a library's loop. Its calls happen
within that function, one after the other; between them it waits in a library, as a real one does. One that `stays`
is in a call of the application's until it may go on: a pending checkout, a statement that runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import sysconfig
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.execution import stack_of_thread
from tests.support.scene import line

if TYPE_CHECKING:
    from collections.abc import Callable

# Seconds until an actor that does not answer fails the test.
_PATIENCE: Final = 30.0

_THREAD: Final = """
def {name}(take):
    for call in iter(take, None):
        call()
"""
_STAY: Final = """
def {name}(begin, begun, wait, end):
    try:
        thing = begin()
    except Exception as error:
        begun((None, error))
    else:
        begun((thing, None))
        wait()
        end(thing)
"""
_TASK: Final = """
async def {name}(take):
    while (call := await take()) is not None:
        awaitable = call()
        if awaitable is not None:
            await awaitable
"""
# What a library awaits ends in a coroutine of its own.
_STAY_ASYNC: Final = (
    _STAY.replace("def", "async def")
    .replace("wait()", "await wait()")
    .replace("end(thing)", "await awaited(end, thing)")
)

_LIBRARY: Final = str(Path(sysconfig.get_path("stdlib")) / "a_library_of_workers.py")
_made: dict[tuple[str, str], Callable[..., Any]] = {}


async def _awaited(end: Callable[[Any], Any], thing: Any) -> None:
    end(thing)


def _function(template: str, name: str, file: str | None = None) -> Callable[..., Any]:
    key = (template, name)
    if key not in _made:
        found: dict[str, Any] = {"awaited": _awaited}
        exec(compile(template.format(name=name), file or f"/application/{name}.py", "exec"), found)
        _made[key] = found[name]
    return _made[key]


class Stay:
    """
    What an actor is within until it may go on.

    Args:
        thing: What its beginning returned.
        go_on: Lets the actor go on, to the end that it is given.
    """

    def __init__(self, thing: Any, go_on: Callable[[Callable[[Any], Any]], None]) -> None:
        self.thing = thing
        self.is_over = False
        self._go_on = go_on

    def ends(self, end: Callable[[Any], Any]) -> None:
        """
        Let it end.

        Args:
            end: Called by the actor, with what the beginning returned.
        """
        self.is_over = True
        self._go_on(end)


class Here:
    """The test itself as an actor: what it stays in does not keep it."""

    def does(self, call: Callable[[], Any]) -> Any:
        """Call it."""
        return call()

    def stays(self, at: str, begin: Callable[[], Any]) -> Stay:
        """Call the beginning at a line of the application; the end, when it comes."""
        thing = line(at)(begin)
        return Stay(thing, lambda end: end(thing))


class Actor:
    """What threads and tasks have in common."""

    stay_template: str
    serve_template: str

    def __init__(self) -> None:
        self.functions = 0

    def put(self, call: Callable[[], Any] | None) -> None:
        """Have the actor call it, when it is done with what it does; None: its function returns."""
        raise NotImplementedError

    def has_finished(self, within: float) -> bool:
        """Whether its thread or task has finished, or does so within that many seconds."""
        raise NotImplementedError

    def take(self) -> Callable[[], Any]:
        """What the actor gets its calls from."""
        raise NotImplementedError

    def gate(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        """What the actor waits in, and what opens it."""
        raise NotImplementedError

    def does(self, call: Callable[[], Any]) -> Any:
        """Have it called by the actor, and wait for that."""
        answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self.put(partial(_answer, call, answers.put))
        return _result(answers)

    def stays(self, at: str, begin: Callable[[], Any]) -> Stay:
        """
        Have the actor begin something, and stay in it.

        Args:
            at: The application's line.
            begin: Called by the actor; this waits for it.
        """
        return self._stay(_function(self.stay_template, at), self.gate(), begin)

    def _stay(
        self,
        function: Callable[..., Any],
        gate: tuple[Callable[[], Any], Callable[[], None]],
        begin: Callable[[], Any],
    ) -> Stay:
        begun: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        ended: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        wait, opens = gate
        ending: list[Callable[[Any], Any]] = []

        def end(thing: Any) -> None:
            _answer(partial(ending[0], thing), ended.put)

        def go_on(chosen: Callable[[Any], Any]) -> None:
            ending.append(chosen)
            opens()
            _result(ended)

        self.put(partial(function, begin, begun.put, wait, end))
        return Stay(_result(begun), go_on)

    def enters(self, name: str) -> None:
        """The actor calls a function of the application, within which it does what follows."""
        self.functions += 1
        self.put(partial(_function(self.serve_template, name), self.take()))

    def leaves(self) -> None:
        """That function returns."""
        self.functions -= 1
        self.put(None)

    def ends(self) -> None:
        """All its functions return, and its thread or task has finished."""
        if not self.has_finished(0):
            while self.functions >= 0:
                self.leaves()
            assert self.has_finished(_PATIENCE), "an actor does not end"


class ThreadActor(Actor):
    """
    A thread.

    Args:
        context: The context variables that it begins with; those of a new thread when not given.
    """

    serve_template, stay_template = _THREAD, _STAY

    def __init__(self, context: contextvars.Context | None = None) -> None:
        super().__init__()
        self._calls: SimpleQueue[Callable[[], Any] | None] = SimpleQueue()
        run = (context or contextvars.Context()).run
        serve = _function(_THREAD, "library_worker", _LIBRARY)
        self.thread = threading.Thread(target=run, args=(serve, self._calls.get), daemon=True)
        self.thread.start()

    def put(self, call: Callable[[], Any] | None) -> None:
        self._calls.put(call)

    def has_finished(self, within: float) -> bool:
        self.thread.join(within)
        return not self.thread.is_alive()

    def take(self) -> Callable[[], Any]:
        return self._calls.get

    def gate(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        return _lock()


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def does(self, call: Callable[[], Any]) -> Any:
        """Have it called by the loop, and wait for that."""
        answers: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        self.loop.call_soon_threadsafe(_answer, call, answers.put)
        return _result(answers)

    def close(self) -> None:
        """Stop it."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_PATIENCE)
        self.loop.close()


class TaskActor(Actor):
    """
    A task.

    Args:
        loop: Where it runs.
        parent: The task that creates it, whose context variables it inherits; None for one that nothing else creates.
    """

    serve_template, stay_template = _TASK, _STAY_ASYNC

    def __init__(self, loop: Loop, parent: Actor | None = None) -> None:
        super().__init__()
        self._loop = loop.loop
        self._finished = threading.Event()
        serve = _function(_TASK, "library_task", _LIBRARY)

        def create() -> tuple[asyncio.Queue[Any], asyncio.Task[Any]]:
            calls: asyncio.Queue[Any] = asyncio.Queue()
            task = self._loop.create_task(serve(calls.get))
            task.add_done_callback(lambda _: self._finished.set(), context=contextvars.Context())
            return calls, task

        self._calls, self.task = (parent or loop).does(create)

    def put(self, call: Callable[[], Any] | None) -> None:
        self._loop.call_soon_threadsafe(self._calls.put_nowait, call)

    def has_finished(self, within: float) -> bool:
        return self._finished.wait(within)

    def take(self) -> Callable[[], Any]:
        return self._calls.get

    def gate(self) -> tuple[Callable[[], Any], Callable[[], None]]:
        event = asyncio.Event()
        return event.wait, partial(self._loop.call_soon_threadsafe, event.set)

    def awaits(self, at: str, others: list[TaskActor]) -> None:
        """
        Have it await other tasks, until they are over.

        Args:
            at: The application's line.
            others: Those.
        """
        begun: SimpleQueue[tuple[Any, Exception | None]] = SimpleQueue()
        tasks = [other.task for other in others]
        stay = _function(_STAY_ASYNC, at)
        self.put(partial(stay, lambda: None, begun.put, partial(asyncio.gather, *tasks), lambda _: None))
        _result(begun)

    def blocks(self, at: str, begin: Callable[[], Any]) -> Stay:
        """
        Have it stay in something without giving way: its event loop is blocked.

        Args:
            at: The application's line.
            begin: Called by the actor; this waits for it.
        """
        return self._stay(_function(_STAY, at), _lock(), begin)


def executes(thread: threading.Thread, function: str) -> bool:
    """Whether a thread is within a function of that name, near the top of its stack."""
    return any(code.co_name == function for code, _ in stack_of_thread(thread.ident or 0, 10))


def _lock() -> tuple[Callable[[], Any], Callable[[], None]]:
    lock = threading.Lock()
    lock.acquire()
    return lock.acquire, lock.release


def _answer(call: Callable[[], Any], answer: Callable[[tuple[Any, Exception | None]], None]) -> None:
    try:
        answer((call(), None))
    except Exception as error:
        answer((None, error))


def _result(answers: SimpleQueue[tuple[Any, Exception | None]]) -> Any:
    result, error = answers.get(timeout=_PATIENCE)
    if error is not None:
        raise error
    return result
