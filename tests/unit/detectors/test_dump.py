"""The dump at a signal: installed on demand, in company with whoever handled the signal before."""

from __future__ import annotations

import logging
import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest

from poolscope.detectors.dump import Dump, DumpSignal
from tests.support.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the platform has no SIGUSR1")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    """The handlers that were there are there afterwards."""
    before = signal.getsignal(signal.SIGUSR1)
    yield
    signal.signal(signal.SIGUSR1, before)


def test_the_signal_writes_every_holder_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The handler only takes a note; the background thread writes, once for each signal and pool."""
    scene = Scene()
    scene.pool_registry.register(scene.pool.identity, scene.source)
    with scene.unit("GET /orders"):
        scene.checkout("orders")
        dump = Dump()
        on_signal = DumpSignal("sigusr1", dump.request)
        on_signal.install()
        with caplog.at_level(logging.WARNING, "poolscope.findings"):
            os.kill(os.getpid(), signal.SIGUSR1)
            assert caplog.messages == []
            dump.tick(scene.pool_registry.pools.values())
            dump.tick(scene.pool_registry.pools.values())
        on_signal.remove()
    first, second = caplog.messages
    assert first.startswith("pool shop: 1 in use, limit 2, 0 waiting\n  held 0 ms by http GET /orders, idle")
    assert second == "pool shop#2: 0 in use, limit 2, 0 waiting"


def test_whoever_handled_it_before_still_does() -> None:
    """After us while we are installed, and alone when we are gone."""
    told: list[str] = []
    signal.signal(signal.SIGUSR1, lambda *_: told.append("theirs"))
    dump = DumpSignal("sigusr1", lambda: told.append("ours"))
    dump.install()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert told == ["ours", "theirs"]
    dump.remove()
    dump.remove()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert told == ["ours", "theirs", "theirs"]


def test_a_handler_that_came_later_is_left_in_its_place() -> None:
    """It may call ours: nothing is taken away from under it."""
    dump = DumpSignal("sigusr1", lambda: None)
    dump.install()

    def later(*_: object) -> None:
        pass

    signal.signal(signal.SIGUSR1, later)
    dump.remove()
    assert signal.getsignal(signal.SIGUSR1) is later


def test_a_handler_that_python_does_not_know_is_replaced_by_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a C library installed cannot be put back: Python shows it as None."""
    dump = DumpSignal("sigusr1", lambda: None)
    dump.install()
    monkeypatch.setattr(dump, "_before", None)
    dump.remove()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


def test_none_by_default() -> None:
    """Without the setting no handler is touched."""
    before = signal.getsignal(signal.SIGUSR1)
    dump = DumpSignal("", lambda: None)
    dump.install()
    dump.remove()
    assert signal.getsignal(signal.SIGUSR1) is before


def test_what_cannot_be_is_said_and_not_done(caplog: pytest.LogCaptureFixture) -> None:
    """Python allows handlers in the main thread only; a platform may lack the signal."""
    before = signal.getsignal(signal.SIGUSR1)
    elsewhere = DumpSignal("sigusr1", lambda: None)
    for work in (elsewhere.install, elsewhere.remove):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(60)
    DumpSignal("sigunknown", lambda: None).install()
    assert signal.getsignal(signal.SIGUSR1) is before
    assert [message.split(" has no effect: ")[0] for message in caplog.messages] == [
        "POOLSCOPE_DUMP_SIGNAL=sigusr1",
        "POOLSCOPE_DUMP_SIGNAL=sigunknown",
    ]
