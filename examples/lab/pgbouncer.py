"""A PgBouncer before a PostgreSQL, for the tests: the system's program (Debian: `pgbouncer`) on a free port."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg

from examples.lab.processes import LOOPBACK, Child, ChildFailedError, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

START_SECONDS = 20.0
SYSTEM_USERS = ("postgres", "nobody")


def missing() -> str | None:
    """What is not installed, or None."""
    return None if _program() else "no PgBouncer on this machine"


@contextlib.contextmanager
def pgbouncer(server: Postgres, *, pool_size: int, pool_mode: str = "transaction") -> Iterator[Postgres]:
    """
    A PgBouncer for as long as the block runs.

    Args:
        server: The PostgreSQL behind it, which trusts who comes from this machine.
        pool_size: The most connections that it keeps to the server.
        pool_mode: ``session``, ``transaction`` or ``statement``.

    Yields:
        The same database, by way of PgBouncer.

    Raises:
        ChildFailedError: It did not start; the message carries its log.
    """
    base = Path(tempfile.mkdtemp(prefix="poolscope-pgbouncer-"))
    try:
        base.chmod(0o755)
        port = free_port()
        users = base / "users.txt"
        users.write_text(f'"{server.user}" "{server.password}"\n')
        settings = {
            "listen_addr": LOOPBACK,
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": users,
            "pool_mode": pool_mode,
            "default_pool_size": pool_size,
            "max_client_conn": 100,
            "ignore_startup_parameters": "extra_float_digits,options",
        }
        file = base / "pgbouncer.ini"
        lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
        file.write_text(f"[databases]\n* = host={server.host} port={server.port}\n\n[pgbouncer]\n{lines}\n")
        child = Child([_program() or "pgbouncer", file], log=base / "pgbouncer.log", user=_system_user())
        with child:
            through = replace(server, port=port, child=None)
            child.wait_ready(lambda: _accepts(through), START_SECONDS)
            yield through
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _accepts(server: Postgres) -> bool:
    try:
        server.connect(connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _program() -> str | None:
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


def _system_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ChildFailedError(f"PgBouncer does not run as root, and none of the users {SYSTEM_USERS} exists")
