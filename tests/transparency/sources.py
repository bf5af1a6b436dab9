"""Source distributions: fetched once, verified against the pinned hash, unpacked for each run."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tools.venvs import cache, environment

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.transparency.suites import Source

# Without its C and Cython parts SQLAlchemy installs in seconds. Its pools have none.
PURE_PYTHON = {"DISABLE_SQLALCHEMY_CEXT": "1"}
# What pytest and setuptools read.
FILES = ("setup.cfg", "setup.py", "pyproject.toml", "MANIFEST.in")


class WrongArchiveError(Exception):
    """An archive is not the pinned one."""


def fetch(source: Source) -> Path:
    """
    The archive, from the cache or from the package registry.

    Args:
        source: Which one.

    Returns:
        Where it is.

    Raises:
        WrongArchiveError: The file has another hash.
        subprocess.CalledProcessError: It could not be had.
    """
    folder = cache() / "transparency" / f"{source.project}-{source.version}"
    if not (found := list(folder.glob("*.tar.gz"))):
        _download(source, folder)
        found = list(folder.glob("*.tar.gz"))
    archive = found[0]
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != source.sha256:
        raise WrongArchiveError(f"{archive.name} has the SHA-256 {digest}, and {source.sha256} is pinned; remove it")
    return archive


def unpack(archive: Path, folders: Iterable[str], target: Path) -> Path:
    """
    Unpack a fresh copy of what the tests need.

    Args:
        archive: The archive.
        folders: Its top-level folders that are wanted.
        target: An empty folder.

    Returns:
        The folder that holds what the archive's only top-level folder held.
    """
    wanted = {*folders, *FILES}
    with tarfile.open(archive) as packed:
        members = [member for member in packed if (member.name.split("/", 2)[1:2] or [""])[0] in wanted]
        packed.extractall(target, members, filter="data")
    (top,) = target.iterdir()
    return top


def _download(source: Source, folder: Path) -> None:
    pip = environment(sys.executable, ["pip"])
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        pinned = Path(temporary) / "requirements.txt"
        pinned.write_text(f"{source.project}=={source.version} --hash=sha256:{source.sha256}\n")
        # Not of all: pip would also compile what the metadata is built with, for minutes.
        what = ["--no-deps", "--no-binary", source.project, "--require-hashes", "--requirement", str(pinned)]
        command = [str(pip), "-m", "pip", "download", "--quiet", *what, "--dest", temporary]
        # Its words are shown only when it fails: it also builds the metadata, at length.
        subprocess.run(command, check=True, env={**os.environ, **PURE_PYTHON}, stdout=subprocess.DEVNULL)
        for archive in Path(temporary).glob("*.tar.gz"):
            archive.rename(folder / archive.name)
