"""
Poolscope comes and goes at any moment of a request, task or job: `instrument()` and `uninstrument()` amid a hook of a
framework, amid the application's own code, and while it streams or starts a thread. The application notices nothing; a
unit of work ends; and no mark, no value of a context and no receiver of a signal is left.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

import pytest

from examples.lab.processes import wait_until
from poolscope.adapters.registry import load as load_adapters
from poolscope.core.execution import running_thread
from poolscope.core.guard import SessionEndedError, guard
from poolscope.core.origin import CALLED_FROM
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work import CURRENT_UNIT, UnitOfWork, Units
from poolscope.frameworks import celery, wsgi
from poolscope.frameworks.naming import MOUNTED_AT
from tests.contract import test_framework_faults as faults
from tests.contract import test_framework_interrupts as interrupts
from tests.contract.drivers.base import DEADLINE
from tests.support.moments import Elsewhere, Moments, Place
from tests.support.pools import Source, identity
from tests.support.scale import times
from tests.support.telemetry import Telemetry
from tests.support.toggles import Toggles
from tests.support.trials import some_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.pool import Pool

SHOP: Final = faults.SHOP
#: How many places of a story are tried in each way.
PLACES = times(1, whole=200)
#: How often poolscope starts or stops under a load.
TOGGLES = times(3, whole=200)
#: What has a part in starting and stopping that a request can notice.
STARTING = ("session", "instrumentor", "hooks/", "frameworks/", "core/pool_registry", "core/dormancy", "core/work")


class Followed(interrupts.Followed):
    """What a story does with hooks of stand-ins, which come and go with poolscope."""

    def __init__(self) -> None:
        self.moments: Moments | None = None
        super().__init__(SimpleNamespace(follow=self._follow))  # type: ignore[arg-type]
        self._hooks: list[tuple[Any, Any]] = []
        self._changing = threading.Lock()  # of the test that starts and stops, and of what is hooked meanwhile
        #: What lives on until the story has been looked at.
        self.kept: list[object] = []

    def hook(self, framework: Any, module: Any) -> None:
        """Put hooks into a stand-in, now and whenever poolscope starts."""
        with self._changing:
            self._hooks.append((framework, module))
            super().hook(framework, module)

    def started(self) -> None:
        """Poolscope is there: put the hooks in."""
        with self._changing:
            for framework, module in self._hooks:
                super().hook(framework, module)

    def end(self) -> None:
        """Take them out."""
        with self._changing:
            super().end()

    def forget(self) -> None:
        """The story is over."""
        with self._changing:
            super().end()
            self._hooks.clear()
            self.kept.clear()

    def _follow(self) -> None:
        if self.moments is not None:
            sys.settrace(self.moments._called)


def _threads(followed: Followed) -> list[object]:
    # A request starts threads, which the test keeps.
    def application(_: Any, start_response: Any) -> list[bytes]:
        told: list[str] = []
        for _ in range(2):
            thread = threading.Thread(target=lambda: told.append(SHOP.answer()))
            followed.kept.append(thread)
            thread.start()
            thread.join()
        start_response("200 OK", [])
        return [part.encode() for part in told]

    served = wsgi.Middleware(application, open_pool_registries[-1]) if open_pool_registries else application
    return [served({"REQUEST_METHOD": "GET"}, lambda *_: None) for _ in range(2)]


STORIES: Final[dict[str, tuple[Callable[[Any], list[object]], str]]] = {
    **interrupts.STORIES,
    "threads": (_threads, "threading"),
}


class Subject(Toggles):
    """
    The requests of one framework, and poolscope beside them.

    Args:
        name: Of the story.
        elsewhere: Another thread.
    """

    def __init__(self, name: str, elsewhere: Elsewhere) -> None:
        self.name = name
        self.elsewhere = elsewhere
        super().__init__(Telemetry(disabled_adapters=[one.name for one in load_adapters()]))
        self.followed = Followed()
        #: What happens at which query of the application's, by its number.
        self.at_query: dict[int, Callable[[], object]] = {}
        self.queries = 0
        self.begun: list[UnitOfWork] = []
        self._pools: dict[Any, Pool] = {}
        self._units: list[UnitOfWork | None] = []

    def query(self, number: int) -> None:
        """What an application does with a pool that is hooked as adapters do it; it is not followed."""
        follows = sys.gettrace()
        sys.settrace(None)
        try:
            self.queries += 1
            happens = self.at_query.get(self.queries)
            if happens is not None:
                happens()
            for registry in tuple(open_pool_registries):
                with contextlib.suppress(SessionEndedError):
                    self._query(registry, number)
        finally:
            sys.settrace(follows)

    def _query(self, registry: Any, number: int) -> None:
        if registry.dormant and registry.still_dormant():
            return
        if registry not in self._pools:
            self._pools[registry] = registry.register(identity("shop"), Source(8))
        lease = self._pools[registry].checkout()
        lease.acquired()
        for place in range(number):
            lease.statement_begins(f"select * from table_{place}")
            lease.call_ends(in_transaction=False)
        self._units.append(lease.unit)
        lease.released()

    def toggle(self) -> None:
        """Start or stop poolscope, whichever it is not."""
        if self.is_on:
            self.telemetry.stop()
            self.followed.end()
        else:
            self.telemetry.start()
            self.followed.started()

    def set_on(self, *, on: bool) -> None:
        """Let poolscope be there, or not."""
        if self.is_on is not on:
            self.toggle()

    def tell(self, moments: Moments | None = None) -> list[object]:
        """What the application answers its requests with."""
        self.queries = 0
        self._units.clear()
        self.followed.moments = moments
        # A response that is left open may end amid anything.
        gc.collect()
        try:
            with moments or contextlib.nullcontext():
                return STORIES[self.name][0](self.followed)
        except BaseException as error:
            return [repr(error)]
        finally:
            self.elsewhere.settle()
            self.followed.moments = None

    def units(self) -> list[str]:
        """The units of work of the application's queries, in order."""
        return [str(unit) for unit in self._units]

    def compare(self, told: list[object], expected: list[object]) -> None:
        """The application saw the same."""
        if told != expected:
            self.fails(f"the application saw {told} in place of {expected}")

    def ends(self) -> None:
        """Poolscope goes, and leaves nothing."""
        self.set_on(on=False)
        for where, left in (
            ("here", _left()),
            ("elsewhere", self.elsewhere.asks(_left)),
            ("", self.followed.elsewhere),
        ):
            if left:
                self.fails(f"{left} {where}")
        self.leaves_nothing()
        self.followed.forget()
        self.followed.elsewhere.clear()
        if receivers := _receivers():
            self.fails(f"left receivers: {receivers}")
        if open_ones := [str(one) for one in self.begun if not one.ended]:
            self.fails(f"units of work have not ended: {open_ones}")
        self.begun.clear()
        self._pools.clear()


