"""The shop as a process of its own, with its database and its payment provider."""

from __future__ import annotations

import contextlib
import os
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from examples.lab.processes import LOOPBACK, Child, ChildFailedError, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from examples.lab.postgres import Postgres

ROOT: Final = Path(__file__).resolve().parents[2]
START_SECONDS: Final = 180.0  # six at once on two cores, which have other work, take more than a minute
FLUSH_SECONDS: Final = 30.0
FRAMEWORKS: Final = ("flask", "fastapi", "django")
# The file exporters have no setting for a file: they write OTLP JSON lines to standard output.
TELEMETRY_TO_STDOUT: Final = {
    "OTEL_TRACES_EXPORTER": "otlp_json_file",
    "OTEL_METRICS_EXPORTER": "otlp_json_file",
    "OTEL_LOGS_EXPORTER": "otlp_json_file",
}
# Names, quick exports, and room for every span of a busy run.
QUICK: Final = {
    "OTEL_SERVICE_NAME": "shop",
    # The name under which PostgreSQL lists its connections.
    "PGAPPNAME": "shop",
    "OTEL_METRIC_EXPORT_INTERVAL": "1000",
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BSP_MAX_QUEUE_SIZE": "65536",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
    "DJANGO_SETTINGS_MODULE": "examples.shop.django_shop.settings",
}
# The shell gives way to the program (exec), so that the child's process id is the shop's.
_TO_FILE: Final = ["/bin/sh", "-c", 'file=$1; shift; exec "$@" >"$file"', "sh"]


@dataclass(frozen=True)
class Shop:
    """
    A shop that runs.

    Args:
        child: Its process.
        address: ``http://127.0.0.1:...``.
    """

    child: Child
    address: str

    def close(self) -> None:
        """
        Let it finish and flush.

        Raises:
            ChildFailedError: It did not end well.
        """
        if code := self.child.stop(grace=FLUSH_SECONDS):
            raise ChildFailedError(f"the shop ended with {code}; its log ends:\n{self.child.log_tail()}")


@contextlib.contextmanager
def database(server: Postgres) -> Iterator[Postgres]:
    """A database with the shop's rows on a server, gone afterwards."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    made = server.create_database(name)
    try:
        environment = {**os.environ, "SHOP_DSN": made.dsn}
        with Child([sys.executable, "-m", "examples.shop.seed"], env=environment, cwd=ROOT) as seed:
            if seed.wait(START_SECONDS):
                raise ChildFailedError(f"the database was not filled:\n{seed.log_tail()}")
        yield made
    finally:
        server.drop_database(name)


@contextlib.contextmanager
def payments(seconds: float = 0.7) -> Iterator[str]:
    """
    The payment provider.

    Args:
        seconds: What each charge takes.

    Yields:
        Its address.
    """
    port = free_port()
    command = [sys.executable, "-m", "examples.shop.payments", "--port", str(port), "--seconds", str(seconds)]
    with Child(command, cwd=ROOT) as provider:
        provider.wait_ready(lambda: listens(port), START_SECONDS)
        yield f"http://{LOOPBACK}:{port}/charge"


@contextlib.contextmanager
def shop(
    framework: str,
    database: Postgres,
    payment_url: str,
    settings: Mapping[str, str] | None = None,
    telemetry: Path | None = None,
) -> Iterator[Shop]:
    """
    The shop, not one line of it changed, under ``opentelemetry-instrument``.

    Args:
        framework: One of `FRAMEWORKS`.
        database: Made by `database`.
        payment_url: Yielded by `payments`.
        settings: Environment variables, the shop's (``SHOP_...``) and OpenTelemetry's.
        telemetry: The file for OTLP JSON lines; without it `settings` say where telemetry goes.
    """
    port = free_port()
    instrument = Path(sys.executable).parent / "opentelemetry-instrument"
    command: list[str | Path] = [instrument, sys.executable, "-m", "examples.shop", framework, "--port", str(port)]
    environment = {**os.environ, "SHOP_DSN": database.dsn, "SHOP_PAYMENT_URL": payment_url, **QUICK, **(settings or {})}
    if telemetry is not None:
        command = [*_TO_FILE, telemetry, *command]
        environment |= TELEMETRY_TO_STDOUT
    with Child(command, env=environment, cwd=ROOT) as child:
        child.wait_ready(lambda: listens(port), START_SECONDS)
        yield Shop(child, f"http://{LOOPBACK}:{port}")
