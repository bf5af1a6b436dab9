"""
What goes wrong while a service runs. Each fault is a context manager that lasts for some seconds; what it does again
and again it does in a thread of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import inspect
import logging
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import psycopg
import sqlalchemy

from examples.lab.processes import wait_until
from poolscope.adapters.registry import load
from poolscope.core.lease import Lease
from poolscope.core.pool import Pool
from tests.contract.drivers.base import Feature
from tests.soak.load import InterruptError

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Iterator

    from tests.contract.drivers.base import Driver
    from tests.soak.exporters import Backend
    from tests.support.telemetry import Telemetry

#: Seconds within which a child that forked off has to end.
CHILD_SECONDS: Final = 20.0
#: Seconds that a stop may take, whatever is stuck: one of its own, and the turns of some hundred threads.
STOP_SECONDS: Final = 10.0
#: An engine of a fault's own.
SQLITE: Final[dict[str, Any]] = {
    "url": "sqlite://",
    "poolclass": sqlalchemy.pool.QueuePool,
    "connect_args": {"check_same_thread": False},
}


class Stage:
    """
    What faults act on.

    Args:
        telemetry: Poolscope and its SDK.
        backend: Where the exporters send to.
        drivers: The pools.
        dsn: The PostgreSQL database.
        draw: For what is drawn.
        inside: Its one item is true while a signal handler may raise in the main thread.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        backend: Backend,
        drivers: list[Driver],
        dsn: str,
        *,
        draw: random.Random,
        inside: list[bool],
    ) -> None:
        self.telemetry = telemetry
        self.backend = backend
        self.drivers = drivers
        self.dsn = dsn
        self.draw = draw
        self.inside = inside
        #: How often each fault struck.
        self.strikes: dict[str, int] = {}
        #: What must not have happened.
        self.broken: list[str] = []

    def struck(self, fault: str) -> None:
        """Count a fault."""
        self.strikes[fault] = self.strikes.get(fault, 0) + 1

    def restart(self) -> None:
        """Stop poolscope, and start it again."""
        began = time.monotonic()
        self.telemetry.stop()
        took = time.monotonic() - began
        if took > STOP_SECONDS:
            self.broken.append(f"a stop took {took:.1f} s")
        self.telemetry.start()


class Fault:
    """
    A fault.

    Args:
        name: What it is called in the report.
        happens: The context manager.
        exact: Whether the counts of checkouts are still the application's own.
        within_limit: Whether the connections in use stay within the pool's limit.
    """

    def __init__(
        self,
        name: str,
        happens: Callable[[Stage], contextlib.AbstractContextManager[None]],
        *,
        exact: bool = True,
        within_limit: bool = True,
    ) -> None:
        self.name = name
        self.happens = happens
        self.exact = exact
        self.within_limit = within_limit


@contextlib.contextmanager
def _again(stage: Stage, name: str, pause: float, strike: Callable[[], object]) -> Iterator[None]:
    # Strike in a thread of its own, until the block ends.
    ends = threading.Event()

    def run() -> None:
        while not ends.wait(pause * stage.draw.uniform(0.5, 1.5)):
            stage.struck(name)
            try:
                strike()
            except BaseException as error:
                stage.broken.append(f"{name}: {type(error).__name__}: {error}")
                return

    thread = threading.Thread(target=run, name=f"fault {name}")
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()


