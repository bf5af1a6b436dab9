"""
A preloaded application for gunicorn, and gunicorn's settings: the master holds a connection when it forks.

``GET /work`` borrows a connection once, ``GET /figures`` tells what OpenTelemetry got in the worker that answers.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy

from tests.integration.programs.forking import POOL, figures
from tests.support.telemetry import Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

preload_app = True

telemetry = Telemetry()
telemetry.start()
engine = sqlalchemy.create_engine(os.environ["PREFORK_URL"], pool_size=2, max_overflow=0, pool_logging_name=POOL)
held = engine.connect()


def post_fork(server: Any, worker: Any) -> None:
    """The hook of gunicorn, in the worker: the master's connections are not the worker's."""
    engine.dispose(close=False)


def on_exit(server: Any) -> None:
    """The hook of gunicorn, in the master at its end."""
    Path(os.environ["PREFORK_MASTER"]).write_text(json.dumps(figures(telemetry)))


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """The WSGI application."""
    answer: dict[str, Any] = {"pid": os.getpid()}
    if environ["PATH_INFO"] == "/work":
        with engine.connect() as connection:
            connection.execute(sqlalchemy.text("select 1"))
    else:
        resource = telemetry.meter_provider._sdk_config.resource
        answer |= {"figures": figures(telemetry), "instance": resource.attributes.get("service.instance.id")}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
