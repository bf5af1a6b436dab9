"""
Serves the page that draws the dashboards live, with data from a Prometheus.

Usage:
    python grafana/pictures/serve.py --prometheus http://127.0.0.1:9090 [--port 3030]

Grafana's own component library draws the page in the browser; no Grafana server runs. The server listens on 127.0.0.1
and answers requests to that address only (`examples.loopback`), with GET, from the files of the page and of the
documentation, and with what the page asks of Prometheus.
`npm ci` and `npm run build` in this folder make the page; this module runs both if the page is missing.
"""

from __future__ import annotations

import argparse
import json
import mimetypes
import re
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fasteners import InterProcessLock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from examples.loopback import LoopbackHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent
DASHBOARDS: Final = ROOT / "grafana" / "generated" / "dashboards"
BUILD: Final = HERE / "build"
# Where links to the pages of findings lead, in Grafana and here.
DOCS_PREFIX: Final = "/public/poolscope/"
FIRST: Final = "poolscope-fleet"
ORDER: Final = (FIRST, "poolscope-pool", "poolscope-requests", "poolscope-postgresql", "poolscope-findings")
PROMETHEUS_TIMEOUT: Final = 30.0
#: What the page asks of Prometheus; dashboards need no more of its API.
ASKED: Final = re.compile(r"/api/v1/(?:query|query_range|query_exemplars|label/[A-Za-z_]\w*/values)", re.ASCII)
#: The library writes its styles into the page; scripts are files of the page alone.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self';"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Source:
    """
    Where the data comes from.

    Args:
        prometheus: The address of Prometheus, without a slash at the end.
        scrape_seconds: Its scrape interval, which sets the shortest window of a rate.
        dashboards: The folder with the dashboards' JSON.
    """

    prometheus: str
    scrape_seconds: float = 15.0
    dashboards: Path = DASHBOARDS


class PageServer:
    """
    The running server; a thread serves until `close`.

    Args:
        source: Where the data comes from.
        port: The port on 127.0.0.1; 0 for a free one.
    """

    def __init__(self, source: Source, port: int = 0) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, source))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, name="poolscope-pages", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The address of the first dashboard's page."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        """Stop serving and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start(prometheus: str, port: int = 0, *, scrape_seconds: float = 15.0, dashboards: Path = DASHBOARDS) -> PageServer:
    """
    Serve the dashboards with data of this Prometheus.

    Args:
        prometheus: Its address.
        port: The port on 127.0.0.1; 0 for a free one.
        scrape_seconds: Its scrape interval.
        dashboards: The folder with the dashboards' JSON.

    Returns:
        The running server.

    Raises:
        FileNotFoundError: The page is not built and Node.js is missing.
        subprocess.CalledProcessError: Building the page failed; npm's output is on stderr.
    """
    ensure_built()
    return PageServer(Source(prometheus.rstrip("/"), scrape_seconds, dashboards), port)


def ensure_built() -> None:
    """
    Install the page's packages and bundle the page, if it is missing or older than its sources.

    If several processes need the page at the same time, one of them makes it and the others wait.
    """
    with InterProcessLock(HERE / ".making.lock"):
        _make()


def _make() -> None:
    installed, wanted = HERE / "node_modules" / ".package-lock.json", HERE / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < wanted.stat().st_mtime:
        print("pictures: installing the page's packages (npm ci, about a minute) ...", file=sys.stderr, flush=True)
        subprocess.run(
            ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=5"], cwd=HERE, check=True
        )
        installed.touch()
    built = BUILD / "index.html"
    newest = max(path.stat().st_mtime for path in _sources())
    if not built.exists() or built.stat().st_mtime < newest:
        print("pictures: bundling the page ...", file=sys.stderr, flush=True)
        subprocess.run(["node", "build.mjs"], cwd=HERE, check=True)
        built.touch()


def _sources() -> Iterator[Path]:
    yield HERE / "build.mjs"
    yield HERE / "package-lock.json"
    yield from (path for path in (HERE / "src").rglob("*") if path.is_file())


class _Handler(LoopbackHandler):
    protocol_version = "HTTP/1.1"
    policy = POLICY

    def __init__(self, source: Source, *arguments: object) -> None:
        self._source = source
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if ASKED.fullmatch(path):
            self._prometheus()
        elif path == "/settings.json":
            self._json(_settings(self._source))
        elif path.startswith("/dashboards/"):
            self._file(self._source.dashboards, path.removeprefix("/dashboards/"))
        elif path.startswith("/static/"):
            self._file(BUILD / "static", path.removeprefix("/static/"))
        elif path.startswith(DOCS_PREFIX):
            self._file(ROOT / "docs", path.removeprefix(DOCS_PREFIX))
        elif path == "/" or path.startswith("/d/"):
            self._file(BUILD, "index.html")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"This address does not exist; see grafana/README.md.\n")

    def _prometheus(self) -> None:
        address = self._source.prometheus + self.path
        try:
            with urllib.request.urlopen(address, timeout=PROMETHEUS_TIMEOUT) as answer:  # noqa: S310 - of our caller
                self._answer(HTTPStatus(answer.status), "application/json", answer.read())
        except urllib.error.HTTPError as refusal:
            self._answer(HTTPStatus(refusal.code), "application/json", refusal.read())
        except OSError as error:
            body = json.dumps({"status": "error", "error": f"Prometheus does not answer: {error}"}).encode()
            self._answer(HTTPStatus.BAD_GATEWAY, "application/json", body)

    def _json(self, value: object) -> None:
        self._answer(HTTPStatus.OK, "application/json", json.dumps(value).encode())

    def _file(self, folder: Path, name: str) -> None:
        path = _within(folder, name)
        if path is None:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
            return
        kind = "text/plain; charset=utf-8" if path.suffix == ".md" else mimetypes.guess_type(path.name)[0]
        self._answer(HTTPStatus.OK, kind or "application/octet-stream", path.read_bytes())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _within(folder: Path, name: str) -> Path | None:
    try:
        path = (folder / name).resolve()
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, ValueError):  # a name that no file can have
        return None


def _settings(source: Source) -> dict[str, object]:
    files = [source.dashboards / f"{uid}.json" for uid in ORDER]
    models = [json.loads(path.read_text(encoding="utf-8")) for path in files if path.exists()]
    listed = [{"uid": model["uid"], "title": model["title"]} for model in models]
    return {"scrapeSeconds": source.scrape_seconds, "dashboards": listed}


def main() -> int:
    """Run the command line: serve until an interrupt."""
    parser = argparse.ArgumentParser(description="Draw the dashboards live, without a Grafana server.")
    parser.add_argument(
        "--prometheus", default="http://127.0.0.1:9090", help="address of Prometheus (default: %(default)s)"
    )
    parser.add_argument("--port", type=int, default=3030, help="port on 127.0.0.1 (default: %(default)s)")
    parser.add_argument(
        "--scrape-seconds", type=float, default=15.0, help="scrape interval of Prometheus (default: %(default)s)"
    )
    parser.add_argument("--build", action="store_true", help="only build the page, if it is missing or stale")
    options = parser.parse_args()
    if options.build:
        ensure_built()
        return 0
    server = start(options.prometheus, options.port, scrape_seconds=options.scrape_seconds)
    print(f"dashboards: {server.url}/d/{FIRST}", flush=True)
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
