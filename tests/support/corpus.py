"""
Plays the cases of ``tests/data/findings``: an application's steps, on a clock that moves only by them.

A step is an object whose first key says what happens:

| key | what happens | further keys |
| --- | --- | --- |
| ``begin`` | an actor of that name begins: a unit of work in a thread of its own | ``unit`` (its name; without, a thread or task outside of any), ``kind``, ``on`` (``thread`` or ``task``), ``of`` (the actor whose unit it is part of), ``in`` (its function) |
| ``leave`` | its function returns, the thread or task lives on | |
| ``end`` | the unit of work ends, and the thread or task | ``lives``: these do not |
| ``await`` | a task awaits other actors until they end | ``for``, ``at`` |
| ``checkout`` | a checkout that has its connection at once, by that name | ``by``, ``at``, ``pool``, ``expected_long_hold`` |
| ``pend`` | a checkout that waits | the same; ``sync`` (in a task: it blocks the event loop), ``connects`` |
| ``validate`` | the pool has handed a connection over, and tries whether it works | |
| ``get`` | it has its connection | ``connected`` (seconds that connecting took) |
| ``time_out``, ``refuse``, ``cancel`` | it ends without one | ``error`` (of ``refuse``) |
| ``fail`` | its connect fails, and it ends without one | ``error``, ``refusal`` (the server's code, and whose limit) |
| ``return``, ``abandon``, ``lose`` | the connection returns; is garbage-collected; nothing but the pool refers to it | |
| ``query`` | statements run, one after the other, each at once | ``on``, ``times``, ``at``, ``seconds``, ``many``, ``parameters``, ``before``, ``after``, ``expected``, ``autocommit`` |
| ``run``, ``answer`` | a statement runs on a connection until it is answered | ``query``, ``at`` |
| ``commit``, ``fetch`` | the server is called otherwise | ``seconds``, ``times`` |
| ``wait``, ``watch`` | seconds pass; with poolscope looking every second | |
| ``repeat`` | the steps so many times; ``{n}`` is the number of the time, from 1 | ``steps`` |
| ``load`` | requests arrive (`tests.support.load`) | |

Where no actor is named, the test's own thread does it, in a unit of work around the whole case. What names no
connection runs on one called ``main``, which is returned at the end. A query's text is a template: `texts` says of what.
"""  # noqa: E501 - a table

from __future__ import annotations

import json
import re
from contextvars import copy_context
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.lease import Outcome
from poolscope.core.pool_identity import Identity
from poolscope.core.sql.repetition import EXPECTED_REPETITION
from poolscope.core.work import CURRENT_UNIT, EXPECTED_LONG_HOLD
from tests.support.actors import Actor, Here, Loop, TaskActor, ThreadActor
from tests.support.load import Load
from tests.support.pools import Source
from tests.support.scene import Scene, line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from poolscope.core.finding import Finding
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.work import UnitOfWork
    from tests.support.actors import Stay

FOLDER: Final = Path(__file__).parents[1] / "data" / "findings"

# As many connections as a pool has where a case does not say.
_ENOUGH: Final = 20

Step = dict[str, Any]


def cases() -> Iterator[dict[str, Any]]:
    """Every case of the corpus, with the file that it is in."""
    for path in sorted(FOLDER.glob("*.json")):
        for case in json.loads(path.read_text(encoding="utf-8")):
            yield {**case, "file": path.name}


_TEXTS: Final[dict[str, Callable[[int], str]]] = {
    "i": str,
    "letter": lambda i: chr(ord("a") + i % 26),
    "list": lambda i: ", ".join(str(number) for number in range(i)) or "0",
    "parameters": lambda i: ", ".join(f"%(id_{number})s" for number in range(i)),
    "tuples": lambda i: ", ".join(f"('sku {number}', {number})" for number in range(i)),
    "long_list": lambda i: ", ".join(str(number) for number in range(100 * i, 100 * i + 100 + i)),
    "rows": lambda i: ", ".join(f"({number}, 'row {number}')" for number in range(i + 1)),
    "many_rows": lambda i: ", ".join(f"({number}, 'row {number} of a long chunk {i}')" for number in range(i, i + 500)),
    "columns": lambda _: ", ".join(f"wide.a_column_with_a_long_name_{number}" for number in range(100)),
}
_NAMED: Final = re.compile(r"\{(" + "|".join(_TEXTS) + r")\}")


def texts(template: str, i: int) -> str:
    """A statement's text at its run of that number."""
    return _NAMED.sub(lambda named: _TEXTS[named[1]](i), template)


def parameters(templates: Any, i: int) -> Any:
    """A statement's parameters at its run of that number: texts are templates, of which numbers become numbers."""
    if isinstance(templates, dict):
        return {name: parameters(value, i) for name, value in templates.items()}
    if isinstance(templates, list):
        return tuple(parameters(value, i) for value in templates)
    if templates in {"{array}", "{short_array}"}:
        return list(range(i, i + (500 if templates == "{array}" else 3)))
    if isinstance(templates, str):
        text = texts(templates, i)
        return int(text) if text.lstrip("-").isdigit() else text
    return templates


