"""What the monitoring role of the committed script can do to a server, and what it cannot, whoever has its password."""

from __future__ import annotations

import contextlib
import re
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import errors

from examples.lab.pipeline import CONFIG, MONITOR, monitoring_role
from examples.lab.postgres import postgres
from examples.lab.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

PASSWORD = "not-a-secret"
LITERAL = "4929123412341234"
CONNECTIONS = 5
TEMPORARY_FILES = "64MB"
# What a role may set for itself: a default of the script is not a limit.
OWN_SETTINGS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "default_transaction_read_only",
)  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """A PostgreSQL with the monitoring role and an application's table."""
    with postgres(max_connections=30, settings={"reserved_connections": str(CONNECTIONS)}) as server:
        with server.connect() as owner:
            owner.execute("CREATE ROLE shop LOGIN")
            owner.execute("CREATE TABLE cards (number text)")
            owner.execute(f"INSERT INTO cards VALUES ('{LITERAL}')")
            owner.execute("GRANT ALL ON cards TO shop")
        monitoring_role(server, PASSWORD)
        yield server


@pytest.fixture
def monitor(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A session of the role that has lifted whatever it may lift."""
    with login(server) as connection:
        lift(connection)
        yield connection


def login(server: Postgres) -> psycopg.Connection[Any]:
    """A session of the role as its defaults make it."""
    return psycopg.connect(
        host=server.host, port=server.port, user=MONITOR, password=PASSWORD, dbname="postgres", autocommit=True
    )


def lift(connection: psycopg.Connection[Any]) -> None:
    """Every default that the role may change, changed."""
    for setting in OWN_SETTINGS:
        connection.execute(f"SET {setting} = 0")


@contextlib.contextmanager
def shopping(server: Postgres) -> Iterator[psycopg.Connection[Any]]:
    """A session of the application whose last statement has a literal, in an open transaction."""
    with psycopg.connect(host=server.host, port=server.port, user="shop", dbname="postgres", autocommit=True) as shop:
        shop.execute("BEGIN")
        shop.execute(f"SELECT count(*) FROM cards WHERE number = '{LITERAL}'")
        yield shop


def texts(connection: psycopg.Connection[Any], query: str) -> str:
    """Everything that a query returns, as one text."""
    return "\n".join(str(row) for row in connection.execute(query).fetchall())  # type: ignore[call-overload]


def test_a_superuser_would_see_the_literal(server: Postgres) -> None:
    """What the next test looks for is there to be seen."""
    with shopping(server), server.connect() as owner:
        assert LITERAL in texts(owner, "SELECT * FROM pg_stat_activity")


def test_no_statement_of_another_role_is_seen(server: Postgres, monitor: psycopg.Connection[Any]) -> None:
    """
    No statistics view, and no function over sessions that the role may call, shows a text, an address or a literal of
    the application's session; its state is seen by the function of the script alone.
    """
    with shopping(server) as shop:
        pid = shop.info.backend_pid
        views = [
            row[0]
            for row in monitor.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace AND relkind = 'v'"
                " AND has_table_privilege(oid, 'SELECT') AND relname LIKE 'pg_stat%'"
            ).fetchall()
        ]
        assert "pg_stat_activity" in views
        for view in views:
            assert LITERAL not in texts(monitor, f'SELECT * FROM pg_catalog."{view}"'), view
        calls = [f"pg_stat_get_backend_{what}" for what in ("activity", "client_addr", "wait_event", "start")]
        for call in calls:
            found = texts(monitor, f"SELECT {call}(id) FROM pg_stat_get_backend_idset() AS id WHERE id <> 0")
            assert LITERAL not in found, call
        row = monitor.execute(
            "SELECT query, state, client_addr, wait_event, query_start FROM pg_stat_activity WHERE pid = %s", [pid]
        ).fetchone()
        assert row == ("<insufficient privilege>", None, None, None, None)
        seen = monitor.execute("SELECT * FROM poolscope.sessions() WHERE pid = %s", [pid])
        assert [column.name for column in seen.description or ()] == [
            "pid", "backend_type", "datname", "application_name", "state", "state_change",
        ]  # fmt: skip
        assert "idle in transaction" in (found := str(seen.fetchall()))
        assert LITERAL not in found


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT * FROM cards",
        "DELETE FROM cards",
        "INSERT INTO cards VALUES ('1')",
        "TRUNCATE cards",
        "DO $$ BEGIN LOCK TABLE cards IN ACCESS SHARE MODE; END $$",
        "CREATE TABLE mine (a int)",
        "CREATE TABLE poolscope.mine (a int)",
        "CREATE OR REPLACE FUNCTION poolscope.sessions() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER FUNCTION poolscope.sessions() RESET ALL",
        "CREATE ROLE other",
        "CREATE DATABASE other",
        f"ALTER ROLE {MONITOR} CONNECTION LIMIT -1",
        f"ALTER ROLE {MONITOR} SUPERUSER",
        f"ALTER ROLE {MONITOR} SET temp_file_limit = -1",
        "SET temp_file_limit = -1",
        f"GRANT pg_read_all_stats TO {MONITOR}",
        "SET ROLE poolscope_statistics",
        "SET SESSION AUTHORIZATION shop",
        "ALTER SYSTEM SET statement_timeout = 0",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT pg_reload_conf()",
        "COPY (SELECT 1) TO '/tmp/poolscope'",
        "COPY (SELECT 1) TO PROGRAM 'true'",
    ],
)
def test_what_the_role_may_not_do_is_refused(monitor: psycopg.Connection[Any], attempt: str) -> None:
    """It reads and changes no table, gives itself no right, lifts no limit, reaches no file, whatever it has set."""
    with pytest.raises(errors.InsufficientPrivilege):
        monitor.execute(attempt)  # type: ignore[call-overload]


def test_no_session_of_another_role_is_ended(server: Postgres, monitor: psycopg.Connection[Any]) -> None:
    """Neither cancelled nor terminated, and it goes on."""
    with shopping(server) as shop:
        for call in ("pg_terminate_backend", "pg_cancel_backend"):
            with pytest.raises(errors.InsufficientPrivilege):
                monitor.execute(f"SELECT {call}(%s)", [shop.info.backend_pid])
        assert shop.execute("SELECT 1").fetchone() == (1,)


def test_five_sessions_are_all_it_gets(server: Postgres) -> None:
    """The sixth is refused, whatever the others have set; those of applications are not."""
    wait_until(lambda: sessions(server) == 0, 60, "earlier sessions to leave")
    with contextlib.ExitStack() as stack:
        for _ in range(CONNECTIONS):
            lift(stack.enter_context(login(server)))
        with pytest.raises(psycopg.OperationalError, match="too many connections for role"):
            login(server)
        with shopping(server) as shop:
            assert shop.execute("SELECT 1").fetchone() == (1,)


def test_a_server_that_applications_have_filled_is_still_watched(server: Postgres) -> None:
    """The role has its five connections where an application gets none."""
    with contextlib.ExitStack() as stack:
        with pytest.raises(psycopg.OperationalError, match="remaining connection slots are reserved"):
            fill(stack, server)
        for _ in range(CONNECTIONS):
            connection = stack.enter_context(login(server))
            assert connection.execute("SELECT count(*) > 0 FROM poolscope.sessions()").fetchone() == (True,)


def fill(stack: contextlib.ExitStack, server: Postgres) -> None:
    """An application that opens connections until it gets none."""
    while True:
        stack.enter_context(psycopg.connect(host=server.host, port=server.port, user="shop", dbname="postgres"))


def sessions(server: Postgres) -> int:
    """How many the role has."""
    with server.connect() as owner:
        (count,) = owner.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", [MONITOR]).fetchone() or ()
    return int(count)


def test_a_session_that_keeps_its_defaults_cannot_run_for_long(server: Postgres) -> None:
    """A statement ends after `statement_timeout`, nothing is written; so the Collector is held to both by mistake."""
    with login(server) as connection:
        begun = time.monotonic()
        with pytest.raises(errors.QueryCanceled):
            connection.execute("SELECT pg_sleep(60)")
        assert time.monotonic() - begun < 60
        with pytest.raises(errors.ReadOnlySqlTransaction):
            connection.execute("SELECT lo_create(0)")


def test_defaults_are_no_limits(monitor: psycopg.Connection[Any]) -> None:
    """What the script says is not enforced is not: once PostgreSQL enforces one of these, the script may say so."""
    for setting in OWN_SETTINGS:
        assert monitor.execute(f"SHOW {setting}").fetchone() in {("0",), ("off",)}, setting
    monitor.execute(f"ALTER ROLE {MONITOR} SET lock_timeout = 0")
    monitor.execute("CREATE TEMPORARY TABLE mine AS SELECT 1")


@pytest.mark.reliability(
    fault="a stolen monitoring password: its session lifts its defaults and stands in a transaction",
    application="the same: nothing waits for it, no table is read or changed; at most five sessions more",
    lost="the server's figures while all five sessions are taken",
)
def test_a_session_that_lifts_its_defaults_delays_no_application(
    server: Postgres, monitor: psycopg.Connection[Any]
) -> None:
    """While it stands in a transaction without a time limit, the application changes, locks and rebuilds its table."""
    monitor.execute("BEGIN")
    monitor.execute("SELECT count(*) FROM pg_class, poolscope.sessions()")
    with server.connect() as owner:
        owner.execute("SET lock_timeout = '20s'")
        owner.execute("BEGIN; LOCK TABLE cards IN ACCESS EXCLUSIVE MODE; COMMIT")
        owner.execute("ALTER TABLE cards ADD COLUMN holder text")
        owner.execute("ALTER TABLE cards DROP COLUMN holder")
        owner.execute("VACUUM FULL cards")


def test_temporary_files_are_bounded(monitor: psycopg.Connection[Any]) -> None:
    """A sort that would fill the disk ends."""
    assert monitor.execute("SHOW temp_file_limit").fetchone() == (TEMPORARY_FILES,)
    monitor.execute("SET work_mem = '64kB'")
    with pytest.raises(errors.ConfigurationLimitExceeded):
        monitor.execute("SELECT repeat(md5(n::text), 40) AS t FROM generate_series(1, 200000) AS n ORDER BY t")


def test_the_function_looks_nothing_up_where_its_caller_says(monitor: psycopg.Connection[Any]) -> None:
    """A table of the caller's named like the view that it reads is not read with its owner's rights."""
    monitor.execute("CREATE TEMPORARY TABLE pg_stat_activity (pid int)")
    monitor.execute("SET search_path = pg_temp, pg_catalog")
    assert monitor.execute("SELECT count(*) > 0 FROM poolscope.sessions()").fetchone() == (True,)


def test_other_roles_may_not_call_the_function(server: Postgres) -> None:
    """The state of other sessions is for the role, not for PUBLIC."""
    with shopping(server) as shop, pytest.raises(errors.InsufficientPrivilege):
        shop.execute("SELECT * FROM poolscope.sessions()")


def test_an_earlier_role_loses_what_it_had(server: Postgres) -> None:
    """The script runs again on a server that has its role from an earlier version, or with settings of its own."""
    with server.connect() as owner:
        owner.execute(f"GRANT pg_read_all_stats TO {MONITOR}")
        owner.execute(f"ALTER ROLE {MONITOR} CONNECTION LIMIT -1")
        owner.execute(f"ALTER ROLE {MONITOR} SET statement_timeout = 0")
    monitoring_role(server, "o'ther")
    with shopping(server), login(server) as connection:
        assert LITERAL not in texts(connection, "SELECT * FROM pg_stat_activity")
        assert connection.execute("SHOW statement_timeout").fetchone() == ("5s",)
    with server.connect() as owner:
        found = owner.execute(
            "SELECT rolconnlimit, rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls,"
            " ARRAY(SELECT roleid::regrole::text FROM pg_auth_members WHERE member = r.oid)"
            " FROM pg_roles AS r WHERE rolname = %s",
            [MONITOR],
        ).fetchone()
    assert found == (CONNECTIONS, False, ["pg_use_reserved_connections"])


def test_the_script_says_what_it_grants() -> None:
    """Its figures are those of its comment, and it names no password."""
    script = (CONFIG / "monitoring-role.sql").read_text()
    assert f"CONNECTION LIMIT {CONNECTIONS} " in script
    assert "It has five connections at most" in script
    assert f"temp_file_limit = '{TEMPORARY_FILES}'" in script
    assert re.findall(r"PASSWORD (\S+);", script) == [":'password'"]
