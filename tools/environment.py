"""
Makes `.venv` what the lock says, in place: the environment of every other command.

Runs before anything is installed, so it needs the standard library alone. pip installs uv at the locked version, uv
does the rest: everything in `requirements/dev.lock` by hash, then poolscope itself, editable.

Usage:
    python tools/environment.py           make or update .venv
    python tools/environment.py --lock    resolve pyproject.toml anew into requirements/*.lock (--upgrade: the newest)
    python tools/environment.py --check   fail when a lock no longer fits pyproject.toml
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
PYPROJECT = ROOT / "pyproject.toml"
LOCK = ROOT / "requirements" / "dev.lock"
UV_LOCK = ROOT / "requirements" / "uv.lock"
#: What the image of the demo installs: the versions of `LOCK`, and what builds poolscope.
IMAGE_LOCK = ROOT / "requirements" / "image.lock"
FINGERPRINT = re.compile(r"^# pyproject: (\w+)$", re.MULTILINE)


def main() -> int:
    """
    Run the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--lock", action="store_true", help="resolve anew")
    parser.add_argument("--upgrade", action="store_true", help="with --lock: the newest versions instead of the locked")
    parser.add_argument("--check", action="store_true", help="only say whether the lock fits pyproject.toml")
    options = parser.parse_args()
    if options.check:
        return _check()
    try:
        _bootstrap()
        if options.lock:
            _lock(upgrade=options.upgrade)
        _install()
    except subprocess.CalledProcessError as error:
        print(f"failed: {' '.join(map(str, error.cmd))}", file=sys.stderr)
        return 1
    return 0


def _check() -> int:
    found = FINGERPRINT.search(LOCK.read_text()) if LOCK.exists() else None
    if found and found[1] == fingerprint(PYPROJECT.read_text()):
        return 0
    print("requirements/dev.lock does not fit the dependencies in pyproject.toml: run `make lock` and commit it")
    return 1


def _bootstrap() -> None:
    if not PYTHON.exists():
        print(f"Making .venv with Python {sys.version.split()[0]}", flush=True)
        venv.create(VENV, with_pip=True, symlinks=True)
    if UV_LOCK.exists():
        wanted = re.search(r"^uv==([\w.]+)", UV_LOCK.read_text(), re.MULTILINE)
        have = subprocess.run([PYTHON, "-m", "uv", "--version"], capture_output=True, text=True, check=False).stdout
        if wanted and wanted[1] in have.split():
            return
        source = ["--require-hashes", "-r", str(UV_LOCK)]
    else:
        source = ["uv"]
    _run(PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *source)


def _lock(*, upgrade: bool) -> None:
    LOCK.parent.mkdir(exist_ok=True)
    newest = ["--upgrade"] if upgrade else []
    _resolve(UV_LOCK, "-", *newest, stdin="uv\n")
    _resolve(LOCK, "pyproject.toml", "--extra", "all", *newest)
    same = ["--constraint", str(LOCK.relative_to(ROOT)), "--upgrade"]
    _resolve(IMAGE_LOCK, "pyproject.toml", "-", "--extra", "demo", *same, stdin="hatchling\n")
    header = "# Made by `make lock`; versions and hashes only, for every Python from 3.10.\n# pyproject: "
    LOCK.write_text(f"{header}{fingerprint(PYPROJECT.read_text())}\n{LOCK.read_text()}")


def _resolve(target: Path, *sources: str, stdin: str | None = None) -> None:
    _uv(
        "pip", "compile", *sources, "--quiet", "--universal", "--python-version", "3.10",
        "--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header",
        "--no-emit-package", "poolscope", "--output-file", str(target.relative_to(ROOT)),
        stdin=stdin,
    )  # fmt: skip


def _install() -> None:
    if _check() == 0:
        _uv("pip", "install", "--quiet", "--python", str(PYTHON), "--require-hashes", "-r", str(LOCK))
        _uv("pip", "install", "--quiet", "--python", str(PYTHON), "--no-deps", "--no-build-isolation", "-e", ".")
    else:
        print("Installing without the lock, from pyproject.toml alone", flush=True)
        _uv("pip", "install", "--quiet", "--python", str(PYTHON), "-e", ".[all]")


def fingerprint(text: str) -> str:
    """
    A hash of what a resolution depends on: the tables of dependencies, comments and layout left out.

    Args:
        text: That of pyproject.toml.

    Returns:
        16 hexadecimal digits.
    """
    tables = re.findall(r"^(?:requires-python|dependencies) = .*?(?=^\[|^\w+ = )", text, re.MULTILINE | re.DOTALL)
    tables += re.findall(r"^\[project\.optional-dependencies\]$(.*?)^\[", text, re.MULTILINE | re.DOTALL)
    lines = [line for line in "\n".join(tables).splitlines() if not line.lstrip().startswith("#")]
    essence = re.sub(r"\s+", "", "".join(lines))
    return hashlib.sha256(essence.encode()).hexdigest()[:16]


def _uv(*arguments: str, stdin: str | None = None) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
    subprocess.run([PYTHON, "-m", "uv", *arguments], cwd=ROOT, check=True, text=True, input=stdin, env=environment)


def _run(*command: str | Path) -> None:
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main())
