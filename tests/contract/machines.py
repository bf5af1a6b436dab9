"""
Sequences (`tests/contract/sequences.py`) that hypothesis makes up. `tests/contract/test_state_machines.py` runs them.

What an application does with a pool, and starts, stops and configurations of poolscope amid it. With forks, in a
program of its own: ``python -m tests.contract.machines LABEL NUMBER [DSN]``.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from typing import TYPE_CHECKING, Any

import hypothesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from examples.lab.postgres import Postgres, postgres
from tests.contract.drivers.base import Driver, Feature
from tests.contract.sequences import CONFIGURATIONS, GIVES, SIZE, Sequence, kinds, telemetry_for
from tests.support.scale import times
from tests.support.striking import ASYNC_INTERRUPTS, INTERRUPTS

if TYPE_CHECKING:
    from tests.support.telemetry import Telemetry

#: Their connections are shared by threads, which SQLite does not survive.
SHARED_BY_THREADS = ("sqlalchemy-StaticPool-sqlite", "sqlalchemy-SingletonThreadPool-sqlite")
#: The most connections that an application holds where there is no limit.
MOST = SIZE + 2
#: Steps of a sequence.
STEPS = times(25, whole=50)
#: Lines of poolscope that a step comes to at most, nearly always.
LINES = 120

THREADS = st.integers(0, 1)


def can(*features: Feature) -> Any:
    """A rule for pools that can do all of that."""
    return precondition(lambda machine: all(one in machine.kind.features for one in features))


def when(condition: str) -> Any:
    """A rule for when that property of the machine is true."""
    return precondition(lambda machine: getattr(machine, condition))


class PoolMachine(RuleBasedStateMachine):
    """An application on one pool, and poolscope. The test sets what stands here."""

    kind: type[Driver]
    where: Postgres | None
    telemetry: Telemetry

    @initialize(patient=st.booleans())
    def open(self, patient: bool) -> None:
        self.sequence = Sequence(self.kind, self.where, self.telemetry)
        features = self.kind.features
        waits_for_ever = Feature.WAITS in features and Feature.LIMIT not in features
        patient = waits_for_ever or (patient and Feature.WAITS in features)
        self.do(f"open {'patient' if patient else 'impatient'}")

    def do(self, step: str) -> None:
        """Do a step."""
        self.sequence.do(step)

    @property
    def is_on(self) -> bool:
        """Whether poolscope is there."""
        return self.sequence.session is not None

    @property
    def is_off(self) -> bool:
        """Whether it is not."""
        return self.sequence.session is None

    @property
    def is_watching(self) -> bool:
        """Whether its hooks are there."""
        return self.sequence.session is not None and self.sequence.session.is_watching

    @property
    def may_check_out(self) -> bool:
        """Whether a checkout ends at once, or by itself."""
        sequence = self.sequence
        if sequence.waiting or len(sequence.hands) >= MOST:
            return False
        return not sequence.is_full or sequence.refuses

    @property
    def may_wait(self) -> bool:
        """Whether a checkout waits until it is served."""
        sequence = self.sequence
        return sequence.is_patient and sequence.is_full and len(sequence.waiting) < SIZE and bool(sequence.hands)

    @property
    def has(self) -> bool:
        """Whether the application holds a connection."""
        return bool(self.sequence.hands)

    @property
    def may_abandon(self) -> bool:
        """The same, and not the last one while a checkout waits that cannot be cancelled: it may be the slot's end."""
        sequence = self.sequence
        waits = bool(sequence.waiting) and Feature.CANCEL not in self.kind.features
        return len(sequence.hands) > waits

    @property
    def is_waiting(self) -> bool:
        """Whether a checkout waits."""
        return bool(self.sequence.waiting)

    def thread(self, number: int) -> int:
        """The thread where a step is done."""
        return number if self.kind.threads and self.kind.label not in SHARED_BY_THREADS else 0

    def place(self, data: st.DataObject) -> int:
        """One of the connections that the application holds."""
        return data.draw(st.integers(0, len(self.sequence.hands) - 1))

    @rule(configuration=st.integers(0, len(CONFIGURATIONS) - 1))
    @when("is_off")
    def start(self, configuration: int) -> None:
        self.do(f"start {configuration}")

    @rule()
    @when("is_on")
    def stop(self) -> None:
        self.do("stop")

    @rule(thread=THREADS)
    @when("may_check_out")
    def check_out(self, thread: int) -> None:
        self.do(f"check_out {self.thread(thread)}")

    @rule(thread=THREADS)
    @can(Feature.WAITS)
    @when("may_wait")
    def wait(self, thread: int) -> None:
        self.do(f"wait {self.thread(thread)}")

    @rule()
    @can(Feature.CANCEL)
    @when("is_waiting")
    def cancel(self) -> None:
        self.do("cancel")

    @rule(data=st.data(), thread=THREADS)
    @when("has")
    def query(self, data: st.DataObject, thread: int) -> None:
        self.do(f"query {self.place(data)} {self.thread(thread)}")

    @rule(data=st.data(), thread=THREADS)
    @when("has")
    def give_back(self, data: st.DataObject, thread: int) -> None:
        self.do(f"return {self.place(data)} {self.thread(thread)}")

    @rule(data=st.data(), thread=THREADS)
    @can(Feature.INVALIDATE)
    @when("has")
    def invalidate(self, data: st.DataObject, thread: int) -> None:
        self.do(f"invalidate {self.place(data)} {self.thread(thread)}")

    @rule(data=st.data(), thread=THREADS)
    @can(Feature.DETACH)
    @when("has")
    def detach(self, data: st.DataObject, thread: int) -> None:
        self.do(f"detach {self.place(data)} {self.thread(thread)}")

    @rule(data=st.data())
    @can(Feature.ABANDON)
    @when("may_abandon")
    def abandon(self, data: st.DataObject) -> None:
        self.do(f"abandon {self.place(data)}")

    @rule()
    @can(Feature.DISPOSE)
    @precondition(lambda machine: not machine.sequence.waiting)
    def dispose(self) -> None:
        self.do("dispose")

    @rule(thread=THREADS)
    def begin_unit(self, thread: int) -> None:
        self.do(f"begin_unit {thread}")

    @rule(thread=THREADS)
    def end_unit(self, thread: int) -> None:
        if self.sequence.units[thread]:
            self.do(f"end_unit {thread}")

    @rule(data=st.data(), nth=st.integers(1, LINES))
    @when("is_watching")
    def interrupt(self, data: st.DataObject, nth: int) -> None:
        errors = ASYNC_INTERRUPTS if self.sequence.loop is not None else INTERRUPTS
        error = data.draw(st.sampled_from(errors)).__name__
        if step := self.step(data):
            self.do(f"interrupt {nth} {error} {step}")

    @rule(data=st.data(), nth=st.integers(1, LINES), what=st.sampled_from(("stop", "restart")))
    @when("is_watching")
    def toggle_amid(self, data: st.DataObject, nth: int, what: str) -> None:
        if step := self.step(data):
            self.do(f"amid {nth} {what} {step}")

    def step(self, data: st.DataObject) -> str:
        """A step in which something is to happen, if there is one."""
        thread = self.thread(data.draw(THREADS))
        steps = []
        if self.may_check_out:
            steps.append(f"check_out {thread}")
        if self.has:
            place = self.place(data)
            able = {"invalidate": Feature.INVALIDATE, "detach": Feature.DETACH}
            gives = [one for one in GIVES if one not in able or able[one] in self.kind.features]
            if self.is_waiting:  # who waits may have it before it is known what became of the step
                gives = []
            steps.extend(f"{name} {place} {thread}" for name in ("query", *gives))
        return data.draw(st.sampled_from(steps)) if steps else ""

    def teardown(self) -> None:
        if not hasattr(self, "sequence"):
            return
        try:
            if not self.sequence.is_broken:
                self.do("end")
                self.sequence.compare()
        finally:
            self.sequence.close()


