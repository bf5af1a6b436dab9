"""Where the application asked: raw stacks, what counts as a library, and their resolution."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
import functools
import gc
import inspect
import json
import sys
import sysconfig
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pytest

from poolscope.core import clock
from poolscope.core.execution import running_task, stack_of_task, stack_of_thread
from poolscope.core.libraries import KNOWN
from poolscope.core.location import Location, know_template, locate, resolve
from poolscope.core.origin import APPLICATION, LIBRARY, Origins, keep, stack_of
from poolscope.frameworks.flask import FlaskFramework
from tests.support.libraries import known

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from poolscope.core.origin import RawStack

HERE = __file__


@pytest.fixture(autouse=True)
def libraries() -> Iterator[None]:
    """Some that carry queries."""
    with known("sqlalchemy", "asyncpg", "django.db", "django.utils.asyncio", templates=FlaskFramework.templates):
        yield


def frame_of_the_caller() -> FrameType:
    """The frame of whoever calls."""
    return sys._getframe(1)


def test_frames_of_libraries_are_skipped() -> None:
    """The first frame kept is the application's, however many frames of a library lie between it and the pool."""
    origins = Origins(depth=1)
    code = compile("def capture(origins, frame):\n    return origins.capture(frame())\n", json.__file__, "exec")
    library: dict[str, Any] = {}
    exec(code, library)
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    (place,) = resolve(stack_of(library["capture"](origins, frame_of_the_caller)))
    assert place.file == HERE
    assert place.line == line
    assert place.function.endswith("test_frames_of_libraries_are_skipped")


def test_as_many_frames_as_wanted_are_kept() -> None:
    """Depth bounds the stack, from the innermost application frame outwards."""

    def inner(depth: int) -> list[str]:
        return [place.function for place in resolve(stack_of(Origins(depth).capture(sys._getframe())))]

    assert len(inner(1)) == 1
    two = inner(2)
    assert two[0].endswith("inner")
    assert two[1].endswith("test_as_many_frames_as_wanted_are_kept")
    assert len(inner(3)) == 3


@pytest.mark.parametrize("above", range(8))
def test_the_usual_depth_keeps_what_any_depth_does(above: int) -> None:
    """
    The default depth has a way of its own; it keeps the same frames, also where the stack is
    shorter than the depth.
    """
    kept: list[RawStack] = []
    done = threading.Event()

    def asks() -> None:
        origins, frame = Origins(), sys._getframe()
        kept.extend((stack_of(origins.capture(frame)), keep(frame, 5)))

    def calls(more: int) -> None:
        if more:
            return calls(more - 1)
        asks()
        return done.set()

    _thread.start_new_thread(calls, (above,))  # whose first frame is this function's
    assert done.wait(60)
    quick, plain = kept
    assert len(quick) == min(5, above + 2)
    assert [code for code, _ in quick] == [code for code, _ in plain]
    assert quick[1:-1] == plain[1:-1]  # the innermost frame has gone on between the two
    assert quick[0][1] < plain[0][1]


def test_without_an_application_frame_the_nearest_are_kept() -> None:
    """
    Where everything is a library's, the frames next to the pool tell at least something; without a
    frame there is none.
    """
    origins = Origins(depth=2)
    frame = defined("import sys\ndef frame():\n    return sys._getframe()\n", "json")["frame"]()
    alone = Origins(depth=2)
    alone._classified = {place.f_code.co_filename: True for place in _outwards(frame)}
    assert alone.capture(frame)[0].co_filename == json.__file__
    assert origins.capture(None) == ()


def defined(source: str, module: str, file: str = json.__file__) -> dict[str, Any]:
    """What a module of a library defines."""
    made: dict[str, Any] = {"__name__": module}
    exec(compile(source, file, "exec"), made)
    return made


CARRIERS = ["sqlalchemy.orm.strategies", "django.db.models.query", "django.utils.asyncio", "asyncpg.pool", ""]


@pytest.mark.parametrize("carrier", CARRIERS)
def test_without_an_application_frame_whoever_wanted_something_is_the_place(carrier: str) -> None:
    """
    What carries queries is passed over, as where a serializer reads the rows' relations after the
    route has returned.
    """
    found: list[Any] = []
    origins = Origins(depth=1)

    def of(frame: FrameType) -> None:
        found.extend((*stack_of(origins.capture(frame)), origins.nearest(frame)))

    load = defined("import sys\ndef load(of):\n    of(sys._getframe())\n", carrier)["load"]
    serialize = defined("def serialize(load, of):\n    load(of)\n", "pydantic.main")["serialize"]
    with ThreadPoolExecutor(1) as thread:  # no frame of this test is below it
        thread.submit(serialize, load, of).result()

    assert [code.co_name for code, _ in found] == ["serialize", "serialize"]