def _left() -> list[str]:
    # What a thread must not keep once poolscope is gone.
    kept = {
        "unit": CURRENT_UNIT.get() is not None,
        "job": running_thread().job is not None,
        "place": CALLED_FROM.get() != (),
        "mount": MOUNTED_AT.get() != "",
        "task": celery._ENTERED.get() != (),
    }
    CURRENT_UNIT.set(None)
    running_thread().job = None
    celery._ENTERED.set(())
    return [f"{name} left" for name, is_kept in kept.items() if is_kept]


def _receivers() -> list[str]:
    # Ours, of signals of libraries that are imported.
    signals = sys.modules.get("celery.signals")
    found = [
        str(receiver)
        for name in (("task_prerun", "task_postrun") if signals is not None else ())
        for _, receiver in getattr(signals, name).receivers or ()
        if "poolscope" in str(receiver)
    ]
    flask = sys.modules.get("flask")
    if flask is not None:
        found += [str(one) for one in flask.request_started.receivers.values() if "poolscope" in str(one)]
    return found


@pytest.fixture(params=STORIES)
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    """Each framework."""
    pytest.importorskip(STORIES[request.param][1])
    if request.param == "django":
        monkeypatch.setattr(faults._Urls, "urlpatterns", faults._Urls._patterns(), raising=False)
    for name in ("poolscope", "asyncio", "celery.app.trace"):
        monkeypatch.setattr(logging.getLogger(name), "disabled", True)
    elsewhere = Elsewhere()
    made = Subject(request.param, elsewhere)
    monkeypatch.setattr(SHOP, "query", made.query)
    monkeypatch.setattr(interrupts.Trial, "main", None)
    for name in ("begin", "begin_job"):
        monkeypatch.setattr(Units, name, _recorded(vars(Units)[name], made.begun))
    job, running_thread().job = running_thread().job, None
    made.tell()  # what is imported is
    made.followed.forget()
    gc.collect()
    gc.freeze()  # what other tests left is set aside
    yield made
    gc.unfreeze()
    made.telemetry.shutdown()
    elsewhere.close()
    running_thread().job = job
    guard.reset()


