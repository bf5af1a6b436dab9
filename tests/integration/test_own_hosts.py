"""Servers on the loopback address answer requests to themselves only: no page from elsewhere reads or changes them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, NamedTuple

import pytest

from examples.lab import shop as lab
from examples.lab.postgres import Postgres
from examples.lab.processes import LOOPBACK, Child, free_port, listens
from examples.lab.webhook import webhook
from examples.loopback import LARGEST_BODY, NAMES
from examples.shop.payments import Provider
from grafana.pictures import draw, serve
from tests.support.skips import require

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)

WAIT_SECONDS = 30
SECRET = "not to be read"
#: What a rebound name, a page of another server or a program that guesses sends; `{port}` is the server's own.
FOREIGN_HOSTS = (
    "attacker.example", "attacker.example:{port}", "127.0.0.1.attacker.example:{port}", "127.0.0.1:1", "127.0.0.1", "",
    "127.0.0.2:{port}", "0.0.0.0:{port}", "[::]:{port}", "localhost.:{port}", "attacker.example@127.0.0.1:{port}",
    "127.0.0.1:{port}, attacker.example", "127.0.0.1:{port}/", "2130706433:{port}", "127.1:{port}",
)  # fmt: skip
FOREIGN_ORIGINS = (
    "http://attacker.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://127.0.0.1",
    "http://127.0.0.1:{port}.attacker.example", "",
)  # fmt: skip


#: Hooks of servers, and no servers.
HOOKED = {"src/poolscope/core/origin.py", "src/poolscope/frameworks/servers.py"}


class Answer(NamedTuple):
    """What a server answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Target(NamedTuple):
    """
    A server, and a request that it takes.

    Args:
        port: On the loopback address.
        method: Of the request.
        path: Of the request.
        body: Of the request.
        taken: The status of an answer that is no refusal.
    """

    port: int
    method: str
    path: str
    body: bytes = b""
    taken: int = 200

    def ask(self, host: str | None = None, origin: str | None = None) -> Answer:
        """The answer to that request, with these headers; `{port}` in them is the server's."""
        lines = [
            f"{self.method} {self.path} HTTP/1.1",
            f"Host: {NAMES[0]}:{self.port}" if host is None else f"Host: {host}",
        ]
        lines += [] if origin is None else [f"Origin: {origin}"]
        lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return raw(self.port, "\r\n".join([*lines, "", ""]).format(port=self.port).encode() + self.body)


def raw(port: int, request: bytes) -> Answer:
    """What a server answers to these bytes, in an ASCII head and a body."""
    with socket.create_connection((LOOPBACK, port), timeout=WAIT_SECONDS) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection, method=request.split(b" ", 1)[0].decode())
        answer.begin()
        return Answer(answer.status, dict(answer.headers.items()), answer.read())


@pytest.fixture(scope="module")
def boards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of dashboards, beside a file that is none."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "secret.json").write_text(SECRET)
    (folder / "boards").mkdir()
    (folder / "boards" / f"{serve.FIRST}.json").write_text(json.dumps({"uid": serve.FIRST, "title": "Fleet"}))
    (folder / "boards" / "link.json").symlink_to(folder / "secret.json")
    (folder / "boards" / "folder").mkdir()
    return folder / "boards"


@pytest.fixture(scope="module")
def page(boards: Path) -> Iterator[Target]:
    """The dashboards' page, without a Prometheus."""
    server = serve.PageServer(serve.Source("http://127.0.0.1:9", dashboards=boards))
    yield Target(int(server.url.rpartition(":")[2]), "GET", "/settings.json")
    server.close()


@pytest.fixture(scope="module")
def hook() -> Iterator[Target]:
    """What takes alerts."""
    with webhook() as received:
        yield Target(int(received.url.rstrip("/").rpartition(":")[2]), "POST", "/", b'{"alerts": []}')


