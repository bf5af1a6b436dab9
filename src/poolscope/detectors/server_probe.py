"""
The server probe: who waits for whose lock, by the word of the server. It is opt-in (`POOLSCOPE_SERVER_PROBE`).

A short-lived thread opens a connection beside the pool, asks and closes it; nothing waits for it. There is one such
thread at a time, and one question for each database within the interval of findings. A server that refuses the
connection, or (PostgreSQL) has hardly any left, is left in peace for ten intervals.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import closing, nullcontext
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from poolscope.core.failure import type_of
from poolscope.core.guard import guard
from poolscope.core.log_lines import log_lines
from poolscope.core.runner import helpers
from poolscope.core.sql.locks import Mode
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable
    from contextlib import AbstractContextManager

    from poolscope.core.clock import Clock
    from poolscope.core.pool import Pool
    from poolscope.core.sql.locks import Lock

_logger: Final = logging.getLogger("poolscope")

# The shortest interval between two questions, in seconds, whatever the settings say.
_LEAST_INTERVAL: Final = 1.0
# Intervals without a question where a server has no connections left.
_PEACE: Final = 10
# It is left in peace below so many free connections.
_LEAST_FREE: Final = 3
_MOST_PROCESSES: Final = 200
# A connect and the statements end within so many seconds, unless the network or a pooler keeps them.
_PATIENCE: Final = 5.0
# Of whose waits MySQL and MariaDB have a list: rows of InnoDB; neither whole tables nor names (GET_LOCK).
_LISTED: Final = frozenset({Mode.ROWS, Mode.SHARED_ROWS, Mode.NEW_ROWS})

# Connections that are left, but for those that are reserved.
_FREE: Final = """
select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int - count(*)
from pg_stat_activity where backend_type = 'client backend'
"""
# Each process that the server knows; with no blocker where it waits for none. A pooler between has numbers of
# its own, which the server does not know.
_POSTGRESQL: Final = """
select w.pid, l.pid, b.state, extract(epoch from clock_timestamp() - b.state_change), b.application_name,
       b.wait_event_type = 'Lock'
from pg_stat_activity w
left join lateral unnest(pg_blocking_pids(w.pid)) as l(pid) on true
left join pg_stat_activity b on b.pid = l.pid
where w.pid = any(array[{}]::int[]) and (w.state = 'active' or l.pid is not null)
"""
_MYSQL: Final = """
select /*+ MAX_EXECUTION_TIME(1000) */ w.processlist_id, b.processlist_id,
       if(b.processlist_command = 'Sleep', 'idle in transaction', 'active'), b.processlist_time, p.attr_value,
       exists (select 1 from performance_schema.data_lock_waits o where o.requesting_thread_id = b.thread_id)
from performance_schema.threads w
left join performance_schema.data_lock_waits l on l.requesting_thread_id = w.thread_id
left join performance_schema.threads b on b.thread_id = l.blocking_thread_id
left join performance_schema.session_connect_attrs p
       on p.processlist_id = b.processlist_id and p.attr_name = 'program_name'
where w.processlist_id in ({}) and (w.processlist_command <> 'Sleep' or b.processlist_id is not null)
"""
_MARIADB: Final = """
select w.id, b.trx_mysql_thread_id,
       if(p.command = 'Sleep', 'idle in transaction', 'active'), p.time, null, b.trx_state = 'LOCK WAIT'