def _recorded(begin: Callable[..., UnitOfWork], begun: list[UnitOfWork]) -> Callable[..., UnitOfWork]:
    def begins(self: Units, *args: str) -> UnitOfWork:
        unit = begin(self, *args)
        begun.append(unit)
        return unit

    return begins


def _healthy(subject: Subject) -> tuple[list[object], list[str], list[Place]]:
    # The answers without poolscope; the units of work with it; and the lines that are passed.
    subject.set_on(on=False)
    bare = subject.tell()
    subject.followed.forget()
    recorded = Moments()
    for _ in range(2):  # at first, what is cached is not
        subject.set_on(on=True)
        recorded = Moments()
        subject.compare(subject.tell(recorded), bare)
        units = subject.units()
        subject.ends()
    assert units
    assert recorded.places
    subject.report()
    return bare, units, list(recorded.places)


def _afterwards(subject: Subject, bare: list[object], units: list[str]) -> None:
    # It has left nothing, and is all right when it is started again.
    subject.ends()
    subject.set_on(on=True)
    subject.compare(subject.tell(), bare)
    if subject.units() != units:
        subject.fails(f"afterwards {subject.units()} in place of {units}")
    subject.ends()


@pytest.mark.reliability(
    fault="poolscope is stopped, or stopped and started again, at any line of its own in a request, task or job",
    application="the same answers",
    lost="the figures of the request, task or job that is under way at that moment",
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["toggle", "restart"])
def test_at_any_line_of_a_hook(subject: Subject, how: str) -> None:
    """
    While a thread of the application is about to execute a line of ours, poolscope is stopped in another thread, or
    stopped and started again.
    """
    bare, units, places = _healthy(subject)
    happens: Callable[[], Any] = getattr(subject, how)
    for place in some_of(places, PLACES, f"{subject.name} {how}"):
        with subject.at(place):
            subject.set_on(on=True)
            moments = Moments({place: lambda: subject.elsewhere.happens(happens)})
            subject.compare(subject.tell(moments), bare)
            _afterwards(subject, bare, units)
    subject.report()