@pytest.fixture(scope="module")
def provider() -> Iterator[Target]:
    """What charges cards."""
    with Provider(0, 0.0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Target(server.server_address[1], "POST", "/charge", b"{}")  # type: ignore[arg-type]
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def shops() -> Iterator[dict[str, Target]]:
    """The shop in each framework, without a database: it answers what it takes with 404."""
    nowhere = Postgres(LOOPBACK, 9)
    with contextlib.ExitStack() as stack:
        running = {
            framework: stack.enter_context(
                lab.shop(framework, nowhere, "http://127.0.0.1:9", {"OTEL_SDK_DISABLED": "true"})
            )
            for framework in lab.FRAMEWORKS
        }
        yield {
            name: Target(int(shop.address.rpartition(":")[2]), "GET", "/nothing", taken=404)
            for name, shop in running.items()
        }


@pytest.fixture(params=["page", "hook", "provider", *lab.FRAMEWORKS])
def target(request: pytest.FixtureRequest) -> Target:
    """Each server that is ours, in turn."""
    if request.param in lab.FRAMEWORKS:
        found: Target = request.getfixturevalue("shops")[request.param]
        return found
    one: Target = request.getfixturevalue(request.param)
    return one


def test_requests_to_itself_are_answered(target: Target) -> None:
    """By each name of the loopback address, however it is written; from its own pages too."""
    for name in (*NAMES, "LocalHost"):
        assert target.ask(f"{name}:{{port}}").status == target.taken, name
        assert target.ask(f"{name}:{{port}}", f"http://{name}:{{port}}").status == target.taken, name


def test_requests_to_other_names_are_misdirected(target: Target) -> None:
    """A name that was made to mean 127.0.0.1 reads nothing: the browser sends it as the host."""
    answers = {host: target.ask(host).status for host in FOREIGN_HOSTS}
    assert {host for host, status in answers.items() if status not in {400, 421}} == set()
    assert answers["attacker.example:{port}"] == 421


def test_requests_from_other_pages_are_forbidden(target: Target) -> None:
    """A page elsewhere may send a request to 127.0.0.1 without reading the answer: it does nothing."""
    answers = {origin: target.ask(origin=origin).status for origin in FOREIGN_ORIGINS}
    assert answers == dict.fromkeys(FOREIGN_ORIGINS, 403)


def test_a_request_has_one_host_and_a_path(target: Target) -> None:
    """Neither a second `Host`, nor none, nor a whole address in the place of the path gets around the list."""
    own = f"Host: 127.0.0.1:{target.port}\r\n"
    end = f"Content-Length: {len(target.body)}\r\nConnection: close\r\n\r\n"
    for head in (
        f"{target.method} {target.path} HTTP/1.1\r\n{own}Host: attacker.example\r\n",
        f"{target.method} {target.path} HTTP/1.1\r\nHost: attacker.example\r\n{own}",
        f"{target.method} {target.path} HTTP/1.1\r\n",
        f"{target.method} {target.path} HTTP/1.0\r\n",
        f"{target.method} http://attacker.example{target.path} HTTP/1.1\r\nHost: attacker.example\r\n",
    ):
        assert raw(target.port, (head + end).encode() + target.body).status in {400, 421}, head


def test_what_is_ours_says_how_to_treat_it(page: Target, hook: Target, provider: Target) -> None:
    """Each answer, a refusal too, runs nothing from elsewhere, is framed nowhere, and names no version."""
    for target in (page, hook, provider):
        for answer in (target.ask(), target.ask("attacker.example"), target._replace(path="/nothing/%00").ask()):
            policy = answer.headers["Content-Security-Policy"]
            assert policy.startswith("default-src 'none';")
            assert "frame-ancestors 'none'" in policy
            assert "unsafe-eval" not in policy
            assert "'unsafe-inline'" not in policy.partition("style-src")[0]
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert answer.headers["Referrer-Policy"] == "no-referrer"
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Python" not in answer.headers["Server"]


@pytest.mark.parametrize(
    "path",
    [
        "/dashboards/../secret.json", "/dashboards/%2e%2e/secret.json", "/dashboards/..%2fsecret.json",
        "/dashboards//etc/passwd", "/dashboards/link.json", "/dashboards/", "/dashboards/folder", "/dashboards/.",
        "/static/../index.html", "/static/../../serve.py", "/public/poolscope/../pyproject.toml", "/public/poolscope/",
        "/public/poolscope//etc/passwd", "/public/poolscope/findings", "/dashboards/a\0b", "/dashboards/" + 5000 * "a",
        "/api/v1/status/config", "/api/v1/targets", "/api/v1/query/../status/flags", "/api/v1/label/a%2f/values",
        "/api/v1/", "/-/reload", "//etc/passwd", "/grafana", "/d",
    ],
)  # fmt: skip
def test_the_page_serves_no_other_file_and_no_folder(page: Target, path: str) -> None:
    """Nor another part of Prometheus's API; and goes on."""
    answer = page._replace(path=path).ask()
    assert answer.status in {400, 404}
    assert SECRET not in answer.body.decode()
    assert page.ask().status == 200


def test_the_page_only_answers(page: Target) -> None:
    """Nothing can be sent to it."""
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE"):
        assert page._replace(method=method).ask().status == 501, method


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("Content-Length: -1", 411),
        ("Content-Length: x", 411),
        ("Content-Length: ", 411),
        ("Transfer-Encoding: chunked", 411),
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 411),
        (f"Content-Length: {LARGEST_BODY + 1}", 413),
        (f"Content-Length: {'9' * 40}", 411),
        ("Content-Length: 3", 400),
    ],
)
def test_a_message_that_is_none_is_refused(hook: Target, head: str, status: int) -> None:
    """Too large, of unknown length, or no message of Alertmanager."""
    request = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{hook.port}\r\n{head}\r\n\r\n[1]"
    assert raw(hook.port, request.encode()).status == status
    assert hook.ask().status == 200