from information_schema.processlist w
left join information_schema.innodb_trx t on t.trx_mysql_thread_id = w.id
left join information_schema.innodb_lock_waits l on l.requesting_trx_id = t.trx_id
left join information_schema.innodb_trx b on b.trx_id = l.blocking_trx_id
left join information_schema.processlist p on p.id = b.trx_mysql_thread_id
where w.id in ({}) and (w.command <> 'Sleep' or b.trx_id is not null)
"""


class Blocker(NamedTuple):
    """
    Whom a backend waits for.

    Args:
        process: Its backend's process or connection id; 0 for a prepared transaction, which has none.
        state: What it does, in the server's words; empty where poolscope may not see that.
        seconds: For how long.
        application: What it calls itself; empty where that is not known.
        waits: Whether it waits for a lock itself.
    """

    process: int
    state: str
    seconds: float
    application: str
    waits: bool


class Answer(NamedTuple):
    """
    What a server said.

    Args:
        database: Which one was asked.
        sent_at: When, in seconds of the clock.
        processes: The backends that it was asked about, and that it knows.
        blockers: Whom those of them wait for that wait, in the end; by their process.
    """

    database: Hashable
    sent_at: float
    processes: frozenset[int]
    blockers: dict[int, Blocker]


class ServerProbe:
    """
    Asks servers, in threads of its own.

    Args:
        interval: Seconds between two questions to one database.
        now: The clock.
        unobserved: A context in which other instrumentation sees nothing.
    """

    def __init__(
        self, interval: float, now: Clock, unobserved: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._interval = max(interval, _LEAST_INTERVAL)
        self._now = now
        self._unobserved = unobserved
        self._next: dict[Hashable, float] = {}
        self._thread: threading.Thread | None = None
        self._sent_at = float("-inf")
        self._answers: deque[Answer] = deque()
        self._failed = False

    @property
    def is_pending(self) -> bool:
        """Whether an answer will come soon, or is to be taken."""
        return bool(self._answers) or (self._is_under_way() and self._now() - self._sent_at < _PATIENCE)

    def wait(self, timeout: float) -> None:
        """
        Wait until there is an answer, or none will come; for tests.

        Args:
            timeout: How long, in seconds.
        """
        if self._thread is not None:
            self._thread.join(timeout)

    def send(self, pool: Pool, database: Hashable, processes: Collection[int]) -> None:
        """
        Have a server asked whom some of its backends wait for, unless it was asked within the interval.

        Args:
            pool: A pool of that server and database.
            database: What tells it from others.
            processes: The backends' process ids.
        """
        now = self._now()
        if not processes or self._is_under_way() or now < self._next.get(database, now):
            return
        if pool.refusals and now - pool.refusals[-1].moment < _PEACE * self._interval:
            return  # the server is full, by the pool's own word
        self._next[database] = now + self._interval
        system = pool.identity.system
        source = next((one for one in pool.sources if one.alive() and not one.retired), None)
        connect = source.aside(system) if source is not None else None
        if connect is None:
            return
        self._sent_at = now
        ids = frozenset(sorted(processes)[:_MOST_PROCESSES])
        self._thread = threading.Thread(
            target=self._run, args=(connect, system, database, ids, now), name="poolscope-probe", daemon=True
        )
        helpers.add(self._thread)
        self._thread.start()

    def answers(self) -> list[Answer]:
        """What was answered since the last call."""
        found = []
        while self._answers:
            found.append(self._answers.popleft())
        return found

    def _is_under_way(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(
        self, connect: Callable[[], Any], system: str, database: Hashable, processes: frozenset[int], now: float
    ) -> None:
        try:
            with self._unobserved(), closing(connect()) as connection:
                rows, free = _rows_of(connection, system, processes)
        except Exception as error:  # noqa: BLE001 - it may hold a user's name: only its kind is said
            self._next[database] = self._now() + _PEACE * self._interval
            if not self._failed:
                self._failed = True
                text = "the server probe got no answer of %s: %s"
                log_lines.write(_logger, logging.WARNING, text, system, type_of(error))
            return
        if free is not None and free < _LEAST_FREE:
            self._next[database] = self._now() + _PEACE * self._interval
        answer = guard.run("server_probe.answer", lambda: _answer_of(rows, database, now), None)
        if answer is not None:
            self._answers.append(answer)


def lists(system: str, lock: Lock) -> bool:
    """
    Whether a server can say who waits for such a lock.

    Args:
        system: The database, as the semantic conventions name it.
        lock: The lock.
    """
    return system == "postgresql" or lock.mode in _LISTED


def _rows_of(connection: Any, system: str, processes: frozenset[int]) -> tuple[list[Any], int | None]:  # noqa: ANN401 - PEP 249
    ids = ", ".join(str(int(one)) for one in sorted(processes))
    cursor = connection.cursor()
    free = None
    if system == "postgresql":
        # For this transaction alone: a pooler between may give the session to others.
        cursor.execute("set local statement_timeout = 1000")
        cursor.execute(_FREE)
        free = int(cursor.fetchone()[0])
        cursor.execute(_POSTGRESQL.format(ids))
    else:
        cursor.execute("select version()")
        is_mariadb = "mariadb" in str(cursor.fetchone()[0]).lower()
        query = _MARIADB if is_mariadb else _MYSQL
        cursor.execute(("set statement max_statement_time=1 for " if is_mariadb else "") + query.format(ids).strip())
    rows = list(cursor.fetchall())
    connection.rollback()
    return rows, free


def _answer_of(rows: list[Any], database: Hashable, sent_at: float) -> Answer:
    by_process: dict[int, list[Blocker]] = {}
    for process, blocker, state, seconds, application, waits, *_ in rows:
        if blocker is not None:
            found = Blocker(
                int(blocker), str(state or ""), float(seconds or 0), safe(str(application or "")), bool(waits)
            )
            by_process.setdefault(int(process), []).append(found)
    blockers = {process: _root_of(process, by_process) for process in by_process}
    return Answer(database, sent_at, frozenset(int(row[0]) for row in rows), blockers)


def _root_of(process: int, by_process: dict[int, list[Blocker]]) -> Blocker:
    # Whom the others in front wait for, too; where all wait in a circle, another one of it.
    found, seen = None, {process}
    while True:
        blockers = by_process[process]
        first = next((one for one in blockers if not one.waits), blockers[0])
        if first.process in seen:
            return found or first
        if first.process not in by_process:
            return first
        found, process = first, first.process
        seen.add(process)
