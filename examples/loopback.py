"""
What a server on the loopback address needs besides that address: it answers requests to itself only.

A page from anywhere can make a browser send requests to 127.0.0.1, and can read the answers if its own name is made to
mean 127.0.0.1 (DNS rebinding). Such a request carries the page's name as its `Host`, and its origin as its `Origin`.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES: Final = ("127.0.0.1", "localhost", "[::1]")
HTTP_PORT: Final = 80
REQUEST_SECONDS: Final = 60.0
LARGEST_BODY: Final = 4_000_000  # bytes
_DIGITS: Final = re.compile(r"[0-9]{1,9}")


def refusal(
    hosts: Sequence[str], origins: Sequence[str], port: int, more_hosts: Iterable[str] = ()
) -> HTTPStatus | None:
    """
    Whether a request is for another server, or comes from a page of another one.

    Args:
        hosts: The values of its `Host` headers.
        origins: The values of its `Origin` headers.
        port: The port on which it came.
        more_hosts: What the server is called besides, ``name:port`` each.

    Returns:
        The status of the answer, 421 or 403; None for a request to take.
    """
    own = {f"{name}:{port}" for name in NAMES} | set(more_hosts)
    if port == HTTP_PORT:
        own |= set(NAMES)
    if len(hosts) != 1 or hosts[0].lower() not in own:
        return HTTPStatus.MISDIRECTED_REQUEST
    if any(origin.lower() not in {f"http://{host}" for host in own} for origin in origins):
        return HTTPStatus.FORBIDDEN
    return None


class LoopbackHandler(BaseHTTPRequestHandler):
    """
    Takes requests to itself and refuses all others before a method of a subclass runs. It logs nothing.

    Errors are one line of plain text, and every answer tells the browser not to guess, frame or share it.
    """

    #: What the server is called besides the names of the loopback address, ``name:port`` each.
    more_hosts: ClassVar[frozenset[str]] = frozenset()
    #: The policy of a page; without one, nothing in an answer runs or loads.
    policy: ClassVar[str] = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    timeout = REQUEST_SECONDS  # a client that sends nothing gives its thread back
    error_content_type = "text/plain; charset=utf-8"
    error_message_format = "%(code)d %(message)s\n"

    def parse_request(self) -> bool:
        """Read the head of a request; False once it is answered already."""
        if not super().parse_request():
            return False
        if not self.path.startswith("/"):
            self.send_error(HTTPStatus.BAD_REQUEST)
            return False
        hosts, origins = (self.headers.get_all(name, []) for name in ("Host", "Origin"))
        if refused := refusal(hosts, origins, self.connection.getsockname()[1], self.more_hosts):
            self.send_error(refused)
            return False
        return True

    def read_body(self) -> bytes | None:
        """
        The body of a request.

        Returns:
            All of it; None where it is too large or of unknown length, which is answered already.
        """
        length = self.headers.get("Content-Length", "")
        if not _DIGITS.fullmatch(length) or "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
            return None
        if int(length) > LARGEST_BODY:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            return None
        return self.rfile.read(int(length))

    def end_headers(self) -> None:
        """Add what every answer carries."""
        self.send_header("Content-Security-Policy", self.policy)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        super().end_headers()

    def version_string(self) -> str:
        """Name no versions."""
        return "poolscope"

    def log_message(self, *_arguments: object) -> None:
        """Say nothing: the terminal is for what is served."""