class ForkingMachine(PoolMachine):
    """One that forks, too."""

    @rule()
    def fork(self) -> None:
        self.do("fork")


def try_sequences(kind: type[Driver], where: Postgres | None, machine: type[PoolMachine], number: int) -> None:
    """Make up sequences, and run them."""
    telemetry = telemetry_for(kind)
    logging.disable()  # what pytest keeps of the log has the frames that errors came through, and with them connections
    machine = type("Machine", (machine,), {"kind": kind, "where": where, "telemetry": telemetry})
    budget = settings(
        max_examples=number,
        stateful_step_count=STEPS,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        # A shorter example helps who is there to read it; a run in CI would only wait for it.
        phases=[phase for phase in Phase if phase is not Phase.shrink or "CI" not in os.environ],
    )
    try:
        run_state_machine_as_test(machine, settings=budget)
    finally:
        logging.disable(logging.NOTSET)
        telemetry.shutdown()


def main(label: str, number: str, dsn: str = "") -> None:
    """Run sequences with forks."""
    hypothesis.settings.register_profile("ci", derandomize=os.environ.get("CI") == "true", database=None)
    hypothesis.settings.load_profile("ci")
    (kind,) = [one for one in kinds() if one.label == label]
    with contextlib.ExitStack() as stack:
        where = None
        if kind.on_postgres:
            where = Postgres.from_dsn(dsn) if dsn else stack.enter_context(postgres())
        try_sequences(kind, where, ForkingMachine, int(number))


if __name__ == "__main__":
    main(*sys.argv[1:])