def asking(ask: Callable[[FrameType], object]) -> type[contextlib.ContextDecorator]:
    """A context manager of a library, as Django's ``atomic``, that calls this with its frame when it is entered."""

    class Asks(contextlib.ContextDecorator):
        __enter__ = defined("import sys\ndef enter(self):\n    ask(sys._getframe())\n", "django.db.transaction")[
            "enter"
        ]

        def __exit__(self, *_: object) -> None:
            pass

    Asks.__enter__.__globals__["ask"] = ask
    return Asks


def test_a_decorator_of_the_application_stands_for_what_it_decorates() -> None:
    """
    A context manager that decorates a function asks before the function begins, as ``atomic`` does around a view: the
    place is the function, where it begins, whatever else decorates it.
    """
    found: list[Any] = []
    origins = Origins(depth=2)

    def of(frame: FrameType) -> None:
        found.extend((stack_of(origins.capture(frame)), origins.nearest(frame)))

    @functools.lru_cache
    def view() -> None:
        pass

    handle = defined("def handle(view):\n    view()\n", "django.core.handlers.base")["handle"]
    with ThreadPoolExecutor(1) as thread:  # no frame of this test is below it
        thread.submit(handle, asking(of)()(view)).result()

    ((first, second), nearest) = found
    assert first == nearest
    code = view.__wrapped__.__code__
    assert (first[0], locate(*first).line) == (code, code.co_firstlineno)
    assert second[0].co_name == "handle"


def test_who_started_the_event_loop_is_no_caller_of_its_tasks() -> None:
    """A callback without an application frame has none, though the application called ``asyncio.run``."""
    found: list[Any] = []
    origins = Origins(depth=1)

    def of(frame: FrameType) -> None:
        found.extend((*stack_of(origins.capture(frame)), origins.nearest(frame)))

    serialize = defined("import sys\ndef serialize(of):\n    of(sys._getframe())\n", "pydantic.main")["serialize"]

    async def start() -> None:
        asyncio.get_running_loop().call_soon(serialize, of)
        await asyncio.sleep(0)

    asyncio.run(start())

    assert [code.co_name for code, _ in found] == ["serialize", "serialize"]


def test_what_starts_an_installed_package_is_a_library() -> None:
    """A console script beside the interpreter is; a script of one's own that lies there is not."""
    scripts = Path(sysconfig.get_path("scripts"))
    assert Origins()._classify(str(scripts / "uvicorn")) == LIBRARY
    assert Origins()._classify(str(scripts / "nightly.py")) == APPLICATION
    assert Origins(application_paths=(str(scripts),))._classify(str(scripts / "nightly")) == APPLICATION


def test_a_line_of_a_template_is_that_of_its_source() -> None:
    """
    Once a template of Jinja's is known, its places have the template's lines, not those of what it was compiled to; its
    code is not kept alive for that.
    """
    template = jinja2.Environment().from_string("one\n\n\n{{ place() }}\n")
    places: list[tuple[CodeType, int]] = []

    def place() -> None:
        frame: FrameType | None = sys._getframe()
        while frame is not None:
            know_template(frame)
            places.append((frame.f_code, frame.f_lasti))
            frame = frame.f_back

    template.render(place=place)
    (line,) = [locate(code, index).line for code, index in places if code.co_filename == "<template>"]
    assert line == 4
    assert locate(*places[0]).line > 4

    code = weakref.ref(next(code for code, _ in places if code.co_filename == "<template>"))
    places.clear()
    del template
    gc.collect()
    assert code() is None


def _outwards(frame: FrameType | None) -> list[FrameType]:
    found = []
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def test_the_search_is_bounded() -> None:
    """A stack of libraries without end is given up, and its innermost frames are kept."""
    source = "import sys\ndef deep(n):\n    return deep(n - 1) if n else sys._getframe()\n"
    library: dict[str, Any] = {}
    exec(compile(source, json.__file__, "exec"), library)
    (place,) = resolve(stack_of(Origins(depth=1).capture(library["deep"](200))))
    assert place.file == json.__file__


