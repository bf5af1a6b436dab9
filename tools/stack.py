"""
The whole pipeline on this machine without Docker, with the shop sending into it: ``make stack``.

PostgreSQL, the Collector, Prometheus and Alertmanager run as child processes on the loopback address, the dashboards'
page beside them, and customers come to the shop until Ctrl-C. Tempo and Grafana are left out: kept traces go into a
file, and the page draws the dashboards with Grafana's own components. What is not installed is left out and named.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.error import HTTPError
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from examples.lab import pipeline
from examples.lab.customers import SHIFT_SECONDS, Ticker
from examples.lab.pipeline import (
    CONFIG,
    ROOT,
    Addresses,
    Alertmanager,
    Collector,
    MissingBinaryError,
    Prometheus,
    alertmanager_binary,
)
from examples.lab.postgres import Postgres, postgres
from examples.lab.processes import LOOPBACK, ChildFailedError, free_port, survive_interrupt
from examples.lab.shop import FRAMEWORKS, database, payments, shop
from examples.lab.webhook import Webhook, line, webhook
from examples.shop.traffic import Traffic
from grafana.pictures import serve
from tools import pipeline_build

if TYPE_CHECKING:
    from collections.abc import Iterator

RULES: Final = ROOT / "grafana" / "generated" / "alerts" / "prometheus.yaml"
# Connections are recycled so young that a shift of customers sees it happen.
POOL: Final = {"SHOP_POOL_SIZE": "10", "SHOP_MAX_OVERFLOW": "5", "SHOP_POOL_TIMEOUT": "1.0", "SHOP_POOL_RECYCLE": "30"}
SCRAPE_SECONDS: Final = 5


@dataclass
class Stack:
    """
    What runs, and where a person looks.

    Args:
        folder: For everything that is written.
        running: Ends all of it, the last first.
        links: Addresses by what they show.
        left_out: What is not here, and how to get it.
    """

    folder: Path
    running: contextlib.ExitStack
    links: dict[str, str]
    left_out: list[str]


def main() -> int:
    """
    Run the stack until Ctrl-C, or for a time.

    Returns:
        The exit code: 0 after Ctrl-C or the time, 1 when something failed.
    """
    parser = argparse.ArgumentParser(prog="stack", description="The pipeline without Docker, the shop sending into it.")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end by itself after this time")
    parser.add_argument("--framework", choices=FRAMEWORKS, default="flask", help="what the shop is written in")
    parser.add_argument("--no-pages", action="store_true", help="do not build and serve the dashboards' page")
    arguments = parser.parse_args()
    # A polite kill takes the same way out as Ctrl-C, which a shell lets its background jobs ignore.
    for request in (signal.SIGINT, signal.SIGTERM):
        signal.signal(request, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="poolscope-stack-") as folder, contextlib.ExitStack() as running:
            run(Stack(Path(folder), running, {}, []), arguments)
    except KeyboardInterrupt:
        survive_interrupt()
        say("Stopped; nothing is left running.")
    except (ChildFailedError, MissingBinaryError, pipeline_build.BuildError, OSError) as error:
        say(f"The stack failed: {error}")
        return 1
    return 0


def run(stack: Stack, arguments: argparse.Namespace) -> None:
    """Build what is missing, start everything, tell where to look, and send customers."""
    build(stack)
    with step("PostgreSQL"):
        server = stack.running.enter_context(postgres(variable="DEMO_DSN"))
        filled = stack.running.enter_context(database(server))
        role = monitoring_role(stack, server)
    pages = free_port()
    with step("Collector"):
        collector = start_collector(stack, role)
    start_prometheus(stack, collector, start_alerting(stack), pages)
    if not arguments.no_pages:
        start_pages(stack, pages)
    payment_url = stack.running.enter_context(payments())
    tell(stack)
    asyncio.run(customers(collector, filled, payment_url, arguments))


def build(stack: Stack) -> None:
    """Build the Collector and Prometheus where that is not done; without Go only an installed Prometheus serves."""
    found = pipeline_build.find_binaries()
    if found.collector is None:
        say("The Collector is built now, once; that takes some ten minutes.")
        pipeline_build.build_collector()
    if found.prometheus is None:
        try:
            pipeline_build.build_prometheus()
        except pipeline_build.BuildError as error:
            stack.left_out.append(f"Prometheus 3: {error}")


def monitoring_role(stack: Stack, server: Postgres) -> Postgres:
    """
    The login by which the Collector looks at the server: the committed role on the embedded server,
    else the DSN's own.
    """
    if server.child is None:
        stack.left_out.append("the monitoring role: the Collector uses the login of DEMO_DSN (monitoring-role.sql)")
        return server
    return pipeline.monitoring_role(server, secrets.token_hex())


def start_collector(stack: Stack, role: Postgres) -> Collector:
    """The Collector with the committed file, kept traces in a file."""
    env = {
        "POOLSCOPE_PG_HOST": role.host,
        "POOLSCOPE_PG_PORT": str(role.port),
        "POOLSCOPE_PG_USERNAME": role.user,
        "POOLSCOPE_PG_PASSWORD": role.password,
        "POOLSCOPE_PG_DATABASE": role.database,
        "POOLSCOPE_PG_INTERVAL": f"{SCRAPE_SECONDS}s",
        "POOLSCOPE_FLUSH_INTERVAL": f"{SCRAPE_SECONDS}s",
        "POOLSCOPE_SERIES_EXPIRE": "30s",
        "POOLSCOPE_DECISION_WAIT_AFTER_ROOT": "1s",
    }
    if role.user != pipeline.MONITOR:  # the login of DEMO_DSN: the script did not run there
        env["POOLSCOPE_PG_SESSIONS"] = "pg_stat_activity"
    files = (CONFIG / "collector.yaml", CONFIG / "without-trace-store.yaml")
    collector = stack.running.enter_context(Collector(stack.folder / "collector", *files, env=env))
    stack.links["OTLP/HTTP, for your own service"] = collector.otlp
    stack.links["series as the Collector serves them"] = f"http://{collector.address('processes')}/metrics"
    stack.links["kept traces (OTLP JSON lines)"] = str(collector.folder / "traces.jsonl")
    stack.left_out.append("Tempo: kept traces go into a file")
    return collector


def start_alerting(stack: Stack) -> str:
    """
    Alertmanager and a webhook that prints what arrives.

    Returns:
        Alertmanager's address; empty where it is not installed.
    """
    try:
        alertmanager_binary()
    except MissingBinaryError as missing:
        stack.left_out.append(str(missing))
        return ""
    hook: Webhook = stack.running.enter_context(webhook(lambda alert: say(f"ALERT {line(alert)}")))
    with step("Alertmanager"):
        manager = stack.running.enter_context(Alertmanager(stack.folder / "alertmanager", hook.url, patience="5s"))
    stack.links["Alertmanager"] = f"http://{manager.address}"
    return manager.address


def start_prometheus(stack: Stack, collector: Collector, alertmanager: str, pages: int) -> None:
    """Prometheus 3 as built here; beside it Debian's, for its pages, where that is installed."""
    address = f"http://{LOOPBACK}:{pages}"
    jobs = {
        "poolscope-processes": collector.address("processes"),
        "poolscope-counted": collector.address("counted"),
        "poolscope-collector": collector.address("self"),
    }
    addresses = Addresses(jobs, alertmanager, address, f"{address}{serve.DOCS_PREFIX.rstrip('/')}")
    interval = f"{SCRAPE_SECONDS}s"
    built, installed = pipeline_build.find_binaries().prometheus, shutil.which("prometheus")
    if built:
        with step("Prometheus"):
            main_one = Prometheus(stack.folder / "prometheus", addresses, [RULES], interval=interval)
            stack.running.enter_context(main_one)
        stack.links["Prometheus API"] = f"{main_one.url}/api/v1/query?query=up"
        stack.links["source of the dashboards"] = main_one.url
        addresses = Addresses(jobs, "", address, addresses.docs)
    if installed:
        with step("Prometheus with web pages"):
            folder, binary = stack.folder / "prometheus-pages", Path(installed)
            second = Prometheus(folder, addresses, [RULES], interval=interval, binary=binary)
            stack.running.enter_context(second)
        stack.links["Prometheus, alerts"] = alerts_page(second.url)
        stack.links.setdefault("source of the dashboards", second.url)
    else:
        stack.left_out.append("Prometheus's web pages: apt-get install prometheus")
    if not built and not installed:
        raise MissingBinaryError("no Prometheus: install Go (`make pipeline-build`) or apt-get install prometheus")


