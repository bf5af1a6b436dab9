"""Starting, whatever the application hands over."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from poolscope.core.guard import guard
from poolscope.instrumentor import PoolscopeInstrumentor


class Broken:
    """A provider that fails whatever it is asked for."""

    def _fail(self, *_: object, **__: object) -> Any:
        message = "no"
        raise RuntimeError(message)

    get_tracer = get_meter = get_logger = _fail


@pytest.mark.parametrize("provider", ["tracer_provider", "meter_provider", "logger_provider"])
def test_a_provider_that_fails_does_not_stop_the_application(provider: str, caplog: pytest.LogCaptureFixture) -> None:
    """`instrument()` and `uninstrument()` return; what failed is logged once, and counted."""
    instrumentor = PoolscopeInstrumentor()
    with caplog.at_level(logging.WARNING, "poolscope"):
        instrumentor.instrument(**{provider: Broken()})
        instrumentor.uninstrument()
    failed = [record for record in caplog.records if "poolscope caught an error of its own at" in record.getMessage()]
    # Where a pool of another test is still alive, the same place may fail twice.
    assert len(failed) == len(guard.counts()) == (provider != "logger_provider")
    guard.reset()
