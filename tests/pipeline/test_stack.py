"""The pipeline without Docker, as a person starts and stops it."""

from __future__ import annotations

import re
import signal
import sys
from typing import TYPE_CHECKING
from urllib.request import urlopen

import pytest

from examples.lab.pipeline import ROOT
from examples.lab.processes import Child, listens, wait_until

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


def test_ctrl_c_leaves_nothing_running(collector: Path, prometheus: Path, tmp_path: Path) -> None:
    """
    Each step says when it starts and when it is ready; each page that is named is there; Ctrl-C ends all of it, with
    exit code 0.
    """
    log = tmp_path / "stack.log"
    command = [sys.executable, "tools/stack.py", "--no-pages"]
    with Child(command, log=log, cwd=ROOT, stop_signal=signal.SIGINT) as stack:
        stack.wait_ready(lambda: "Shift 1: the shop" in log.read_text(), 180)
        text = log.read_text()
        for part in ("PostgreSQL", "Collector", "Prometheus"):
            assert f"{part}: starting" in text
            assert f"{part}: ready after" in text
        ports = {int(port) for port in re.findall(r"http://127\.0\.0\.1:(\d+)", text)}
        assert len(ports) >= 4
        wait_until(lambda: all(map(listens, ports)), 60, "every address that was printed")
        pages = dict(re.findall(r"^  (\S.*?) +(http://\S+)$", text, re.MULTILINE))
        assert {"Alertmanager", "Prometheus API"} <= pages.keys()
        for what, address in pages.items():
            if not what.startswith("OTLP"):  # that takes data, and has no page
                with urlopen(address, timeout=30) as page:
                    assert page.status == 200, what
        assert stack.stop(grace=60) == 0
    assert "nothing is left running" in log.read_text()
    assert [port for port in ports if listens(port)] == []