class Player:
    """
    Plays one case.

    Args:
        case: The case.
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        pools = case.get("pools", {"shop": _ENOUGH})
        system = case.get("system", "postgresql")
        main, *others = pools.items()
        self.scene = Scene(main[1], system)
        self.pools: dict[str, Pool] = {main[0]: self.scene.pool}
        sources = [self.scene.source]
        for name, limit in others:
            sources.append(Source(limit))
            identity = Identity(name, system, name, "db", 5432)
            self.pools[name] = self.scene.pool_registry.register(identity, sources[-1])
        self.leases: dict[str, Lease] = {}
        self._here = Here()
        self._actors: dict[str, Actor] = {}
        self._units: dict[str, UnitOfWork] = {}
        self._holders: dict[str, Actor | Here] = {}
        self._stays: dict[str, Stay] = {}
        self._loop: Loop | None = None
        self._blocking: list[Stay] = []
        self.scene.settle = self._settle
        self._lost: list[Lease] = []
        for source in sources:
            source.unheld = lambda: self._lost  # type: ignore[method-assign]

    def play(self) -> list[Finding]:
        """
        Play it, and let some seconds pass.

        Returns:
            What is found, without the ends of what was found before.
        """
        try:
            for _ in range(self.case.get("requests", 1)):
                if any("begin" in step or "load" in step for step in _all(self.case["steps"])):
                    self._play(self.case["steps"])
                else:
                    self._play_as_one_unit()
            self.scene.pass_time(3)
            return [finding for finding in self.scene.found() if not finding.resolved]
        finally:
            self.close()

    def _play_as_one_unit(self) -> None:
        with self.scene.unit():
            self._play(self.case["steps"])
            main = self.leases.pop("main", None)
            if main is not None:
                main.released()
        if "returned_after" in self.case:
            self.scene.clock.advance(self.case["returned_after"])
            for lease in self.leases.values():
                lease.released()

    def close(self) -> None:
        """End all actors, wherever they are."""
        for stay in self._stays.values():
            if not stay.is_over:
                stay.ends(lambda _: None)
        for actor in reversed(self._actors.values()):
            actor.ends()
        if self._loop is not None:
            self._loop.close()

    def _play(self, steps: list[Step]) -> None:
        for step in steps:
            getattr(self, "_" + next(iter(step)))(step)
            self._settle()

    def _settle(self) -> None:
        # The clock does not move before an event loop has done what it can do, as a heartbeat.
        if self._loop is not None and all(stay.is_over for stay in self._blocking):
            self._loop.does(lambda: None)

    def _repeat(self, step: Step) -> None:
        for number in range(1, step["repeat"] + 1):
            self._play(_numbered(step["steps"], str(number)))

    # Actors -------------------------------------------------------------------------------

    def _begin(self, step: Step) -> None:
        name = step["begin"]
        parent = self._actors[step["of"]] if "of" in step else None
        if step.get("on") == "task":
            self._loop = self._loop or Loop()
            actor: Actor = TaskActor(self._loop, parent)
        else:
            actor = ThreadActor(parent.does(copy_context) if parent is not None else None)
        self._actors[name] = actor
        actor.enters(step.get("in", "handler"))
        if "unit" in step:
            self._units[name] = actor.does(partial(self.scene.begin_unit, step["unit"], step.get("kind", "http")))

    def _leave(self, step: Step) -> None:
        self._actors[step["leave"]].leaves()

    def _end(self, step: Step) -> None:
        actor = self._actors[step["end"]]
        unit = self._units.get(step["end"])
        if unit is not None:
            actor.does(partial(self.scene.pool_registry.units.end, unit))
            actor.does(partial(CURRENT_UNIT.set, None))
        if step.get("lives"):
            actor.leaves()
        else:
            actor.ends()

    def _await(self, step: Step) -> None:
        actor = self._actors[step["await"]]
        assert isinstance(actor, TaskActor)
        others = [self._actors[name] for name in step["for"]]
        actor.awaits(step.get("at", "gather"), [other for other in others if isinstance(other, TaskActor)])

    def _by(self, step: Step) -> Actor | Here:
        return self._actors[step["by"]] if "by" in step else self._here

    # Checkouts ----------------------------------------------------------------------------

    def _pool(self, step: Step) -> Pool:
        return self.pools[step["pool"]] if "pool" in step else self.scene.pool

    def _checkout(self, step: Step) -> None:
        actor = self._by(step)
        pool = self._pool(step)

        def checkout() -> Lease:
            token = EXPECTED_LONG_HOLD.set(step.get("expected_long_hold"))
            lease: Lease = line(step.get("at", "view"))(lambda: pool.checkout())  # noqa: PLW0108 - a hook's frame
            EXPECTED_LONG_HOLD.reset(token)
            lease.acquired()
            return lease

        self.leases[step["checkout"]] = actor.does(checkout)
        self._holders[step["checkout"]] = actor

    def _pend(self, step: Step) -> None:
        actor = self._by(step)
        pool = self._pool(step)

        def begin() -> Lease:
            lease = pool.checkout()
            lease.connecting = bool(step.get("connects"))
            return lease

        blocks = step.get("sync") and isinstance(actor, TaskActor)
        stays = actor.blocks if blocks else actor.stays  # type: ignore[union-attr]
        stay = self._stays[step["pend"]] = stays(step.get("at", "view"), begin)
        self._blocking += [stay] if blocks else []
        self.leases[step["pend"]] = stay.thing
        self._holders[step["pend"]] = actor

    def _validate(self, step: Step) -> None:
        self.leases[step["validate"]].handed_over()

    def _get(self, step: Step) -> None:
        def end(lease: Lease) -> None:
            if "connected" in step:
                lease.connected(step["connected"])
            lease.acquired()

        self._stays.pop(step["get"]).ends(end)

    def _fails(self, name: str, outcome: Outcome, error: str) -> None:
        def end(lease: Lease) -> None:
            lease.connecting = False
            lease.failed(outcome, error)

        self._stays.pop(name).ends(end)
        del self.leases[name]

    def _time_out(self, step: Step) -> None:
        self._fails(step["time_out"], Outcome.TIMEOUT, "TimeoutError")

    def _refuse(self, step: Step) -> None:
        self._fails(step["refuse"], Outcome.REJECTED, step.get("error", "PoolError"))

    def _cancel(self, step: Step) -> None:
        self._fails(step["cancel"], Outcome.CANCELLED, "CancelledError")

    def _fail(self, step: Step) -> None:
        lease, error = self.leases[step["fail"]], step.get("error", "OperationalError")
        lease.pool.failed_connect = (self.scene.clock(), error)
        if "refusal" in step:
            lease.pool.refused(*step["refusal"], lease)
        outcome = Outcome.SERVER_REFUSED if "refusal" in step else Outcome.CONNECT_FAILED
        self._fails(step["fail"], outcome, error)

    def _return(self, step: Step) -> None:
        lease = self.leases.pop(step["return"])
        self._holder_of(step["return"]).does(lease.released)

    def _abandon(self, step: Step) -> None:
        self.leases.pop(step["abandon"]).released(abandoned=True)

    def _lose(self, step: Step) -> None:
        self._lost.append(self.leases.pop(step["lose"]))

    # Statements ---------------------------------------------------------------------------

    def _holder_of(self, name: str) -> Actor | Here:
        return self._holders.get(name, self._here)

    def _query(self, step: Step) -> None:
        name = step.get("on", "main")
        if name not in self.leases:
            self._checkout({"checkout": name})
        self._holder_of(name).does(partial(self._queries, self.leases[name], step))

    def _queries(self, lease: Lease, step: Step) -> None:
        scene = self.scene
        token = EXPECTED_REPETITION.set(step.get("expected"))
        templates = [step["query"]] if isinstance(step["query"], str) else step["query"]
        at = step.get("at", "loop")
        for number, template in enumerate(islice(cycle(templates), step.get("times", 1)), 1):
            for before in step.get("before", ()):
                scene.query(lease, texts(before, number), at)
            scene.query(
                lease,
                texts(template, number),
                at,
                step.get("seconds", 0.0),
                many=step.get("many", False),
                parameters=parameters(step.get("parameters"), number),
            )
            for after in step.get("after", ()):
                scene.query(lease, texts(after, number), at)
        if step.get("autocommit"):
            lease.in_transaction = False
        EXPECTED_REPETITION.reset(token)

    def _run(self, step: Step) -> None:
        lease = self.leases[step["run"]]

        def begin() -> None:
            lease.statement_begins(step["query"])

        self._stays[step["run"]] = self._holder_of(step["run"]).stays(step.get("at", "view"), begin)

    def _answer(self, step: Step) -> None:
        lease = self.leases[step["answer"]]
        in_transaction = not step.get("autocommit", False)
        self._stays.pop(step["answer"]).ends(lambda _: lease.call_ends(in_transaction=in_transaction))

    def _commit(self, step: Step) -> None:
        self._call(step["commit"], step.get("seconds", 0.0), in_transaction=False)

    def _fetch(self, step: Step) -> None:
        for _ in range(step.get("times", 1)):
            self._call(step["fetch"], step.get("seconds", 0.0), in_transaction=True)

    def _call(self, name: str, seconds: float, *, in_transaction: bool) -> None:
        lease = self.leases[name]

        def call() -> None:
            lease.call_begins()
            self.scene.clock.advance(seconds)
            lease.call_ends(in_transaction=in_transaction)

        self._holder_of(name).does(call)

    # Time ---------------------------------------------------------------------------------

    def _wait(self, step: Step) -> None:
        self.scene.clock.advance(step["wait"])

    def _watch(self, step: Step) -> None:
        self.scene.pass_time(step["watch"])

    def _load(self, step: Step) -> None:
        Load(self.scene, step).run()


def _all(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        yield from _all(step.get("steps", []))


def _numbered(steps: Any, number: str) -> Any:
    if isinstance(steps, list):
        return [_numbered(each, number) for each in steps]
    if isinstance(steps, dict):
        return {key: _numbered(value, number) for key, value in steps.items()}
    return steps.replace("{n}", number) if isinstance(steps, str) else steps
