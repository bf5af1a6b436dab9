"""A Redis of a test's own."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from examples.lab.processes import Child, free_port, listens
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def redis_server() -> Iterator[str]:
    """
    Start one on a free port, which keeps nothing on disk; skip where the program is missing.

    Yields:
        Its address.
    """
    program = shutil.which("redis-server")
    require(program, "redis-server missing", "apt-get install redis-server")
    port = free_port()
    command = [str(program), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with Child(command) as server:
        server.wait_ready(lambda: listens(port), 20)
        yield f"redis://127.0.0.1:{port}/0"