@pytest.mark.parametrize(
    ("file", "is_library"),
    [
        (json.__file__, True),
        (pytest.__file__, True),
        (clock.__file__, True),
        (HERE, False),
        ("<string>", True),
        ("<sqlalchemy generated code>", True),
        ("<frozen runpy>", True),
        ("<stdin>", False),
        ("<console>", False),
    ],
)
def test_what_is_a_library(file: str, is_library: bool) -> None:
    """
    The standard library, installed packages, poolscope and generated code are; the application and
    a console are not.
    """
    assert Origins()._classify(file) == (LIBRARY if is_library else APPLICATION)


@pytest.mark.parametrize(
    ("file", "is_library"),
    [
        ("pytest/compiled.pyx", True),
        ("src/pytest/inner/compiled.pyx", True),
        ("tests/compiled.pyx", False),
        ("/build/pytest/inner/compiled.pyx", True),
        ("unknown/compiled.pyx", True),
        ("compiled.pyx", True),
    ],
)
def test_compiled_modules_belong_to_their_package(file: str, is_library: bool) -> None:
    """Cython names the sources by a path from where they were compiled, which is nowhere here: the package tells."""
    import tests

    assert sys.modules["tests"] is tests
    assert Origins()._classify(file) == (LIBRARY if is_library else APPLICATION)


def test_a_script_by_a_relative_path_is_the_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``runpy`` has it, also where its folder is called like a package of a library."""
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "script.py").touch()
    monkeypatch.chdir(tmp_path)
    assert Origins()._classify(str(Path("json") / "script.py")) == APPLICATION


def test_an_application_installed_among_the_packages_counts_as_one() -> None:
    """`application_paths` names the folders inside site-packages that hold one's own code."""
    folder = str(Path(pytest.__file__).parent)
    assert Origins(application_paths=(folder,))._classify(pytest.__file__) == APPLICATION


def test_a_task_that_runs_a_function_of_a_library_is_that_function() -> None:
    """As `create_task(pool.fetch(...))` does: neither the event loop nor the thread's beginning is the place."""
    found: list[Any] = []
    origins = Origins(depth=3)

    def of(frame: FrameType) -> None:
        found.append(stack_of(origins.capture(frame)))

    fetch = defined("import sys\ndef fetch(of):\n    acquire(of)\n", "asyncpg.pool")["fetch"]
    fetch.__globals__["acquire"] = defined("import sys\ndef acquire(of):\n    of(sys._getframe())\n", "asyncpg.pool")[
        "acquire"
    ]

    async def start() -> None:
        asyncio.get_running_loop().call_soon(fetch, of)
        await asyncio.sleep(0)

    asyncio.run(start())
    thread = threading.Thread(target=fetch, args=(of,))
    thread.start()
    thread.join(60)
    assert [[code.co_name for code, _ in stack] for stack in found] == [["fetch"], ["fetch"]]


def test_a_decorator_is_found_below_a_middleware() -> None:
    """
    The function that ``atomic`` is around, and not the frame of the application that is nearest; where a frame of the
    application is nearer, there is none.
    """
    found: list[Any] = []
    origins = Origins(depth=3)

    atomic = asking(lambda frame: found.append(stack_of(origins.decorated(frame))))

    @atomic()
    def view() -> None:
        with atomic():
            pass

    def middleware() -> None:
        view()

    middleware()
    outer, inner = found
    assert [code.co_name for code, _ in outer][:2] == ["view", "middleware"]
    assert inner == ()


def raw(*files: str) -> RawStack:
    """A stack of frames in these files, innermost first."""
    return tuple((compile(f"place = {number}", file, "exec"), 0) for number, file in enumerate(files))


@pytest.mark.parametrize(
    ("stack", "shown"),
    [
        (["asyncpg/protocol/protocol.pyx", "<asyncpg/pool.py>", "/app/view.py"], ["/app/view.py"]),
        (["asyncpg/protocol/protocol.pyx", "<asyncpg/pool.py>", "<starlette/responses.py>", "<asyncio/tasks.py>"],
         ["<starlette/responses.py>"]),
        (["asyncpg/protocol/protocol.pyx", "<asyncpg/connection.py>", "<asyncpg/pool.py>"], ["<asyncpg/pool.py>"]),
        (["asyncpg/protocol/protocol.pyx", "<asyncpg/pool.py>", "<contextlib.py>", "<asyncio/base_events.py>"],
         ["<asyncpg/pool.py>"]),
        (["asyncpg/protocol/protocol.pyx"], []),
        (["<selectors.py>", "<asyncio/base_events.py>"], ["<selectors.py>", "<asyncio/base_events.py>"]),
        ([], []),
    ],
)  # fmt: skip
def test_what_a_person_is_to_see_of_a_stack(stack: list[str], shown: list[str]) -> None:
    """The application before a driver, a framework before one, of a driver what was called; and no compiled code."""
    folder = str(Path(pytest.__file__).parents[1])
    files = [file.replace("<", f"{folder}/").replace(">", "") for file in stack]
    with known():
        KNOWN.know(["asyncpg"])
        found = Origins().shown(raw(*files))
    wanted = [file.replace("<", f"{folder}/").replace(">", "") for file in shown]
    assert [code.co_filename for code, _ in found] == wanted