def _toggles(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _again(stage, "start and stop", 0.3, stage.restart)


def _forks(stage: Stage) -> contextlib.AbstractContextManager[None]:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            try:
                _lives_in_a_child()
            finally:
                os._exit(0)
        deadline = time.monotonic() + CHILD_SECONDS
        while os.waitpid(child, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                raise TimeoutError(f"a child did not end within {CHILD_SECONDS:g} s")
            time.sleep(0.01)

    return _again(stage, "fork", 0.5, fork)


class _Connection:
    """Of a driver without C code: a lock that another thread holds there during the fork is never free in the child."""

    def rollback(self) -> None:
        """End no transaction."""

    def close(self) -> None:
        """Close nothing."""


def _lives_in_a_child() -> None:
    # A pool of its own, for the same reason; SQLite's own lock, for one, is held in a child in three, bare as well.
    pool = sqlalchemy.pool.QueuePool(_Connection)
    for _ in range(20):
        pool.connect().close()
    time.sleep(0.3)  # the worker's first look at it
    pool.dispose()


def _interrupts(stage: Stage) -> contextlib.AbstractContextManager[None]:
    main = threading.main_thread().ident
    assert main is not None

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        def handler(*_: object) -> None:
            if stage.inside[0]:
                stage.inside[0] = False
                raise InterruptError

        before = signal.signal(signal.SIGUSR1, handler)
        with _again(stage, "interrupt", 0.002, lambda: signal.pthread_kill(main, signal.SIGUSR1)):
            try:
                yield
            finally:
                stage.inside[0] = False
        signal.signal(signal.SIGUSR1, before)

    return during()


def _exporters(behaviour: str) -> Callable[[Stage], contextlib.AbstractContextManager[None]]:
    def happens(stage: Stage) -> contextlib.AbstractContextManager[None]:
        stage.struck(f"exporters: {behaviour}")
        during: contextlib.AbstractContextManager[None] = getattr(stage.backend, behaviour)()
        return during

    return happens


@contextlib.contextmanager
def _full_pipe(stage: Stage) -> Iterator[None]:
    # Standard error is a pipe that is full and that no process reads.
    stage.struck("standard error is stuck")
    reads, writes = os.pipe()
    fcntl.fcntl(writes, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writes, b"x" * 4096)
    fcntl.fcntl(writes, fcntl.F_SETFL, 0)
    kept = os.dup(2)
    os.dup2(writes, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(writes)
        _drain(reads)
        os.close(kept)


def _drain(pipe: int) -> None:
    # Whoever is in the midst of writing has the pipe's other end through the descriptor that was replaced: when he is
    # done, the pipe ends.
    while os.read(pipe, 65536):
        pass
    os.close(pipe)


@contextlib.contextmanager
def _no_threads(stage: Stage) -> Iterator[None]:
    # A process without any further thread cannot be made for root, nor for poolscope alone: the start itself fails.
    original = threading.Thread.start
    fails = [True]

    def start(thread: threading.Thread) -> None:
        if fails[0] and thread.name == "poolscope":
            stage.struck("no further thread")
            raise RuntimeError("can't start new thread")
        original(thread)

    threading.Thread.start = start  # type: ignore[method-assign]
    try:
        stage.restart()
        yield
    finally:
        fails[0] = False
        threading.Thread.start = original  # type: ignore[method-assign]
    wait_until(_has_worker, 30, "the worker, once threads can be started again")


def _has_worker() -> bool:
    return any(thread.name == "poolscope" for thread in threading.enumerate())


class OursError(Exception):
    """An error in poolscope."""


def _ours_fails(stage: Stage) -> contextlib.AbstractContextManager[None]:
    owners = [Lease, Pool, *(kind for one in load() for kind in type(one).__mro__ if "adapters" in kind.__module__)]
    outside = ("hook", "release", "found")  # called and guarded as a whole
    places = [
        (owner, name)
        for owner in owners
        for name, value in vars(owner).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in outside
    ]

    def fail() -> None:
        owner, name = stage.draw.choice(places)
        original = vars(owner)[name]

        def raises(*_: Any, **__: Any) -> Any:
            raise OursError(name)

        setattr(owner, name, raises)
        time.sleep(0.005)
        setattr(owner, name, original)

    return _again(stage, "an error of ours", 0.02, fail)


#: What closes connections, in each process: it leaves the others of its kind alone.
_ADMIN: Final = "soak admin"


def _kills(stage: Stage) -> contextlib.AbstractContextManager[None]:
    @contextlib.contextmanager
    def during() -> Iterator[None]:
        with psycopg.connect(stage.dsn, autocommit=True, application_name=_ADMIN) as admin:

            def kill() -> None:
                admin.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and application_name <> %s order by random() limit 2",
                    (_ADMIN,),
                )

            with _again(stage, "server closes connections", 0.1, kill):
                yield

    return during()


def _collections(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _again(stage, "garbage collection", 0.02, gc.collect)


def _reads(stage: Stage) -> contextlib.AbstractContextManager[None]:
    return _again(stage, "collection of metrics", 0.02, stage.telemetry.collect)


def _disposes(stage: Stage) -> contextlib.AbstractContextManager[None]:
    disposable = [driver for driver in stage.drivers if Feature.DISPOSE in driver.features]

    def dispose() -> None:
        if disposable:
            stage.draw.choice(disposable).dispose()

    return _again(stage, "dispose", 0.1, dispose)


class _Makes(logging.Handler):
    # A handler of the application's that makes an engine, and uses it.
    def emit(self, record: logging.LogRecord) -> None:
        engine = sqlalchemy.create_engine(**SQLITE)
        engine.raw_connection().close()
        engine.dispose()


def _handlers(stage: Stage) -> contextlib.AbstractContextManager[None]:
    # Its lines do not go to standard error: where that is stuck, whoever writes to it is, bare as well.
    application, ours = logging.getLogger("soak"), logging.getLogger("poolscope")
    application.propagate = False
    handler = _Makes()

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        for logger in (application, ours):
            logger.addHandler(handler)
        try:
            with _again(stage, "log handler that uses a pool", 0.05, lambda: application.warning("a line")):
                yield
        finally:
            for logger in (application, ours):
                logger.removeHandler(handler)

    return during()


def _pools(stage: Stage) -> contextlib.AbstractContextManager[None]:
    def make() -> None:
        engine = sqlalchemy.create_engine(**SQLITE, pool_logging_name=f"new {stage.draw.random()}")
        engine.raw_connection().close()

    return _again(stage, "new pool", 0.02, make)


def _statements(stage: Stage) -> contextlib.AbstractContextManager[None]:
    engine = sqlalchemy.create_engine(**SQLITE)

    def run() -> None:
        with engine.connect() as connection:
            name = f"c{stage.draw.randrange(10**9)}"
            connection.exec_driver_sql(f"select '{'x' * stage.draw.randrange(5000)}' as {name} -- {name}")

    @contextlib.contextmanager
    def during() -> Iterator[None]:
        with _again(stage, "new statement", 0.005, run):
            yield
        engine.dispose()

    return during()


@contextlib.contextmanager
def _no_folder(stage: Stage) -> Iterator[None]:
    stage.struck("working directory is gone")
    before = Path.cwd()
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    Path(folder).rmdir()
    try:
        yield
    finally:
        os.chdir(before)


FAULTS: Final = (
    Fault("start and stop", _toggles, exact=False),
    Fault("fork", _forks),
    Fault("interrupt", _interrupts, exact=False),
    Fault("exporters hang", _exporters("hangs")),
    Fault("exporters refuse", _exporters("refuses")),
    Fault("exporters are slow", _exporters("is_slow")),
    Fault("standard error is stuck", _full_pipe),
    Fault("no further thread", _no_threads, exact=False),
    Fault("an error of ours", _ours_fails, exact=False, within_limit=False),
    Fault("server closes connections", _kills),
    Fault("garbage collection", _collections),
    Fault("collection of metrics", _reads),
    Fault("dispose", _disposes, within_limit=False),
    Fault("log handler that uses a pool", _handlers),
    Fault("new pool", _pools),
    Fault("new statement", _statements),
    Fault("working directory is gone", _no_folder),
)