def alerts_page(url: str) -> str:
    """
    The address of a Prometheus's alerts. Debian's package has the older pages only, below ``/classic``.

    Args:
        url: The server's.
    """
    page = f"{url}/alerts"
    try:
        with urlopen(page, timeout=10):  # noqa: S310 - the address is our own
            return page
    except HTTPError:
        return f"{url}/classic/alerts"


def start_pages(stack: Stack, port: int) -> None:
    """The dashboards, drawn in the browser by Grafana's own components."""
    if shutil.which("node") is None:
        stack.left_out.append("the dashboards' page: install Node.js")
        return
    try:
        with step("Dashboards"):
            source = stack.links["source of the dashboards"]
            pages = serve.start(source, port, scrape_seconds=SCRAPE_SECONDS)
    except subprocess.CalledProcessError as error:
        stack.left_out.append(f"the dashboards' page: {error}")
        return
    stack.running.callback(pages.close)
    stack.links = {"DASHBOARDS": pages.url, **stack.links}
    stack.left_out.append("Grafana: the dashboards are drawn with @grafana/ui")


def tell(stack: Stack) -> None:
    """Say where to look and what is missing."""
    stack.links.pop("source of the dashboards", None)
    width = max(map(len, stack.links))
    say("")
    for what, address in stack.links.items():
        say(f"  {what:<{width}}  {address}")
    say("")
    for what in stack.left_out:
        say(f"  left out: {what}")
    say("\nCustomers are coming. First alerts within two minutes. Ctrl-C ends everything.")


