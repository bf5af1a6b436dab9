"""
Sequences of steps of an application and of poolscope, each step a line of text, with a small exact model beside them.

After every step the laws are compared with the model; at the end the same steps run without poolscope, and the
application must have seen the same. What fails names the sequence, which runs again by

    python -m tests.contract.sequences LABEL "open; start 0; check_out 0; ..." [DSN]
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from examples.lab.postgres import Postgres, postgres
from examples.lab.processes import wait_until
from poolscope.adapters.base import Capability
from poolscope.adapters.connects import PENDING_CHECKOUT
from poolscope.adapters.registry import load
from poolscope.api import unit_of_work
from poolscope.config import rules
from poolscope.core.execution import running_thread
from poolscope.core.guard import guard
from poolscope.core.pool_registry import open_pool_registries
from poolscope.core.work import CURRENT_UNIT
from poolscope.frameworks.registry import load as load_frameworks
from poolscope.hooks.patching import active_patches
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import DEADLINE, Driver, Feature, Handle, LoopThread
from tests.contract.stand_ins import STAND_INS
from tests.contract.subject import error_name
from tests.support.marks import marks
from tests.support.moments import Elsewhere
from tests.support.striking import INTERRUPTS, ROOT, Place, Spot, Striker, unreachable
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from poolscope.core.pool import Pool
    from tests.contract.drivers.base import PendingCheckout

#: The connections of a pool.
SIZE: Final = 2
#: Seconds that a checkout waits in a pool that is impatient, and in one that is not.
SHORT: Final = 0.02
LONG: Final = 2 * DEADLINE
#: Seconds until a child hangs.
HANGS: Final = 60
#: The configurations of a start; those of the adapters are added.
CONFIGURATIONS: Final[tuple[dict[str, Any], ...]] = (
    {},
    {"checkout_spans": "always", "native_aggregation": False, "propagate_to_threads": False},
    {"hold_spans": False, "stack_depth": 1, "max_pools": 1, "event_loop_heartbeat": False, "checkout_spans": "never"},
    {"enabled": False},
)
#: What an application does with a connection that it gives up.
GIVES: Final = ("return", "invalidate", "detach")
_BY_NAME: Final = {error.__name__: error for error in INTERRUPTS}
_NOWHERE: Final = Place("", "", 0, 0)
#: What came of an interrupt.
REACHED, ANOTHER, NOTHING = "reached", "another error", "nothing"


#: What happened in all sequences so far, to see that anything does.
HAPPENED: Final[Counter[str]] = Counter()


class LawError(AssertionError):
    """A law does not hold."""


class Held:
    """
    A connection that the application has.

    Args:
        handle: The driver's.
        is_counted: Whether poolscope has a lease of it; None where either is right.
        is_known: Whether poolscope saw its checkout in the session that is on.
    """

    #: Whether its pool was disposed of since: another one is in its place.
    is_outdated = False

    def __init__(self, handle: Handle, *, is_counted: bool | None, is_known: bool | None) -> None:
        self.handle = handle
        self.is_counted = is_counted
        self.is_known = is_known


class Done(NamedTuple):
    """
    A step that was done.

    Args:
        text: The step.
        struck: Whether something happened amid it.
        raised: What the application saw of it then: the interrupt, another error, or nothing.
        lost: How many connections the library has lost by it.
    """

    text: str
    struck: bool = False
    raised: str = NOTHING
    lost: int = 0


class Moment(Striker):
    """Something happens at the n-th line of poolscope's code in a step: an interrupt, or what another thread does."""

    def __init__(self) -> None:
        super().__init__()
        self.nth = 0
        self.is_following = False
        self.happens: Callable[[], None] | None = None
        self._passed = 0

    def due(
        self,
        nth: int,
        error: type[BaseException],
        happens: Callable[[], None] | None = None,
        nowhere: Place | None = _NOWHERE,
    ) -> None:
        """
        Say what happens next.

        Args:
            nth: At which line.
            error: What is raised there.
            happens: What happens instead.
            nowhere: None where it happens at a spot instead.
        """
        self.nth, self.error, self.happens, self._passed = nth, error, happens, 0
        self.struck, self.caller, self.raised = False, None, None
        self._counts.clear()
        self._due = None
        self.target = nowhere
        self.is_following = True

    def enter(self, frame: FrameType, event: str, argument: object) -> Any:
        """For threads that are started from now on."""
        return self._enter(frame, event, argument) if self.is_following else None

    def _follow(self, frame: FrameType, event: str, _: object) -> Any:
        if event == "line" and self.is_following and not self.struck:
            code = frame.f_code
            if frame.f_lineno not in unreachable(code.co_filename[len(ROOT) + 1 :]):
                self._passed += 1
                code_of = code.co_filename, code.co_name, frame.f_lineno
                self._counts[code_of] += 1
                if self._passed == self.nth:
                    self._note(frame)
                    self._strike()
        return self._follow

    def _strike(self) -> None:
        if self.happens is None:
            super()._strike()
        else:
            self.struck = True
            self.happens()