class Elsewhere(BaseHTTPRequestHandler):
    """A page of another server, which sends an alert to each address in its query; then says that it has."""

    def do_GET(self) -> None:
        page = b"""<script>
            const sent = new URLSearchParams(location.search).getAll('to').map((address) =>
                fetch(address, {method: 'POST', mode: 'no-cors', body: '{"alerts": [{"status": "firing"}]}'}));
            Promise.allSettled(sent).then((all) => { document.title = `sent ${all.length}`; });
        </script>"""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, *_arguments: object) -> None:
        pass


def browse(address: str, profile: Path) -> str:
    """What a real browser makes of an address; for it, attacker.example is this machine."""
    browser = next(filter(None, map(shutil.which, draw.CHROMIUMS)), None)
    require(browser, "Chromium is missing", "apt-get install chromium")
    command = [
        str(browser), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={profile}", "--host-resolver-rules=MAP attacker.example 127.0.0.1",
        "--virtual-time-budget=20000", "--dump-dom", address,
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def test_a_browser_reads_nothing_by_a_name_that_means_this_machine(page: Target, tmp_path: Path) -> None:
    """DNS rebinding with a real browser: what it reads by the address it does not by the name."""
    assert "scrapeSeconds" in browse(f"http://127.0.0.1:{page.port}/settings.json", tmp_path)
    text = browse(f"http://attacker.example:{page.port}/settings.json", tmp_path)
    assert "421" in text
    assert "scrapeSeconds" not in text


def test_a_page_elsewhere_sends_no_alert(tmp_path: Path) -> None:
    """A real browser sends what the page tells it to; the receiver takes none of it."""
    with webhook() as received, ThreadingHTTPServer((LOOPBACK, 0), Elsewhere) as elsewhere:
        thread = threading.Thread(target=elsewhere.serve_forever)
        thread.start()
        try:
            to = f"to={received.url}&to={received.url.replace('127.0.0.1', 'localhost')}"
            text = browse(f"http://attacker.example:{elsewhere.server_port}/?{to}", tmp_path)
        finally:
            elsewhere.shutdown()
            thread.join()
        assert "<title>sent 2</title>" in text
        assert received.alerts == []


def test_other_machines_send_alerts_by_the_name_that_they_are_given() -> None:
    """As in docker-compose.yml, where the receiver is called `webhook`."""
    port = free_port()
    command = [sys.executable, "-m", "examples.lab.webhook", "--port", str(port), "--name", "webhook"]
    with Child(command, cwd=lab.ROOT) as child:
        child.wait_ready(lambda: listens(port), WAIT_SECONDS)
        target = Target(port, "POST", "/", b'{"alerts": []}')
        assert target.ask("webhook:{port}").status == 200
        assert target.ask("127.0.0.1:{port}").status == 200
        assert target.ask("other:{port}").status == 421


def test_every_server_here_does_so() -> None:
    """No other file begins an HTTP server; a new one derives from `LoopbackHandler`, or is tried above."""
    begins = re.compile(
        r"\b(?:BaseHTTPRequestHandler|SimpleHTTPRequestHandler|make_server|uvicorn\.run|waitress\.serve)\b"
    )
    sources = [
        path
        for folder in ("src", "examples", "grafana", "tools", "benchmarks")
        for path in (lab.ROOT / folder).rglob("*.py")
    ]
    found = {str(path.relative_to(lab.ROOT)) for path in sources if begins.search(path.read_text(encoding="utf-8"))}
    assert found - HOOKED == {"examples/loopback.py", "examples/shop/__main__.py"}
