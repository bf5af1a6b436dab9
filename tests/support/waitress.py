"""Waitress in a thread."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import waitress

if TYPE_CHECKING:
    from collections.abc import Iterator

PATIENCE = 10.0  # seconds


@contextmanager
def serving(application: Any, threads: int) -> Iterator[int]:
    """
    A WSGI application on a free port of the loopback address.

    Args:
        application: What to serve.
        threads: How many requests at a time.

    Yields:
        The port.
    """
    server = waitress.create_server(application, host="127.0.0.1", port=0, threads=threads)
    loop = threading.Thread(target=server.run, daemon=True)
    loop.start()
    try:
        yield server.effective_port
    finally:
        server.task_dispatcher.shutdown()
        # In its own thread: closed from another one, what it is about to wait for is gone, and it ends in an error.
        server.trigger.pull_trigger(server.close)
        loop.join(PATIENCE)
