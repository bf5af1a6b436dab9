"""
A real MariaDB for the tests: private, on a free TCP port of the loopback address, in a temporary folder.

It is the system's (Debian: `mariadb-server`), started by hand with a data folder of its own. It starts in two to four
seconds.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.lab.processes import LOOPBACK, Child, ChildFailedError, free_port, identity

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "lab_user"
PASSWORD = "lab-password"  # noqa: S105 - of a server that lives as long as a test
DATABASE = "lab"
START_SECONDS = 60.0
SYSTEM_USERS = ("mysql", "nobody")


@dataclass(frozen=True)
class MariaDB:
    """
    Where a MariaDB is and how to get in.

    Args:
        host: An address.
        port: The TCP port.
        user: The user, who may do anything.
        password: Of the user.
        database: The database.
        child: The server's process.
    """

    host: str
    port: int
    user: str
    password: str
    database: str
    child: Child

    def arguments(self) -> dict[str, Any]:
        """The arguments by which drivers connect: host, port, user and password."""
        return {"host": self.host, "port": self.port, "user": self.user, "password": self.password}


def missing() -> str | None:
    """What is not installed, or None."""
    present = shutil.which("mariadbd") and shutil.which("mariadb-install-db")
    return None if present else "no MariaDB on this machine"


@contextlib.contextmanager
def mariadb(*, max_connections: int = 100) -> Iterator[MariaDB]:
    """
    A server for as long as the block runs.

    Args:
        max_connections: The most it allows.

    Yields:
        Where it is.

    Raises:
        ChildFailedError: It did not start; the message carries its log.
    """
    base = Path(tempfile.mkdtemp(prefix="poolscope-mariadb-"))
    try:
        user = _system_user()
        data, temporary = base / "data", base / "tmp"
        for folder in (data, temporary):
            folder.mkdir(mode=0o700)
            if user:
                shutil.chown(folder, user)
        if user:
            base.chmod(0o755)
        setup = base / "setup.sql"
        setup.write_text(
            f"CREATE DATABASE IF NOT EXISTS {DATABASE};\n"
            f"CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}';\n"
            f"GRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\n"
        )
        _initialise(data, temporary, user)
        port = free_port()
        child = Child(
            [
                shutil.which("mariadbd") or "mariadbd", "--no-defaults", f"--datadir={data}",
                f"--tmpdir={temporary}", f"--port={port}",
                f"--bind-address={LOOPBACK}", f"--socket={data / 'server.sock'}", f"--pid-file={data / 'server.pid'}",
                f"--max-connections={max_connections}", "--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0",
                "--innodb-buffer-pool-size=16M", "--skip-log-bin", f"--init-file={setup}",
            ],
            log=base / "mariadb.log",
            user=user,
        )  # fmt: skip
        with child:
            child.wait_ready(lambda: _greets(port), START_SECONDS)
            yield MariaDB(LOOPBACK, port, USER, PASSWORD, DATABASE, child)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _initialise(data: Path, temporary: Path, user: str | None) -> None:
    # In a folder that several share, one that starts removes the temporary tables of the others.
    command = [
        "mariadb-install-db", "--no-defaults", f"--datadir={data}", f"--tmpdir={temporary}",
        "--auth-root-authentication-method=normal", "--skip-test-db",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=data, **identity(user))
    if result.returncode:
        raise ChildFailedError(f"mariadb-install-db ended with {result.returncode}:\n{result.stdout}{result.stderr}")


def _greets(port: int) -> bool:
    # The server speaks first: its greeting shows that it accepts clients.
    with socket.socket() as probe:
        probe.settimeout(2)
        try:
            probe.connect((LOOPBACK, port))
            return len(probe.recv(4)) == 4  # noqa: PLR2004 - a packet's header
        except OSError:
            return False


def _system_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ChildFailedError(f"MariaDB does not run as root, and none of the users {SYSTEM_USERS} exists")
