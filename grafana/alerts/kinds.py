"""Alerts on kinds of findings that no series but the count of findings shows: one rule for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grafana import links
from grafana.alerts.expressions import BY_POOL, POOL_VARIABLES, events, label
from grafana.alerts.model import Alert, Group, Urgency, ValueFormat
from grafana.alerts.pools import WHERE
from grafana.prometheus import family
from poolscope import semconv
from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.kept import LISTENER_HOLD, SESSION_LOCK_LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.pools import FOREIGN_EVENT_LOOP, FORKED_POOL, POOL_PER_REQUEST, STRANDED_CONNECTIONS

if TYPE_CHECKING:
    from grafana.alerts.model import Pace

# Two customers want the same row at once now and then; a habit is more than that.
LOCK_WAITS: Final = 10


@dataclass(frozen=True)
class Counted:
    """
    An alert on the count of a kind of finding. Its urgency is that of the kind.

    Args:
        name: The alert's name.
        finding: The kind's id.
        summary: One line: what is wrong, and where.
        consequence: What it leads to; the fix and the event are the catalogue's.
        fewest: From how many findings of a pool in 15 minutes on it fires.
    """

    name: str
    finding: str
    summary: str
    consequence: str
    fewest: int = 1

    def alert(self, pace: Pace) -> Alert:
        """The alert, at a pace."""
        kind = KINDS[self.finding]
        series = f'{family(semconv.FINDING_COUNT)}{{{label(semconv.FINDING_ID)}="{self.finding}"}}'
        event = f"The event `{kind.event.name}` has the details." if kind.event is not None else ""
        return Alert(
            name=self.name,
            expression=f"{events(series, BY_POOL, '15m', pace)} >= {self.fewest}",
            pending=pace("0s"),
            urgency=Urgency(kind.severity.value),
            finding=self.finding,
            summary=self.summary,
            description=f"{self.consequence} {event}",
            value_format=ValueFormat.NUMBER,
            dashboard=links.FINDINGS,
            variables=POOL_VARIABLES,
        )


COUNTED: Final = (
    Counted(
        "ForkedPool",
        FORKED_POOL,
        f"The {WHERE} was opened before a fork and is used after it, <value> times",
        "Two processes write on one connection, and each may read the other's answer; or the pool has no workers and "
        "gives nothing. Open it in each process, after the fork.",
    ),
    Counted(
        "ForeignEventLoop",
        FOREIGN_EVENT_LOOP,
        f"The {WHERE} was opened in another event loop than the one that uses it, <value> times",
        "Its connections fail or wait forever, since the loop that they belong to does not run them. Open the pool in "
        "the event loop that uses it.",
    ),
    Counted(
        "PoolPerRequest",
        POOL_PER_REQUEST,
        f"<value> pools like the {WHERE} were made at one line, again and again",
        "Each request connects anew and may leave its connections open, until the server accepts no more. Make one "
        "pool when the process starts.",
    ),
    Counted(
        "StrandedConnections",
        STRANDED_CONNECTIONS,
        f"Connections of the {WHERE} stay open that no thread will use again",
        "They count against the server's limit for as long as the process lives. Let no connection outlive its thread "
        "or job.",
    ),
    Counted(
        "ListenerHold",
        LISTENER_HOLD,
        f"<value> connections of the {WHERE} are held in order to listen for notifications",
        "One listener for each client leaves no connection for the requests. Listen on one connection of its own, "
        "outside of the pool.",
    ),
    Counted(
        "SessionLockLeak",
        SESSION_LOCK_LEAK,
        f"<value> connections went back into the {WHERE} with a lock",
        "Whoever wants such a lock next waits, for as long as the pool keeps the connection.",
    ),
    Counted(
        "LockWait",
        LOCK_WAIT,
        f"<value> statements of the {WHERE} waited for a lock within 15 minutes",
        "They wait in the database, each with a connection checked out, until the transaction that has the lock ends.",
        LOCK_WAITS,
    ),
)


def groups(pace: Pace) -> tuple[Group, ...]:
    """The alerts on counts of findings."""
    return (Group("poolscope-kinds", tuple(one.alert(pace) for one in COUNTED)),)
