"""
The end of the alerting chain for a demo or a test: an HTTP server that keeps, and prints, what Alertmanager sends.

Run it alone with ``python -m examples.lab.webhook --port 8080``; with ``--host 0.0.0.0 --name webhook`` other machines
send to it by that name.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from examples.loopback import LoopbackHandler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass
class Webhook:
    """
    What arrived so far.

    Args:
        url: Where to send to.
        alerts: Every alert of every message, as Alertmanager sent it, oldest first.
    """

    url: str
    alerts: list[dict[str, Any]] = field(default_factory=list)

    def firing(self) -> set[str]:
        """The names of the alerts that arrived as firing."""
        return {alert["labels"]["alertname"] for alert in list(self.alerts) if alert["status"] == "firing"}


def main() -> None:
    """Serve until told to stop, one line per alert on stdout."""
    parser = argparse.ArgumentParser(description="Print the alerts that Alertmanager sends.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--name", action="append", default=[], help="what senders call this machine (repeat for more)")
    arguments = parser.parse_args()
    hosts = frozenset(f"{name}:{arguments.port}" for name in arguments.name)
    server = ThreadingHTTPServer((arguments.host, arguments.port), _handler(_print, hosts))
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever()


@contextlib.contextmanager
def webhook(echo: Callable[[dict[str, Any]], None] = lambda _alert: None) -> Iterator[Webhook]:
    """
    A receiver on a free port of the loopback address, for as long as the block runs.

    Args:
        echo: Called with each alert.

    Yields:
        What arrived so far.
    """
    received = Webhook("")

    def keep(alert: dict[str, Any]) -> None:
        received.alerts.append(alert)
        echo(alert)

    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(keep))
    received.url = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, name="webhook", daemon=True)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def line(alert: dict[str, Any]) -> str:
    """One alert as one line: status, name and what it says."""
    return f"{alert['status']:<8} {alert['labels']['alertname']:<24} {alert['annotations'].get('summary', '')}"


def _print(alert: dict[str, Any]) -> None:
    print(line(alert), flush=True)


def _handler(take: Callable[[dict[str, Any]], None], hosts: frozenset[str] = frozenset()) -> type[LoopbackHandler]:
    class Handler(LoopbackHandler):
        more_hosts = hosts

        def do_POST(self) -> None:
            """Take one message of Alertmanager."""
            if (body := self.read_body()) is None:
                return
            try:
                alerts = json.loads(body)["alerts"]
            except (ValueError, TypeError, KeyError):
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            for alert in alerts:
                take(alert)
            self.send_response(200)
            self.end_headers()

        def do_GET(self) -> None:
            """Say that it is there, for health checks."""
            self.send_response(200)
            self.end_headers()

    return Handler


if __name__ == "__main__":
    main()
