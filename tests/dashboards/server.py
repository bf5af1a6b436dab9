"""A real Prometheus that serves a made-up story."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from examples.lab.processes import LOOPBACK, Child, answers, free_port
from tools.pipeline_build import find_binaries

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.dashboards.recorder import Recorder

READY_WITHIN = 60.0


class MissingError(Exception):
    """Neither the built Prometheus nor one on PATH is there."""


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
    port = free_port()
    command = [
        server, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={data}",
        f"--web.listen-address={LOOPBACK}:{port}", "--storage.tsdb.retention.time=3650d",
    ]  # fmt: skip
    address = f"http://{LOOPBACK}:{port}"
    with Child(command, log=folder / "prometheus.log") as process:
        process.wait_ready(lambda: answers(f"{address}/-/ready"), READY_WITHIN)
        yield address
