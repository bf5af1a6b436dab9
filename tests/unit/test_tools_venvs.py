"""Environments by what is in them, from an index of our own, and the moment that newest is of."""

from __future__ import annotations

import http.server
import io
import json
import subprocess
import sys
import threading
import zipfile
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest

from tools import venvs
from tools.venvs import environment, stale_as_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

AS_OF = "2026-01-02T00:00:00Z"
RELEASES = {"1.0": "2026-01-01T00:00:00Z", "2.0": "2026-01-03T00:00:00Z"}
VERSION = "from importlib.metadata import version; print(version('tiny'))"


def wheel(version: str) -> bytes:
    """A distribution with nothing in it."""
    made = io.BytesIO()
    info = f"tiny-{version}.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: tiny\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: tests\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return made.getvalue()


@pytest.fixture(params=[True, False], ids=["knows-when", "knows-not-when"])
def dated(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """An index of two releases, the only one there is; whether it says when they were made."""
    files = {f"tiny-{version}-py3-none-any.whl": wheel(version) for version in RELEASES}
    entries: list[dict[str, Any]] = [{"filename": name, "url": f"/{name}", "hashes": {}} for name in files]
    if request.param:
        for entry, moment in zip(entries, RELEASES.values(), strict=True):
            entry["upload-time"] = moment
    page = json.dumps({"meta": {"api-version": "1.1"}, "name": "tiny", "versions": list(RELEASES), "files": entries})

    class Index(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.wfile.write(self._head())

        def do_HEAD(self) -> None:
            self._head()

        def _head(self) -> bytes:
            found = files.get(self.path[1:])
            body = found or page.encode()
            self.send_response(200 if found or self.path == "/tests/tiny/" else 404)
            self.send_header("Content-Type", "application/zip" if found else "application/vnd.pypi.simple.v1+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            return body

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base = f"http://127.0.0.1:{server.server_port}/tests"
        for name in ("UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_INDEX", "UV_FIND_LINKS"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("UV_DEFAULT_INDEX", base)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
        monkeypatch.setenv("POOLSCOPE_CACHE", str(tmp_path / "cache"))
        yield request.param
        server.shutdown()


def test_newest_is_as_of_a_moment(dated: bool) -> None:
    """
    What was released later is not taken, unless whatever there is now is asked for, or the index
    does not know when.
    """
    taken = [
        subprocess.run([python, "-c", VERSION], capture_output=True, text=True, check=True).stdout.strip()
        for python in (environment(sys.executable, ["tiny"], as_of=moment) for moment in (AS_OF, None))
    ]
    assert taken == ["1.0" if dated else "2.0", "2.0"]


def test_what_is_not_to_be_had_is_an_error(dated: bool, capfd: pytest.CaptureFixture[str]) -> None:
    """With uv's own words, and no environment that looks complete."""
    for moment in (AS_OF, None):
        with pytest.raises(subprocess.CalledProcessError):
            environment(sys.executable, ["tiny==3.0"], as_of=moment)
        assert "tiny==3.0" in capfd.readouterr().err


def test_a_moment_long_ago_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Newest may be 60 days old, in any time zone; after that a sentence says how old it is and what to run."""
    monkeypatch.setattr(venvs, "AS_OF", "2026-01-02T03:04:05Z")
    last = datetime(2026, 3, 3, 3, 4, 5, tzinfo=timezone.utc)
    assert stale_as_of(last) == stale_as_of(last.astimezone(timezone(timedelta(hours=5)))) == ""
    run = "run `make matrix ARGS=--latest`, and set it to the line that this prints"
    told = f"AS_OF in tools/venvs.py is {{}} days old: {run}"
    assert stale_as_of(last + timedelta(seconds=1)) == told.format(60)
    assert stale_as_of(last + timedelta(days=40)) == told.format(100)


def test_the_moment_is_one() -> None:
    """The moment in the tool is of the form that the matrix prints, and not yet stale when it begins."""
    moment = datetime.strptime(f"{venvs.AS_OF}+0000", f"{venvs.MOMENT}%z")
    assert stale_as_of(moment) == ""


def test_free_threaded_builds_are_found_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From uv and from pyenv; the usual builds are not among them, nor they among those."""
    listed = [
        {"implementation": "cpython", "version": "3.13.2", "path": "usual", "variant": "default"},
        {"implementation": "cpython", "version": "3.14.1", "path": "free", "variant": "freethreaded"},
        {"implementation": "pypy", "version": "3.11.1", "path": "other", "variant": "default"},
    ]
    monkeypatch.setattr(venvs, "_uv", lambda *_: json.dumps(listed))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    for name in ("3.12.1", "3.13.9t"):
        (tmp_path / "versions" / name).mkdir(parents=True)
    assert [one.minor for one in venvs.interpreters()] == ["3.12", "3.13"]
    assert [(one.minor, one.version) for one in venvs.interpreters(free_threaded=True)] == [
        ("3.13t", (3, 13, 9)),
        ("3.14t", (3, 14, 1)),
    ]
