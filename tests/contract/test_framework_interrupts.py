"""An interrupt anywhere in a framework's hook: it reaches the application, and the unit of work ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import logging
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from poolscope.adapters.registry import load as load_adapters
from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.origin import CALLED_FROM
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work import CURRENT_UNIT, UnitOfWork
from poolscope.frameworks import asgiref, celery, event_loops, grpc, queues
from poolscope.frameworks.naming import MOUNTED_AT
from poolscope.hooks.patching import Patcher
from tests.contract import test_framework_faults as faults
from tests.support.pools import Source, identity
from tests.support.scale import times
from tests.support.seeds import is_drawn
from tests.support.striking import ASYNC_INTERRUPTS, INTERRUPTS, Place, Striker, unreachable
from tests.support.telemetry import Telemetry
from tests.support.trials import Interrupts, deeper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from poolscope.core.pool import Pool

#: One in so many places is interrupted in a run.
ONE_IN = int(os.environ.get("ONE_IN", times(30, whole=1)))
#: How often a run may come to one line until that is no other place any more.
OFTEN = 3

SHOP: Final = faults.SHOP


class Followed:
    """What a story does with the thread that is followed; it may choose another one."""

    def __init__(self, striker: Striker) -> None:
        self.striker = striker
        self.elsewhere: list[str] = []
        self._patchers: list[Patcher] = []

    def hook(self, framework: Any, module: Any) -> None:
        """Put hooks into a stand-in for a library, where poolscope is on."""
        if open_pool_registries:
            follows = sys.gettrace()
            sys.settrace(None)
            self._patchers.append(Patcher())
            framework.hook(module, self._patchers[-1], open_pool_registries[-1])
            sys.settrace(follows)

    def end(self) -> None:
        """Take them out."""
        while self._patchers:
            self._patchers.pop().revert()


def _queues(followed: Followed) -> list[object]:
    class Job:
        func_name = "send"

        def perform(self) -> object:
            return SHOP.answer()

    class Worker:
        async def run_job(self) -> object:
            module.deserialize_job_raw()
            return SHOP.answer()

        def process_message(self, _: object) -> object:
            return SHOP.answer()

    def deserialize_job_raw() -> tuple[str, ...]:
        return ("send",)

    module = SimpleNamespace(Job=Job, Worker=Worker, WorkerThread=Worker, deserialize_job_raw=deserialize_job_raw)
    for framework in (queues.RqFramework(), queues.ArqFramework(), queues.DramatiqFramework()):
        followed.hook(framework, module)
    return [
        Job().perform(),
        asyncio.run(Worker().run_job()),
        Worker().process_message(SimpleNamespace(actor_name="send")),
    ]


def _grpc(followed: Followed) -> list[object]:
    async def parts_later(_: object, __: object) -> AsyncIterator[str]:
        async for part in SHOP.parts_later():
            yield part

    async def answer_later(_: object, __: object) -> str:
        return SHOP.answer()

    async def read(stream: AsyncIterator[str]) -> list[str]:
        return [part async for part in stream]

    class ServerInterceptor:
        pass

    def server(interceptors: Any = ()) -> Any:
        return interceptors

    module = SimpleNamespace(ServerInterceptor=ServerInterceptor, server=server, __name__="grpc")
    followed.hook(grpc.GrpcFramework(), module)

    def handler(function: Any, *, streaming: bool) -> Any:
        name = "unary_stream" if streaming else "unary_unary"
        plain = SimpleNamespace(request_streaming=False, response_streaming=streaming, **{name: function})
        details = SimpleNamespace(method="/shop.Shop/Answer")
        made = plain
        for interceptor in module.server():
            made = interceptor.intercept_service(lambda _: plain, details)
        return getattr(made, name)

    told: list[object] = [handler(lambda _, __: SHOP.answer(), streaming=False)(None, None)]
    told.append(list(handler(lambda _, __: SHOP.parts(), streaming=True)(None, None)))
    half_read = handler(lambda _, __: SHOP.parts(), streaming=True)(None, None)
    told.append(next(half_read))
    half_read.close()
    told.append(asyncio.run(handler(answer_later, streaming=False)(None, None)))
    told.append(asyncio.run(read(handler(parts_later, streaming=True)(None, None))))
    return told


def _asgiref(followed: Followed) -> list[object]:
    class SyncToAsync:
        async def __call__(self) -> str:
            return SHOP.answer()

    class BaseEventLoop:
        def close(self) -> str:
            return "closed"

    followed.hook(asgiref.AsgirefFramework(), SimpleNamespace(SyncToAsync=SyncToAsync))
    followed.hook(event_loops.EventLoopsFramework(), SimpleNamespace(BaseEventLoop=BaseEventLoop))
    return [asyncio.run(SyncToAsync()()), BaseEventLoop().close()]


def _submits(_: Followed) -> list[object]:
    return faults._jobs()


def _jobs(followed: Followed) -> list[object]:
    # Within a worker's thread.
    def plainly(function: Callable[[], object]) -> None:
        submit = ThreadPoolExecutor.submit
        getattr(submit, "__wrapped__", submit)(others, function).result()

    def state() -> None:
        followed.elsewhere.extend(_left(before[0]))

    before: list[Any] = []
    with ThreadPoolExecutor(1) as others:
        follows = sys.gettrace()
        sys.settrace(None)
        plainly(lambda: before.append(running_thread().job))
        if follows is not None:
            plainly(followed.striker.follow)
        try:
            return [
                faults._told(others.submit(function).result) for function in (SHOP.answer, SHOP.breaks, SHOP.answer)
            ]
        finally:
            plainly(lambda: sys.settrace(None))
            plainly(state)


def _left(job: Any = None) -> list[str]:
    # What a thread must not keep of a unit of work that has finished.
    unit = CURRENT_UNIT.get()
    kept = {
        "unit": unit is not None and not unit.ended,
        "job": running_thread().job not in (job, None, Trial.main),
        "place": CALLED_FROM.get() != (),
        "mount": MOUNTED_AT.get() != "",
        "task": celery._ENTERED.get() != (),
    }
    return [f"{name} left" for name, is_kept in kept.items() if is_kept]


STORIES: Final[dict[str, tuple[Callable[[Followed], list[object]], str]]] = {
    **{
        name: ((lambda _, requests=requests: requests()), needs)
        for name, (requests, needs) in faults.FRAMEWORKS.items()
        if name != "jobs"
    },
    "submits": (_submits, "threading"),
    "jobs": (_jobs, "threading"),
    "queues": (_queues, "asyncio"),
    "grpc": (_grpc, "asyncio"),
    "asgiref": (_asgiref, "asyncio"),
}


class Trial(Interrupts):
    """
    The requests of one framework.

    Args:
        name: Of the framework.
        telemetry: Poolscope; on.
    """

    main: Any = None

    def __init__(self, name: str, telemetry: Telemetry) -> None:
        super().__init__()
        self._requests = STORIES[name][0]
        self._telemetry = telemetry
        self.striker = Striker()
        self.followed = Followed(self.striker)
        self.units: list[UnitOfWork | None] = []
        self.pool: Pool | None = None
        self._open = 0
        self._begun: list[UnitOfWork] = []
        is_async = name in ("asgi", "fastapi", "queues", "grpc", "asgiref", "django")
        # An event loop's own end by ``KeyboardInterrupt`` would end the test's.
        self.errors = ASYNC_INTERRUPTS if is_async else INTERRUPTS

    def query(self, number: int) -> None:
        """What an application does with a pool; it is not followed."""
        if self.pool is None:
            return
        follows = sys.gettrace()
        sys.settrace(None)
        lease = self.pool.checkout()
        lease.acquired()
        for place in range(number):
            lease.statement_begins(f"select * from table_{place}")
            lease.call_ends(in_transaction=False)
        self.units.append(lease.unit)
        lease.released()
        sys.settrace(follows)

    def parts(self) -> Iterator[str]:
        """What has to be closed."""
        self._open += 1
        try:
            for number in range(faults.PARTS):
                SHOP.query(1)
                yield str(number)
        finally:
            self._open -= 1

    def start(self) -> None:
        """Switch poolscope on."""
        self._telemetry.start()
        self.pool = open_pool_registries[-1].register(identity("shop"), Source(8))
        Trial.main = running_thread().job
        units = open_pool_registries[-1].units
        begin = units.begin

        def begins(kind: str, name: str) -> UnitOfWork:
            unit = begin(kind, name)
            self._begun.append(unit)
            return unit

        vars(units)["begin"] = begins

    def stop(self) -> None:
        """Switch it off."""
        self._telemetry.stop()
        self.pool = None

    def places(self) -> list[Place]:
        """All places that the story passes, each line up to its third time."""
        for _ in range(2):  # at first, what is cached is not
            self.striker.target = None
            self.expected = self._tell()[0]
            self.expected_units = self._names()
        seen = [one for one in self.striker.seen if one.nth <= OFTEN and one.line not in unreachable(one.file)]
        assert self._names() != []
        assert _left() == []
        return seen

    def interrupt(self, place: Place, error: type[BaseException]) -> None:
        """Interrupt a run at a place, and see what comes of it."""
        self.striker.target, self.striker.spot, self.striker.error = place, None, error
        of_ours = guard.counts()
        at = f"{place} {error.__name__}"
        told, raised = self._tell()
        if not self.striker.struck:  # what is remembered from other runs took another way
            return
        self.counts["tried"] += 1
        collecting, caller = self.striker.was_collecting, self.striker.caller
        self._fail_if(guard.counts() != of_ours and not collecting, "counted as an error of ours", at)
        # Where ours was not reached at all, the unit of work goes on, as when its end is not called: the next ends it.
        unseen = collecting or self.striker.was_at_entry
        left = [*_left(), *self.followed.elsewhere]
        self._fail_if(bool(left) and not unseen, f"{left}", at)
        is_itself = raised is not None and raised is self.striker.raised
        is_other = raised is not None and not is_itself
        before = self.units
        del raised
        self.striker.raised = None
        gc.collect()
        left_open, self._open = self._open, 0
        if open_pool_registries:
            open_pool_registries[-1].units.end_unclosed(0.0)
        units = [] if unseen else [one for one in self._begun if not one.ended]
        self._fail_if(bool(units), f"units of work have not ended {list(map(str, units))}", at)
        if (not is_itself or left_open) and not collecting:
            bare = self._bare()
            same = [one for one in bare if (one[1], one[2]) == (is_itself, is_other)]
            self._fail_if(not is_itself and not same, f"swallowed or another {told}", at)
            self._fail_if(left_open > max([one[3] for one in bare], default=0), f"not closed, {caller}", at)
        self.striker.target = self.striker.spot = None
        told, raised = self._tell(watched=False)
        left = [*_left(), *self.followed.elsewhere]
        self._fail_if(bool(left), f"{left} afterwards", at)
        CURRENT_UNIT.set(None)
        celery._ENTERED.set(())
        self._fail_if(told != self.expected, f"afterwards {told} {raised}", at)
        self._fail_if(self._names() != self.expected_units, f"afterwards {self._names()}", at)
        self._fail_if(bool({*map(id, before)} & {*map(id, self.units)} - {id(None)}), "counted to the one before", at)

    def run_deep(self, room: int) -> None:
        """
        A run near Python's limit of recursion.

        Args:
            room: The frames that are left.
        """
        at = f"{room} frames left"
        told = self._deep(room)
        left = [*_left(), *self.followed.elsewhere]
        self._fail_if(bool(left), f"{left}", at)
        gc.collect()
        open_pool_registries[-1].units.end_unclosed(0.0)
        units = [str(one) for one in self._begun if not one.ended]
        self._fail_if(bool(units), f"units of work have not ended {units}", at)
        CURRENT_UNIT.set(None)
        celery._ENTERED.set(())
        self.stop()
        try:
            bare = [self._deep(room)]
            while told not in bare and len(bare) <= OURS:
                bare.append(self._deep(room - len(bare)))
        finally:
            self.start()
        self._fail_if(told not in bare, f"the application saw {told} in place of {bare[0]}", at)
        after, raised = self._tell(watched=False)
        self._fail_if(after != self.expected, f"afterwards {after} {raised}", at)
        self._fail_if(self._names() != self.expected_units, f"afterwards {self._names()}", at)

    def _deep(self, room: int) -> tuple[object, str]:
        frames = sys.getrecursionlimit() - len(inspect.stack(0)) - room
        before = signal.getsignal(signal.SIGINT)
        try:
            told, raised = deeper(frames, lambda: self._tell(watched=False))
        except RecursionError as error:
            told, raised = None, error
        finally:
            signal.signal(signal.SIGINT, before)  # asyncio's runner leaves its own where its end has no frames left
        gc.collect()
        self._open = 0
        return told, type(raised).__name__

    def _bare(self) -> list[tuple[object, bool, bool, int]]:
        # The same interrupt without poolscope, where the library called what was hooked: before that, and once it is
        # done.
        caller = self.striker.caller
        if caller is None:
            return []
        self.striker.spot = caller
        self._tell()  # how often it had been there by then
        self.striker.spot = caller = self.striker.caller
        self.striker.target = None
        self.stop()
        outcomes = []
        for once_done in (False, True):
            self.striker.once_done = once_done
            told, raised = self._tell()
            is_itself = raised is not None and raised is self.striker.raised
            outcomes.append((told, is_itself, raised is not None and not is_itself))
            del raised
            self.striker.raised = None
            gc.collect()
            outcomes[-1] = (*outcomes[-1], self._open)
            self._open = 0
        self.striker.spot, self.striker.once_done = None, False
        self.start()
        return outcomes

    def _tell(self, *, watched: bool = True) -> tuple[object, BaseException | None]:
        self.units, self.followed.elsewhere, self._open = [], [], 0
        self._begun.clear()
        before, sys.unraisablehook = sys.unraisablehook, lambda _: None
        self.striker.begin()
        if not watched:
            sys.settrace(None)
        try:
            return self._requests(self.followed), None
        except BaseException as error:
            return None, error
        finally:
            self.striker.end()
            self.followed.end()
            sys.unraisablehook = before

    def _names(self) -> list[str]:
        return [str(unit) for unit in self.units]

    def _fail_if(self, fails: bool, what: str, at: str) -> None:
        if fails:
            self.fails(what, at)


@pytest.fixture(params=STORIES)
def trial(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    """A trial of each framework."""
    pytest.importorskip(STORIES[request.param][1])
    if request.param == "django":
        monkeypatch.setattr(faults._Urls, "urlpatterns", faults._Urls._patterns(), raising=False)
    for name in ("poolscope", "poolscope.findings", "asyncio", "celery.app.trace", "celery.utils.dispatch.signal"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    telemetry = Telemetry(disabled_adapters=[one.name for one in load_adapters()])
    trial = Trial(request.param, telemetry)
    monkeypatch.setattr(SHOP, "query", trial.query)
    monkeypatch.setattr(SHOP, "parts", trial.parts, raising=False)
    with contextlib.suppress(BaseException):
        STORIES[request.param][0](trial.followed)  # what is imported is
    trial.followed.end()
    gc.collect()
    gc.freeze()
    # What interrupts leave half-made, such as an event loop, complains when it is collected.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    trial.start()
    with trial.striker.installed():
        yield trial
    telemetry.shutdown()
    gc.unfreeze()
    gc.collect()
    guard.reset()


@pytest.mark.reliability(
    fault="an interrupt (Ctrl-C, a time limit's signal) at any line of poolscope's inside a framework's request or job",
    application="the interrupt, where it sees it without poolscope; every response closed that is closed without it",
    lost="the figures of that request or job; it is over, and the next one is a unit of work of its own",
)
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_ends_the_unit_of_work(trial: Trial, request: pytest.FixtureRequest) -> None:
    """
    Whichever line of a hook an interrupt comes at: it reaches the application, responses are closed as without
    poolscope, the unit of work has ended, nothing of it is left in the thread, and later requests are units of their
    own.
    """
    trial.interrupt_some(trial.places(), trial.interrupt, name=request.node.name, one_in=ONE_IN)


#: The most frames that are left, where everything works.
DEEPEST = 400
#: One in so many numbers of frames is tried in a run.
ROOMS_ONE_IN = int(os.environ.get("ONE_IN", times(100, whole=1)))
#: The frames of ours that are on the stack at once, at most.
OURS = 30
#: Stories that run in the thread of the test alone: those of others have a stack of their own.
IN_ONE_THREAD = ("asgi", "flask", "django", "celery", "queues", "grpc", "asgiref")


@pytest.mark.reliability(
    fault="the limit of recursion is reached in or near poolscope's code, in a framework's request or job",
    application="``RecursionError`` where it has that without poolscope with some frames fewer left; else the answer",
    lost="the figures of that request or job; it is over, and the next one is a unit of work of its own",
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("trial", IN_ONE_THREAD, indirect=True)
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_stack_ends_the_unit_of_work(trial: Trial, request: pytest.FixtureRequest) -> None:
    """
    However few frames are left: the application's answers are those without poolscope and some frames fewer, the unit
    of work has ended, nothing of it is left in the thread, and the next request is a unit of work of its own.
    """
    trial.places()
    rooms = [room for room in range(20, DEEPEST) if is_drawn(f"{request.node.name} {room}", ROOMS_ONE_IN)]
    assert trial._deep(4)[1] == "RecursionError"
    assert trial._deep(DEEPEST)[0] == trial.expected
    for room in rooms:
        trial.run_deep(room)
    trial.report(f"{request.node.name}: {len(rooms)} numbers of frames")
