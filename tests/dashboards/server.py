"""
A real Prometheus that serves a made-up story.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tools.pipeline_build import find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.dashboards.recorder import Recorder

READY_WITHIN = 60.0


class MissingError(Exception):
    """
    Neither the built Prometheus nor one on PATH is there.
    """


def programs() -> tuple[str, str]:
    """
    Prometheus and promtool: those of `make pipeline-build`, else those on PATH.

    Raises:
        MissingError: There is neither.
    """
    built = find_binaries()
    server = str(built.prometheus or shutil.which("prometheus") or "")
    tool = str(built.promtool or shutil.which("promtool") or "")
    if not server or not tool:
        raise MissingError("no Prometheus: run `make pipeline-build`, or install your system's package `prometheus`")
    return server, tool


@contextmanager
def serving(recorder: Recorder, folder: Path) -> Iterator[str]:
    """
    Serve the story until the block ends.

    Args:
        recorder: The story.
        folder: An empty folder for the samples and the database.

    Yields:
        The address of Prometheus.
    """
    server, tool = programs()
    samples, data = folder / "samples.txt", folder / "data"
    with samples.open("w") as file:
        file.writelines(recorder.openmetrics())
    command = [tool, "tsdb", "create-blocks-from", "openmetrics", str(samples), str(data)]
    subprocess.run(command, check=True, capture_output=True)
    samples.unlink()
    (folder / "prometheus.yml").write_text("global: {scrape_interval: 15s}\n")
    port = _free_port()
    arguments = [
        f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=3650d",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("w") as log:
        process = subprocess.Popen([server, *arguments], stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_WITHIN
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"Prometheus ended with {process.returncode}; see prometheus.log beside its data")
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=1):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"Prometheus was not ready within {READY_WITHIN:.0f} s")
