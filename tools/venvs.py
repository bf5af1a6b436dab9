"""
Virtual environments by what is in them: made once by uv, kept outside the tree, found again by a hash.

They lie in ``$POOLSCOPE_CACHE`` (else ``$XDG_CACHE_HOME/poolscope``, else ``~/.cache/poolscope``), folder ``matrix``.
The matrix, the benchmarks and the transparency runs take theirs from here.

Usage:
    python tools/venvs.py 3.11 'sqlalchemy<2.1' pytest    make it where it is not there yet; print its Python
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parent.parent
OLDEST = (3, 10)
#: "Newest" is as of this moment: a release of somebody else's fails no change of ours. `make matrix ARGS=--latest`
#: prints the line to set it anew, when all of it passed.
AS_OF = "2026-11-26T00:00:00Z"
#: How such a moment is written (RFC 3339), for strftime and strptime.
MOMENT = "%Y-%m-%dT%H:%M:%SZ"
#: The age at which it has to be set anew.
STALE = timedelta(days=60)


class Interpreter(NamedTuple):
    """
    A Python of this machine.

    Args:
        version: Major, minor and patch version.
        path: Its executable.
        free_threaded: Whether it is a build without the global interpreter lock.
    """

    version: tuple[int, int, int]
    path: Path
    free_threaded: bool = False

    @property
    def minor(self) -> str:
        """Its version as ``3.11``, or ``3.14t`` where it is free-threaded."""
        return f"{self.version[0]}.{self.version[1]}{'t' if self.free_threaded else ''}"


def interpreters(*, free_threaded: bool = False) -> list[Interpreter]:
    """
    One CPython of each minor version from 3.10 that this machine has, from PATH, pyenv and uv, oldest first.

    Nothing is downloaded. Of several patch versions the newest counts.

    Args:
        free_threaded: Whether to look for builds without the global interpreter lock, and not for the usual ones.
    """
    variant = "freethreaded" if free_threaded else "default"
    listed = json.loads(_uv("python", "list", "--only-installed", "--output-format", "json"))
    found = [(entry["version"], entry["path"]) for entry in listed if _is_cpython(entry, variant)]
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    found += [
        (folder.name.removesuffix("t"), str(folder / "bin" / "python"))
        for folder in pyenv.glob("versions/3.*")
        if folder.name.endswith("t") is free_threaded
    ]
    return [one._replace(free_threaded=free_threaded) for one in newest_of_each(found)]


def newest_of_each(found: Iterable[tuple[str, str]]) -> list[Interpreter]:
    """
    Of each minor version from 3.10 the newest patch version.

    Args:
        found: Versions and paths; versions that are not three numbers are left out.

    Returns:
        The interpreters, oldest first.
    """
    newest: dict[tuple[int, int], Interpreter] = {}
    for version, path in found:
        match = re.fullmatch(r"(\d+)\.(\d+)\.(\d+)", version)
        if not match:
            continue
        numbers = (int(match[1]), int(match[2]), int(match[3]))
        known = newest.get(numbers[:2])
        if numbers[:2] >= OLDEST and (known is None or known.version < numbers):
            newest[numbers[:2]] = Interpreter(numbers, Path(path))
    return [newest[minor] for minor in sorted(newest)]


def environment(
    python: str | Path, requirements: Sequence[str], *, resolution: str = "highest", as_of: str | None = AS_OF
) -> Path:
    """
    The Python of an environment with these packages and nothing else.

    Args:
        python: A version (``3.11``) or an executable.
        requirements: What to install, as uv understands it (``-e.[test]`` is poolscope itself); poolscope is not there
            unless it is named.
        resolution: ``highest``, or ``lowest-direct`` for the oldest versions that the requirements allow.
        as_of: Only what was released before (RFC 3339); None for whatever there is now, which is also what an index
            gives that does not know when.

    Returns:
        The path of its executable.

    Raises:
        subprocess.CalledProcessError: uv could not make it; its words are on stderr.
    """
    essence = json.dumps([str(ROOT), str(python), list(requirements), resolution, as_of, _dependencies()])
    home = cache() / "matrix" / hashlib.sha256(essence.encode()).hexdigest()[:16]
    executable = home / "bin" / "python"
    if (home / "complete").exists() and executable.exists():
        return executable
    shutil.rmtree(home, ignore_errors=True)
    prune()
    _uv("venv", "--quiet", "--python", str(python), str(home))
    install = ("pip", "install", "--quiet", "--python", str(executable), "--resolution", resolution, *requirements)
    try:
        _uv(*install, *(("--exclude-newer", as_of) if as_of else ()))
    except subprocess.CalledProcessError:
        if as_of is None:
            raise
        print(f"not to be had as of {as_of}; once more, from whatever there is now", file=sys.stderr, flush=True)
        _uv(*install)
    (home / "complete").write_text(str(ROOT))
    return executable


def stale_as_of(now: datetime) -> str:
    """
    A warning when `AS_OF` is older than 60 days.

    Args:
        now: The moment to count from, with its time zone.

    Returns:
        A sentence; empty while `AS_OF` is young enough.
    """
    age = now - datetime.strptime(f"{AS_OF}+0000", f"{MOMENT}%z")
    if age <= STALE:
        return ""
    run = "run `make matrix ARGS=--latest`, and set it to the line that this prints"
    return f"AS_OF in tools/venvs.py is {age.days} days old: {run}"


def prune() -> None:
    """Remove the environments of checkouts that are no longer there."""
    for marker in (cache() / "matrix").glob("*/complete"):
        # Another process may be doing the same.
        with contextlib.suppress(FileNotFoundError):
            if not Path(marker.read_text()).exists():
                shutil.rmtree(marker.parent, ignore_errors=True)


def cache() -> Path:
    """Where this project keeps what is dear to make."""
    if own := os.environ.get("POOLSCOPE_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "poolscope"


def _dependencies() -> str:
    return (ROOT / "pyproject.toml").read_text().partition("\n[tool.")[0]


def _is_cpython(entry: dict[str, object], variant: str) -> bool:
    return entry.get("implementation") == "cpython" and entry.get("variant", "default") == variant


def _uv(*arguments: str) -> str:
    # Outside any environment: uv would else take the one that this runs in. pyenv's shims fail for inactive versions.
    path = [folder for folder in os.environ.get("PATH", "").split(os.pathsep) if Path(folder).name != "shims"]
    variables = {**os.environ, "PATH": os.pathsep.join(path), "UV_PYTHON_DOWNLOADS": "never"}
    variables.pop("VIRTUAL_ENV", None)
    command = [sys.executable, "-m", "uv", *arguments]
    return subprocess.run(command, cwd=ROOT, env=variables, check=True, text=True, stdout=subprocess.PIPE).stdout


if __name__ == "__main__":
    print(environment(sys.argv[1], sys.argv[2:]))