def test_trimming_a_stack_to_the_application() -> None:
    """A raw stack starts at its innermost application frame; one without any stays whole."""
    origins = Origins()
    own = keep(sys._getframe(), 1)
    library = ((json.loads.__code__, 0), (json.dumps.__code__, 0))
    assert origins.trim((*library, *own)) == own
    assert origins.trim(library) == library


def test_locations_read_like_a_traceback() -> None:
    """File, line and function on one line; where the interpreter knows no line it is 0."""
    assert str(Location("main", "app.py", 3)) == "app.py:3 in main"
    assert locate(test_locations_read_like_a_traceback.__code__, 10**6).line == 0


def test_keep_keeps_no_more_than_wanted() -> None:
    """From no frame nothing comes; else as many as wanted or as there are."""
    assert keep(None, 3) == ()
    assert len(keep(sys._getframe(), 2)) == 2
    assert len(keep(sys._getframe(), 10_000)) == len(_outwards(sys._getframe()))


def test_where_a_thread_stands() -> None:
    """The stack of a thread that waits ends where it waits; that of one that is over is empty."""
    ready, done = threading.Event(), threading.Event()

    def stand() -> None:
        ready.set()
        done.wait(60)

    thread = threading.Thread(target=stand)
    thread.start()
    assert ready.wait(60)
    assert thread.ident is not None
    functions = [place.function for place in resolve(stack_of_thread(thread.ident, 10))]
    done.set()
    thread.join()
    assert any(function.endswith("stand") for function in functions)
    assert stack_of_thread(thread.ident, 10) == ()


def test_where_a_task_stands() -> None:
    """The frames of the coroutines that await one another, innermost first; a finished task executes nothing."""

    async def inner(event: asyncio.Event) -> None:
        await event.wait()

    async def outer(event: asyncio.Event) -> Any:
        task = running_task()
        assert task is not None
        assert task() is asyncio.current_task()
        assert task is running_task()
        await inner(event)
        return task

    async def main() -> None:
        event = asyncio.Event()
        task = asyncio.get_running_loop().create_task(outer(event))
        await asyncio.sleep(0)
        reference = running_reference(task)
        functions = [place.function.rpartition(".")[2] for place in resolve(stack_of_task(reference, 5))]
        assert functions[-2:] == ["inner", "outer"]
        assert len(stack_of_task(reference, 1)) == 1
        event.set()
        await task
        assert stack_of_task(reference, 5) == ()

    asyncio.run(main())
    assert running_task() is None


def running_reference(task: asyncio.Task[Any]) -> Any:
    """A weak reference to a task."""
    return weakref.ref(task)


def test_a_callback_of_the_loop_is_no_task() -> None:
    """Code that the loop calls outside of any task has none."""
    seen: list[object] = []

    async def main() -> None:
        done = asyncio.Event()

        def callback() -> None:
            seen.append(running_task())
            done.set()

        asyncio.get_running_loop().call_soon(callback)
        await done.wait()

    asyncio.run(main())
    assert seen == [None]


def test_without_asyncio_there_is_no_task(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that never imported asyncio has no tasks, and does not import it for the question."""
    monkeypatch.delitem(sys.modules, "asyncio.events")
    assert running_task() is None


def test_a_moment_of_the_clock_has_a_place_on_the_calendar() -> None:
    """The distance between two moments is the same on both clocks, and now is now."""
    earliest = time.time_ns()
    now = clock.monotonic()
    # Held up between its looks at the two clocks, it places the moment too early; of many, one is not held up.
    placed = max(clock.to_unix_nanoseconds(now) for _ in range(20))
    assert earliest - 1_000_000_000 < placed < time.time_ns() + 1_000_000_000
    # Both clocks are read for each; of many, one is not held up between the two.
    pairs = ((clock.to_unix_nanoseconds(now), clock.to_unix_nanoseconds(now - 5.0)) for _ in range(20))
    assert min(abs(later - earlier - 5_000_000_000) for later, earlier in pairs) < 10_000_000