class Suspect(NamedTuple):
    """
    An interrupt that lost a connection, or that the application did not see.

    Args:
        place: Which step.
        caller: Where the library called the hook.
        what: What is suspected.
    """

    place: int
    caller: Spot
    what: str


@dataclass
class Session:
    """
    What poolscope has to have counted since it was started.

    Args:
        is_watching: Whether its hooks are in.
        patches: What they are.
        acquired: Checkouts.
        returned: Ends of leases that began in this session.
        failed: Checkouts without a connection, by error.
        unsure: How many of each may have been lost, by interrupts and by what was under way at the start.
    """

    is_watching: bool
    patches: tuple[str, ...] = ()
    acquired: int = 0
    returned: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unsure: int = 0


class Sequence:
    """
    A pool, an application and poolscope, step by step.

    Args:
        kind: Of the pool.
        where: The database, where it needs one.
        telemetry: Poolscope, off; None to run bare.
        done: For a bare run, what became of the steps with poolscope.
    """

    def __init__(
        self, kind: type[Driver], where: Postgres | None, telemetry: Telemetry | None, done: list[Done] | None = None
    ) -> None:
        self.kind = kind
        self.where = where
        self.telemetry = telemetry
        self.done: list[Done] = []
        self._as_was = done
        self.told: list[tuple[str, object]] = []
        self.hands: list[Held] = []
        self.waiting: list[tuple[PendingCheckout, Session | None]] = []
        #: Connections that an interrupt has lost for the library, too.
        self.ghosts = 0
        #: Those of them that were before the pool was disposed of.
        self.ghosts_before = 0
        self.kept: list[Handle] = []
        self.units: dict[int, list[unit_of_work]] = {0: [], 1: []}
        self.session: Session | None = None
        self.is_patient = False
        #: Whether a law did not hold.
        self.is_broken = False
        self.moment = Moment()
        #: At which step a bare run is interrupted, where in the library, and whether once that is done.
        self.strike_at: tuple[int, Spot, bool] | None = None
        #: What is excused only if it is so without poolscope, too.
        self.suspects: list[Suspect] = []
        self._context = contextvars.Context()
        self._elsewhere = Elsewhere()
        self._other = ThreadPoolExecutor(1, thread_name_prefix="application")
        self._folder = Path(tempfile.mkdtemp(prefix="poolscope-sequence-"))
        self._repairs = False

    # Steps

    def do(self, text: str) -> None:
        """
        Do one step, and see whether the laws hold.

        Raises:
            LawError: One does not.
        """
        was = self._as_was[len(self.done)] if self._as_was is not None else Done(text)
        name, *arguments = text.split()
        self._repairs = False
        self.done.append(Done(text))
        try:
            getattr(self, f"_{name}")(*arguments, **({"was": was} if name == "interrupt" else {}))
            self._check()
        except LawError:
            raise
        except Exception as error:
            msg = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
            raise self._broken(msg) from error
        done = self.done[-1]
        HAPPENED[
            f"{name} {arguments[2] if done.struck else ''} {done.raised if done.struck else ''} {done.lost or ''}"
        ] += 1

    def steps(self) -> str:
        """The sequence so far, as a text."""
        return "; ".join(one.text for one in self.done)

    def can(self, feature: Feature) -> bool:
        """Whether the pool can do that."""
        return feature in self.kind.features

    @property
    def limit(self) -> int | None:
        """How many connections may be checked out; None without a limit."""
        if not self.can(Feature.MANY):
            return 1
        return None if self.can(Feature.SHARED) else self.driver.limit

    @property
    def is_full(self) -> bool:
        """Whether the next checkout finds no connection."""
        out = sum(not held.is_outdated for held in self.hands) + self.ghosts - self.ghosts_before
        return self.limit is not None and out >= self.limit

    @property
    def refuses(self) -> bool:
        """Whether a checkout beyond the limit ends by itself."""
        return self.can(Feature.REJECTS) or (self.can(Feature.LIMIT) and not self.is_patient)

    def _open(self, patience: str = "impatient") -> None:
        self.is_patient = patience == "patient"
        self.driver = self.kind()
        self.driver.start(self.where, self._folder, size=SIZE, timeout=LONG if self.is_patient else SHORT)
        found = [value for value in vars(self.driver).values() if isinstance(value, LoopThread)]
        self.loop = found[0] if found else None

    def _start(self, number: str) -> None:
        if self.telemetry is None:
            return
        self.telemetry.settings = {**self.telemetry.settings, **_defaults(), **CONFIGURATIONS[int(number)]}
        self.telemetry.start()
        is_watching = "enabled" not in CONFIGURATIONS[int(number)]
        self.session = Session(is_watching, active_patches())
        for held in self.hands:
            held.is_counted, held.is_known = self._is_told if is_watching else False, False

    @property
    def _is_told(self) -> bool | None:
        # Whether the library tells which connections callers hold; a shared one is known from its next checkout on.
        return None if self.can(Feature.SHARED) or not self.kind.tells_what_is_out else True

    def _stop(self) -> None:
        if self.telemetry is None:
            return
        self.telemetry.stop()
        self.session = None
        gc.collect()
        if left := marks():
            raise self._broken(f"marks are left on {sorted(set(left))}")

    def _end(self) -> None:
        # All goes back; then as many as ever can be checked out.
        for thread, units in self.units.items():
            while units:
                self._end_unit(str(thread))
        while self.hands or self.waiting:
            if self.hands:
                self._return("0")
            else:
                self._cancel()
        while not self.is_full and len(self.hands) < SIZE:
            self._check_out()
            if self.told[-1][1] != "a connection":
                break
        while self.hands:
            self._return("0")
        self._check()
        if self.session is not None:
            self._stop()

    def _check_out(self, thread: str = "0") -> None:
        handle = self._tell("check_out", int(thread), self.driver.acquire)
        session = self.session
        if handle is not None:
            self._have(handle, session, session)
        elif session is not None:
            session.failed[self.driver.refusal] += 1

    def _have(self, handle: Handle, began: Session | None, now: Session | None) -> None:
        is_known = None if began is not now else bool(now and now.is_watching)
        self.hands.append(Held(handle, is_counted=is_known, is_known=is_known))
        if now is not None and is_known is not False:
            now.acquired += is_known is True
            now.unsure += is_known is None

    def _wait(self, thread: str = "0") -> None:
        pending = self._pending()
        checkout = self._in(int(thread), self.driver.begin)
        self.waiting.append((checkout, self.session))
        if self.session is not None and self.session.is_watching:
            wait_until(lambda: self._pending() > pending, DEADLINE, "the checkout to be pending")

    def _cancel(self) -> None:
        checkout, began = self.waiting.pop(0)
        checkout.cancel()
        self._tell("cancel", 0, checkout.wait)
        if self.session is not None:
            if began is self.session:
                self.session.failed["asyncio.exceptions.CancelledError"] += self.session.is_watching
            else:
                self.session.unsure += 1

    def _query(self, place: str, thread: str = "0") -> None:
        held = self.hands[int(place)]
        self._tell("query", int(thread), self.driver.query, held.handle)
        if self.session is not None and held.is_counted is None:  # Django checks out what is used
            self.session.unsure += 1
            held.is_counted, held.is_known = self._is_told if self.session.is_watching else False, None

    def _return(self, place: str, thread: str = "0") -> None:
        self._give("return", self.driver.release, place, thread)

    def _invalidate(self, place: str, thread: str = "0") -> None:
        self._give("invalidate", self.driver.invalidate, place, thread)

    def _detach(self, place: str, thread: str = "0") -> None:
        self._give("detach", self.driver.detach, place, thread, then=self.driver.close_detached)

    def _abandon(self, place: str) -> None:
        self._give("abandon", self.driver.abandon, place, "0")

    def _give(
        self,
        name: str,
        function: Callable[[Handle], object],
        place: str,
        thread: str,
        then: Callable[[Handle], object] | None = None,
    ) -> None:
        held = self.hands.pop(int(place))
        self._ended(held)
        self._tell(name, int(thread), function, held.handle)
        if then is not None:
            self._tell("close", int(thread), then, held.handle)
        self._served()

    def _ended(self, held: Held) -> None:
        if self.session is not None:
            self.session.returned += held.is_known is True
            self.session.unsure += held.is_known is None

    def _served(self) -> None:
        while self.waiting and not self.is_full:
            done = wait_until(
                lambda: [one for one in self.waiting if one[0].over()], DEADLINE, "a checkout that waits to be served"
            )
            self.waiting.remove(done[0])
            checkout, began = done[0]
            handle = self._tell("served", 0, checkout.wait)
            if handle is not None:
                self._have(handle, began, self.session)
                self._repairs = self._repairs or began is not self.session

    def _dispose(self) -> None:
        self._tell("dispose", 0, self.driver.dispose)
        self.ghosts_before = self.ghosts
        for held in self.hands:
            held.is_outdated = True

    def _begin_unit(self, thread: str) -> None:
        units = self.units[int(thread)]
        units.append(unit_of_work(f"unit-{thread}-{len(units)}"))
        self._in(int(thread), units[-1].__enter__)

    def _end_unit(self, thread: str) -> None:
        unit = self.units[int(thread)].pop()
        self._in(int(thread), unit.__exit__, None, None, None)

    # A step in which something happens

    def _interrupt(self, nth: str, error: str, name: str, *arguments: str, was: Done) -> None:
        if self.telemetry is None:
            self._interrupt_bare(was, error, name, *arguments)
            return
        self.moment.due(int(nth), _BY_NAME[error])
        raised = self._watched(name, arguments)
        if self.moment.struck:
            assert self.session is not None
            self.session.unsure += 2
            self._repairs = True
            lost = self._newly_lost()
            self.ghosts += lost
            self.done[-1] = self.done[-1]._replace(struck=True, raised=raised, lost=lost)
            self._suspect(lost=lost, raised=raised)
        self._served()

    def _suspect(self, *, lost: int, raised: str) -> None:
        moment, place = self.moment, len(self.done) - 1
        if moment.caller is None or moment.was_collecting:
            return
        if lost and not moment.was_at_entry:
            self.suspects.append(Suspect(place, moment.caller, "lost"))
        if raised != REACHED:
            self.suspects.append(Suspect(place, moment.caller, "swallowed"))

    def _interrupt_bare(self, was: Done, error: str, name: str, *arguments: str) -> None:
        if self.strike_at is not None and self.strike_at[0] == len(self.done) - 1:
            _, self.moment.spot, self.moment.once_done = self.strike_at
            self.moment.due(0, _BY_NAME[error], nowhere=None)
            raised = self._watched(name, arguments)
            self.done[-1] = self.done[-1]._replace(struck=self.moment.struck, raised=raised)
            self.moment.spot = None
            return
        if not was.struck:
            getattr(self, f"_{name}")(*arguments)
            return
        told = list(self.told)
        if was.raised == NOTHING:
            getattr(self, f"_{name}")(*arguments)
        elif name in GIVES:
            held = self.hands.pop(int(arguments[0]))
            (self.kept.append if was.lost else self._put_back)(held.handle)
        elif was.lost:
            self.kept.append(self.driver.acquire())
        self.told = told
        self.ghosts += was.lost
        self._served()

    def _watched(self, name: str, arguments: tuple[str, ...]) -> str:
        # The step, with the moment to come; what became of it.
        thread = int(arguments[-1])
        held = self.hands[int(arguments[0])] if name != "check_out" else None
        told = list(self.told)
        raised = NOTHING
        hook, sys.unraisablehook = sys.unraisablehook, _ignore
        self._follow(thread, held, self.moment.begin)
        try:
            with self.moment.installed():
                getattr(self, f"_{name}")(*arguments)
        except INTERRUPTS:
            raised = REACHED
        except Exception:
            if self.moment.raised is None:
                raise
            raised = ANOTHER
        finally:
            self.moment.is_following = False
            self._follow(thread, held, self.moment.end)
            sys.unraisablehook = hook
        self.moment.raised, was = None, self.moment.raised
        if was is not None:
            self.told = told
            if raised != NOTHING and held is not None and name in GIVES:
                self._put_back(held.handle)
        return raised

    def _put_back(self, handle: Handle) -> None:
        # As a ``finally`` does. The library may have it by now, and say so.
        with contextlib.suppress(Exception):
            self.driver.release(handle)
        handle.connection = None

    def _follow(self, thread: int, held: Held | None, begins: Callable[[], None]) -> None:
        if self.loop is not None:
            self.loop.run(_call(begins))
        elif held is not None:
            self._in(thread, held.handle.call, begins)
        elif self.kind.holds_in_threads:  # in one that is about to be started
            threading.settrace(self.moment.enter if begins == self.moment.begin else None)  # type: ignore[arg-type]
        else:
            self._in(thread, begins)

    def _amid(self, nth: str, what: str, name: str, *arguments: str) -> None:
        # Poolscope stops, or stops and starts again, in another thread, while a step is at a line of a hook.
        if self.telemetry is None:
            getattr(self, f"_{name}")(*arguments)
            return
        begun, telemetry, before = self.session, self.telemetry, len(self.hands)
        assert begun is not None

        def toggle() -> None:
            telemetry.stop()
            if what == "restart":
                telemetry.start()

        self.moment.due(int(nth), KeyboardInterrupt, lambda: self._elsewhere.happens(toggle))
        self._watched(name, arguments)
        self._elsewhere.settle()
        self.done[-1] = self.done[-1]._replace(struck=self.moment.struck)
        if not self.moment.struck:
            return
        self._repairs = True
        self.session = None
        if what == "restart":
            self.session = Session(is_watching=True, patches=begun.patches, unsure=2)
            for held in self.hands:
                held.is_counted, held.is_known = self._is_told, None
            if name == "check_out" and len(self.hands) > before and Capability.DRIFT not in self.driver.capabilities:
                self.hands[-1].is_counted = None  # no account repairs it: its next use does

    # A child

    def _fork(self) -> None:
        reads, writes = os.pipe()
        sys.stdout.flush()
        child = os.fork()
        if not child:
            self._in_child(writes)
        os.close(writes)
        try:
            text = _read_all(reads)
        finally:
            os.close(reads)
            status = os.waitpid(child, 0)[1]
        if status or not text:
            raise self._broken(f"a child ended with {status}, and said {text!r}")
        said = json.loads(text)
        if said["failed"]:
            raise self._broken(f"in a child: {said['failed']}")
        self.told.append(("fork", said["told"]))

    def _in_child(self, writes: int) -> None:
        try:
            signal.alarm(HANGS)
            failed, told = "", []
            try:
                told = self._life_of_a_child()
            except BaseException:
                failed = traceback.format_exc()
            os.write(writes, json.dumps({"told": told, "failed": failed}).encode())
        finally:
            os._exit(0)

    def _life_of_a_child(self) -> list[object]:
        if self.session is not None and self.session.is_watching:
            for pool in self._pools():
                figures = [pool.used(), len(pool.pending), pool.waits.read().count, pool.holds.read().count]
                if any(figures):
                    raise self._broken(f"a child does not start at nothing: {figures}")
        mine = Sequence(self.kind, self.where, self.telemetry)
        mine.units[0], mine._context = list(self.units[0]), self._context
        mine.session = Session(self.session.is_watching, self.session.patches) if self.session is not None else None
        for step in ("open", "check_out 0", "query 0", "return 0"):
            mine.do(step)
        for step in ("stop", "start 0") if self.session is not None else ():
            mine.do(step)
        for step in ("check_out 0", "query 0", "return 0"):
            mine.do(step)
        mine.driver.stop()
        shutil.rmtree(mine._folder, ignore_errors=True)
        return [list(one) for one in mine.told]

    # What the application sees

    def _in(self, thread: int, function: Callable[..., Any], *args: object) -> Any:
        if thread:
            return self._other.submit(function, *args).result(DEADLINE)
        return self._context.run(function, *args)

    def _tell(self, name: str, thread: int, function: Callable[..., Any], *args: object) -> Any:
        try:
            result = self._in(thread, function, *args)
        except Exception as error:
            if self.moment.raised is not None:  # also where a library raises it as the cause of its own
                raise
            self.told.append((name, error_name(error)))
            return None
        except BaseException as error:
            if self.moment.raised is not None or not isinstance(error, _cancelled()):
                raise
            self.told.append((name, error_name(error)))
            return None
        self.told.append((name, "a connection" if isinstance(result, Handle) else result))
        return result

    # What must be true

    def _pools(self) -> list[Pool]:
        pools = list(open_pool_registries[-1].pools.values()) if open_pool_registries else []
        mine = self.driver.pool
        return [one for one in pools if one.identity.name.partition("#")[0] in (mine, "overflow")]

    def _pending(self) -> int:
        return sum(len(pool.pending) for pool in self._pools())

    def _drift(self, pool: Pool) -> int:
        counts = [source.in_use() for source in pool.live_sources()]
        if None in counts or Capability.DRIFT not in self.driver.capabilities or pool.shared:
            return 0
        # Where the library counts, and does not say which.
        if not self.kind.tells_what_is_out and any(held.is_counted is not True for held in self.hands):
            return 0
        return len(pool.leases) + len(pool.inherited) - sum(one or 0 for one in counts)

    def _newly_lost(self) -> int:
        for _ in range(2):
            gc.collect()
        counts = [source.in_use() for pool in self._pools() for source in pool.live_sources()]
        if None in counts or not counts or self.can(Feature.SHARED) or not self.kind.tells_what_is_out:
            return 0
        return max(0, sum(one or 0 for one in counts) - len(self.hands) - self.ghosts)

    def _repair(self) -> None:
        registry = open_pool_registries[-1]
        for seconds in range(3):  # as the background thread does, once a second
            for pool in registry.pools.values():
                registry._accounts.look(pool, float(seconds))

    def _check(self) -> None:
        errors = {place: count for place, count in guard.counts().items() if not place.endswith(".dropped")}
        self._holds(not errors, f"errors of ours: {errors}")
        if self.telemetry is None:
            return
        for thread in (0, 1):
            self._in(thread, self._check_context, thread)
        session = self.session
        if session is None or not session.is_watching:
            self._holds(not active_patches(), f"patches are left: {active_patches()}")
            self._holds(not open_pool_registries, "a pool registry is left")
            return
        patches = set(session.patches)  # what is imported, or what a pool's dialect is, may bring more
        self._holds(bool(patches) and patches <= set(active_patches()), f"patches: {active_patches()}")
        self._holds(len(open_pool_registries) == 1, f"{len(open_pool_registries)} pool registries")
        if self._repairs and (self._pending() > len(self.waiting) or any(self._drift(pool) for pool in self._pools())):
            self._repair()
        self._check_figures(session)

    def _check_figures(self, session: Session) -> None:
        pools = self._pools()
        used = sum(pool.used() for pool in pools)
        most = len(self.hands) + self.ghosts
        least = sum(held.is_counted is True for held in self.hands)
        most -= sum(held.is_counted is False for held in self.hands)
        if self.can(Feature.SHARED):
            least, most = min(least, 1), min(most, 1)
        self._holds(least <= used <= most, f"{used} in use, and not {least} to {most}")
        outdated = sum(held.is_outdated for held in self.hands) + self.ghosts_before
        for pool in pools:
            bound = None if pool.limit is None else pool.limit + outdated
            self._holds(bound is None or pool.used() <= bound, f"{pool.used()} in use of {pool.limit}")
            self._holds(not self._drift(pool), f"drift of {self._drift(pool)}")
        known = sum(began is session for _, began in self.waiting)
        self._holds(known <= self._pending() <= len(self.waiting), f"{self._pending()} pending, and not {known}")
        self._check_counts(session, pools)

    def _check_counts(self, session: Session, pools: list[Pool]) -> None:
        capabilities, unsure = self.driver.capabilities, session.unsure
        waits = sum(pool.waits.read().count for pool in pools)
        holds = sum(pool.holds.read().count for pool in pools)
        failed: Counter[str] = Counter()
        for pool in pools:
            failed.update({kind: waits.read().count for kind, waits in pool.failed_waits.copy().items()})
        for capability, count, expected in (
            (Capability.WAIT, waits, session.acquired),
            (Capability.USE, holds, session.returned),
            (Capability.WAIT, sum(failed.values()), sum(session.failed.values())),
        ):
            right = capability not in capabilities or abs(count - expected) <= unsure
            self._holds(right, f"counted {count} of {capability}, and not {expected} (+/- {unsure})")
        self._holds(bool(unsure) or failed == session.failed, f"failed {failed}, and not {session.failed}")

    def _check_context(self, thread: int) -> None:
        unit, checkout, own = CURRENT_UNIT.get(), PENDING_CHECKOUT.get(), running_thread().checkout
        PENDING_CHECKOUT.set(None)
        running_thread().checkout = None
        self._holds(unit is None or bool(self.units[thread]), f"a unit of work is left: {unit}")
        self._holds(checkout is None and own is None, f"a context is left: {checkout} {own}")

    def _holds(self, law: bool, text: str) -> None:
        if not law:
            raise self._broken(text)

    def _broken(self, text: str) -> LawError:
        self.is_broken = True
        again = f'python -m tests.contract.sequences {self.kind.label} "{self.steps()}"'
        return LawError(f"{text}\n{again}")

    # Without poolscope

    def compare(self) -> None:
        """
        The same steps without poolscope.

        Raises:
            LawError: The application has seen something else, or an interrupt did what it does not do then.
        """
        bare = Sequence(self.kind, self.where, None, self.done)
        try:
            for one in self.done:
                bare.do(one.text)
        finally:
            bare.close()
        for place, (ours, theirs) in enumerate(zip(self.told, bare.told, strict=False)):
            self._holds(ours == theirs, f"the application saw {ours}, bare {theirs}, as number {place}")
        self._holds(len(self.told) == len(bare.told), f"the application saw {self.told}, bare {bare.told}")
        for suspect in self.suspects:
            self._try(suspect)

    def _try(self, suspect: Suspect) -> None:
        steps = self.done[: suspect.place + 1]
        again = Sequence(self.kind, self.where, self.telemetry)
        again.moment.spot = suspect.caller  # how often it had been there by then
        try:
            for one in steps:
                again.do(one.text)
            caller = again.moment.caller
        finally:
            again.close()
        if caller is None:  # what is remembered by now took another way
            return
        outcomes = []
        for once_done in (False, True):
            bare = Sequence(self.kind, self.where, None, steps)
            bare.strike_at = suspect.place, caller, once_done
            try:
                for one in steps:
                    bare.do(one.text)
                outcomes.append((bare.done[-1].raised, bare.has_lost()))
            finally:
                bare.close()
        excused = (
            any(lost for _, lost in outcomes)
            if suspect.what == "lost"
            else any(raised != REACHED for raised, _ in outcomes)
        )
        self._holds(excused, f"{suspect.what} by {steps[-1].text} at {caller}; bare {outcomes}")

    def has_lost(self) -> bool:
        """Whether fewer connections can be checked out than should be."""
        gc.collect()
        while not self.is_full and len(self.hands) < SIZE:
            self._check_out()
            if self.told[-1][1] != "a connection":
                return True
        return False

    def close(self) -> None:
        """Stop poolscope, and let go of everything."""
        self.moment.end()
        if self.telemetry is not None:
            self.telemetry.stop()
        with contextlib.suppress(Exception):  # also what a worker of the library's has ended with
            self.driver.stop()
        self.hands.clear()
        self.kept.clear()
        self._elsewhere.close()
        self._other.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)
        guard.reset()