@pytest.mark.reliability(
    fault="poolscope is started, stopped, or stopped and started again, at any query of a request, task or job",
    application="the same answers",
    lost="the figures of the request, task or job that is under way at that moment",
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("how", ["start", "stop", "restart"])
def test_at_any_query(subject: Subject, how: str) -> None:
    """Amid the application's code, also while it answers in parts, poolscope comes or goes."""
    bare, units, _ = _healthy(subject)
    subject.set_on(on=False)
    subject.tell()
    subject.ends()
    happens = subject.restart if how == "restart" else subject.toggle
    for number in some_of(range(1, subject.queries + 1), PLACES, f"{subject.name} {how}"):
        with subject.at(f"query {number}"):
            subject.set_on(on=how != "start")
            subject.at_query[number] = lambda: subject.elsewhere.happens(happens)
            subject.compare(subject.tell(), bare)
            subject.at_query.clear()
            _afterwards(subject, bare, units)
    subject.report()


@pytest.mark.reliability(
    fault="requests, tasks and jobs at any line of a start or stop of poolscope",
    application="the same answers",
    lost="the figures of those that are under way at that moment",
)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("starts", [True, False], ids=["start", "stop"])
def test_at_any_line_of_a_start_or_stop(subject: Subject, *, starts: bool) -> None:
    """While poolscope is about to execute a line of its start, or of its stop, another thread serves requests."""
    bare, units, _ = _healthy(subject)
    recorded = Moments(parts=STARTING)
    subject.set_on(on=not starts)
    with recorded:
        subject.toggle()
    subject.ends()
    for place in some_of(list(recorded.places), PLACES, f"{subject.name} {starts}"):
        with subject.at(place):
            told: list[list[object]] = []
            subject.set_on(on=not starts)
            moments = Moments(parts=STARTING)
            moments.pending[place] = lambda told=told: subject.elsewhere.happens(  # type: ignore[misc]
                lambda: told.append(STORIES[subject.name][0](subject.followed))
            )
            with moments:
                subject.toggle()
            subject.elsewhere.settle()
            for one in told:
                subject.compare(one, bare)
            _afterwards(subject, bare, units)
    subject.report()


@pytest.mark.reliability(
    fault="instrument() and uninstrument() again and again while requests, tasks and jobs run",
    application="the same answers",
    lost="the figures of those that are under way at that moment",
)
@pytest.mark.timeout(3600)
def test_under_load(subject: Subject) -> None:
    """Started and stopped again and again while another thread serves requests one after the other."""
    bare, units, _ = _healthy(subject)
    over, done = threading.Event(), [0]
    wrong: list[list[object]] = []

    def serves() -> None:
        while not over.is_set():
            try:
                told = STORIES[subject.name][0](subject.followed)
            except BaseException as error:
                told = [repr(error)]
            subject.followed.forget()
            if told != bare:
                wrong.append(told)
            done[0] += 1

    subject.set_on(on=False)
    with ThreadPoolExecutor(1, thread_name_prefix="load") as load:
        loop = load.submit(serves)
        try:
            for _ in range(TOGGLES):
                subject.toggle()
                before = done[0]
                wait_until(lambda before=before: done[0] > before, DEADLINE, "the load to go on")  # type: ignore[misc]
        finally:
            over.set()
            loop.result(DEADLINE)
        subject.set_on(on=False)
        if left := load.submit(_left).result(DEADLINE):
            subject.fails(f"{left} in the load's thread")
    for told in wrong[:1]:
        subject.compare(told, bare)
    _afterwards(subject, bare, units)
    subject.report()


@pytest.mark.reliability(
    fault="poolscope is stopped while a request starts a thread",
    application="the thread runs; nothing of poolscope is left on it",
    lost="that the thread belongs to the request",
)
@pytest.mark.parametrize("subject", ["threads"], indirect=True)
def test_while_a_thread_starts(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that begins after poolscope has gone keeps no mark that its start got before."""
    start = threading.Thread.start

    def stops_first(self: threading.Thread) -> None:
        if self in subject.followed.kept and subject.is_on:
            subject.elsewhere.happens(subject.toggle)
            subject.elsewhere.settle()
        start(self)

    bare = subject.tell()
    subject.followed.forget()
    monkeypatch.setattr(threading.Thread, "start", stops_first)
    subject.set_on(on=True)
    subject.compare(subject.tell(), bare)
    assert not subject.is_on
    subject.ends()
    subject.report()
