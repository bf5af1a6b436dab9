"""
The payment provider: an outside service that takes its time.

    python -m examples.shop.payments --port 8099 --seconds 0.7
"""

from __future__ import annotations

import argparse
import json
import time
from http.server import ThreadingHTTPServer

import httpx

from examples.loopback import LoopbackHandler

_TIMEOUT_SECONDS = 10.0


class Payments:
    """
    The shop's side: cards are charged here.

    Args:
        url: The provider's address.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._client = httpx.Client(timeout=_TIMEOUT_SECONDS)
        self._async_client = httpx.AsyncClient(timeout=_TIMEOUT_SECONDS)

    def charge(self, cents: int) -> str:
        """
        Charge a card.

        Args:
            cents: The amount.

        Returns:
            The receipt's number.
        """
        return _receipt(self._client.post(self._url, json={"cents": cents}))

    async def charge_async(self, cents: int) -> str:
        """Charge a card without blocking the event loop; arguments and result as in `charge`."""
        return _receipt(await self._async_client.post(self._url, json={"cents": cents}))


def _receipt(answer: httpx.Response) -> str:
    return str(answer.raise_for_status().json()["receipt"])


class Provider(ThreadingHTTPServer):
    """
    The provider's server.

    Args:
        port: The port on 127.0.0.1.
        seconds: How long each charge takes.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, port: int, seconds: float) -> None:
        self.seconds = seconds
        super().__init__(("127.0.0.1", port), _Charge)


class _Charge(LoopbackHandler):
    server: Provider

    def do_POST(self) -> None:
        if self.read_body() is None:
            return
        time.sleep(self.server.seconds)
        body = json.dumps({"receipt": f"r-{time.monotonic_ns()}"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--seconds", type=float, default=0.7)
    arguments = parser.parse_args()
    Provider(arguments.port, arguments.seconds).serve_forever()


if __name__ == "__main__":
    main()