def telemetry_for(kind: type[Driver]) -> Telemetry:
    """A telemetry that watches this kind of pool only."""
    others = [one.name for one in load() if one.name != kind.adapter]
    return Telemetry(disabled_adapters=others, disabled_frameworks=[one.name for one in load_frameworks()])


def kinds() -> list[type[Driver]]:
    """All kinds of pools."""
    return [*all_drivers(), *STAND_INS]


def _defaults() -> dict[str, object]:
    return {name: rules()[name][0] for one in CONFIGURATIONS for name in one}


def _cancelled() -> tuple[type[BaseException], ...]:
    return (asyncio.CancelledError,)


async def _call(function: Callable[[], None]) -> None:
    function()


def _ignore(_: object) -> None:
    pass


def _read_all(pipe: int) -> str:
    parts = []
    while part := os.read(pipe, 65536):
        parts.append(part)
    return b"".join(parts).decode()


def run(kind: type[Driver], where: Postgres | None, steps: str) -> None:
    """
    Run one sequence, with and without poolscope.

    Args:
        kind: Of the pool.
        where: The database, where it needs one.
        steps: The sequence.

    Raises:
        LawError: A law does not hold.
    """
    telemetry = telemetry_for(kind)
    sequence = Sequence(kind, where, telemetry)
    try:
        for step in steps.split("; "):
            sequence.do(step)
        sequence.compare()
    finally:
        sequence.close()
        telemetry.shutdown()


def main(label: str, steps: str, dsn: str = "") -> None:
    """See above."""
    logging.disable()
    (kind,) = [one for one in kinds() if one.label == label]
    with contextlib.ExitStack() as stack:
        where = None
        if kind.on_postgres:
            where = Postgres.from_dsn(dsn) if dsn else stack.enter_context(postgres())
        run(kind, where, steps)


if __name__ == "__main__":
    main(*sys.argv[1:])