async def customers(collector: Collector, filled: Postgres, payment_url: str, arguments: argparse.Namespace) -> None:
    """Send customers, and start the shop anew after each shift: it leaks, and its operators would do the same."""
    ends = time.monotonic() + arguments.seconds
    settings = {
        **POOL,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.otlp,
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_METRICS_EXPORTER": "otlp",
        "OTEL_LOGS_EXPORTER": "otlp",
    }
    shift = 0
    while (left := ends - time.monotonic()) > 0:
        shift += 1
        with shop(arguments.framework, filled, payment_url, settings) as running:
            say(f"Shift {shift}: the shop ({arguments.framework}) at {running.address}, a pool of 10 + 5 connections")
            await Traffic(running.address, min(SHIFT_SECONDS, left), seed=shift).run(Ticker(shift))


@contextlib.contextmanager
def step(what: str) -> Iterator[None]:
    """Say what is waited for, every few seconds while it lasts, and how long it took."""
    begun = time.monotonic()
    done = threading.Event()

    def remind() -> None:
        while not done.wait(5):
            say(f"{what}: still starting, {time.monotonic() - begun:.0f} s")

    say(f"{what}: starting")
    reminder = threading.Thread(target=remind, name="progress", daemon=True)
    reminder.start()
    try:
        yield
    finally:
        done.set()
        reminder.join()
    say(f"{what}: ready after {time.monotonic() - begun:.1f} s")


def say(text: Any) -> None:  # noqa: ANN401 - what print takes
    """Print one line at once."""
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
