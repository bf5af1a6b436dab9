"""Requests that arrive by a plan, on the clock of a scene: a simulation, event by event, with the watchdog at work."""

from __future__ import annotations

import heapq
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.lease import Outcome
from tests.support.actors import ThreadActor
from tests.support.scene import line

if TYPE_CHECKING:
    from collections.abc import Callable

    from poolscope.core.lease import Lease
    from poolscope.core.work import UnitOfWork
    from tests.support.actors import Stay
    from tests.support.scene import Scene

# Seconds between two runs of the watchdog.
_TICK: Final = 0.5


class Load:
    """
    A load.

    Args:
        scene: Where: its pool.
        plan: ``load`` is a list of streams of requests, each an object: ``every`` so many seconds or ``at`` certain
            moments (``times`` at each), from ``start`` on ``until``; they are ``idle`` and in a ``query`` for so many
            seconds, and return what they hold. ``unit`` is their name. ``timeout`` is the pool's, in seconds.
    """

    def __init__(self, scene: Scene, plan: dict[str, Any]) -> None:
        self._scene = scene
        self._timeout = plan.get("timeout", 30.0)
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0
        self._begin = scene.clock.now
        self._free: list[ThreadActor] = []
        self._queue: list[_Request] = []
        for stream in plan["load"]:
            for moment in _moments(stream):
                self._later(moment, partial(self._arrive, stream))

    def run(self) -> None:
        """Until the last request has finished."""
        next_tick = 0.0
        while self._events:
            moment, _, event = heapq.heappop(self._events)
            while next_tick <= moment:
                self._scene.clock.now = self._begin + next_tick
                self._scene.tick()
                next_tick += _TICK
            self._scene.clock.now = self._begin + moment
            event()
        for actor in self._free:
            actor.ends()

    def _later(self, moment: float, event: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._events, (moment, self._number, event))

    def _now(self) -> float:
        return self._scene.clock.now - self._begin

    def _has_room(self) -> bool:
        pool = self._scene.pool
        return pool.limit is None or len(pool.leases) < pool.limit

    def _arrive(self, stream: dict[str, Any]) -> None:
        actor = self._free.pop() if self._free else _new()
        request = _Request(self._scene, stream, actor)
        if self._has_room():
            request.begins()
            self._hold(request)
        else:
            request.waits()
            self._queue.append(request)
            self._later(self._now() + self._timeout, partial(self._time_out, request))

    def _hold(self, request: _Request) -> None:
        stream = request.stream
        queries = self._now() + stream.get("idle", 0.0)
        self._later(queries, request.queries)
        self._later(queries + stream.get("query", 0.0), partial(self._end, request))

    def _end(self, request: _Request) -> None:
        request.ends()
        self._free.append(request.actor)
        if self._queue:
            next_one = self._queue.pop(0)
            next_one.has_waited()
            self._hold(next_one)

    def _time_out(self, request: _Request) -> None:
        if request in self._queue:
            self._queue.remove(request)
            request.times_out()
            self._free.append(request.actor)


class _Request:
    def __init__(self, scene: Scene, stream: dict[str, Any], actor: ThreadActor) -> None:
        self.stream = stream
        self.actor = actor
        self._scene = scene
        self._unit: UnitOfWork
        self._lease: Lease
        self._stay: Stay

    def _begin_unit(self) -> None:
        self._unit = self._scene.begin_unit(self.stream.get("unit", "GET /"))

    def _checkout(self) -> Lease:
        return self._scene.pool.checkout()

    def begins(self) -> None:
        def begin() -> None:
            self._begin_unit()
            self._lease = line("view")(self._checkout)
            self._lease.acquired()

        self.actor.does(begin)

    def waits(self) -> None:
        self.actor.does(self._begin_unit)
        self._stay = self.actor.stays("view", self._checkout)
        self._lease = self._stay.thing

    def has_waited(self) -> None:
        self._stay.ends(lambda lease: lease.acquired())

    def times_out(self) -> None:
        self._stay.ends(lambda lease: lease.failed(Outcome.TIMEOUT, "TimeoutError"))
        self._scene.pool_registry.units.end(self._unit)

    def queries(self) -> None:
        self._lease.statement_begins("select 1 from t")

    def ends(self) -> None:
        self._lease.call_ends(in_transaction=False)
        self._lease.released()
        self._scene.pool_registry.units.end(self._unit)


def _new() -> ThreadActor:
    actor = ThreadActor()
    actor.enters("handler")
    return actor


def _moments(stream: dict[str, Any]) -> list[float]:
    if "at" in stream:
        return [moment for moment in stream["at"] for _ in range(stream.get("times", 1))]
    start = stream.get("start", 0.0)
    return [start + number * stream["every"] for number in range(int((stream["until"] - start) / stream["every"]))]
