"""
N+1: the same shape of statement from the same line, over and over within one unit of work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.finding import N_PLUS_ONE, Finding, Severity
from poolscope.core.origin import locate
from poolscope.core.repetition import EAGER, EXPIRED, LAZY, PREFETCH, QUERY_SET, RELATED
from poolscope.core.statement import summary_of
from poolscope.detectors.diagnosis.describe import seconds

if TYPE_CHECKING:
    from poolscope.core.finding import Evidence
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.repetition import Repetition
    from poolscope.core.unit_of_work import UnitOfWork

# By who ran the statement on the application's behalf.
_LOADERS: Final = {
    LAZY: (
        "eager loading: .options(selectinload(...)) for a collection, joinedload(...) for a single object, "
        "undefer(...) for a column"
    ),
    EXPIRED: (
        "the objects have expired with a commit and are read again one by one: read what is needed before the commit, "
        "use expire_on_commit=False, or select them again in one query"
    ),
    EAGER: "load for more objects at once: a larger yield_per(...), or one query for all that they belong to",
    PREFETCH: "load for more objects at once: a larger .iterator(chunk_size=...), or one query for all they belong to",
    RELATED: "eager loading: .select_related(...) for a foreign key, .prefetch_related(...) for what points back",
    QUERY_SET: "eager loading with .prefetch_related(...), or one query with field__in=... for all",
}
# What Django writes row by row, as save() in a loop does.
_WRITTEN_BY_DJANGO: Final = {
    "INSERT": "write all rows at once: bulk_create(...)",
    "UPDATE": "write all rows at once: bulk_update(...), or one .filter(...).update(...)",
    "DELETE": "delete all at once: one .filter(...).delete()",
}
# By the first word of SQL by hand.
_CURES: Final = {
    "SELECT": "one query for all: a join, or WHERE ... IN",
    "INSERT": "send all rows at once: executemany, a bulk insert, COPY",
    "UPDATE": "send all rows at once: executemany, or one UPDATE with a join or CASE",
    "DELETE": "delete all at once: WHERE ... IN",
}
_CURE: Final = "run it once for all that is needed"


def explains(lease: Lease, threshold: int) -> bool:
    """
    Whether a long hold is long only by what its unit of work repeats: one cause is told of once.

    Args:
        lease: A lease that lasted for the threshold of long holds or longer.
        threshold: From how many runs on, exclusive, it is a repetition (`Units.threshold`).
    """
    share = lease.share
    if share is None or lease.queries <= threshold:
        return False
    repeated = sum(repetition.seconds for repetition in share.repetitions.beyond_threshold(threshold))
    return repeated > 0 and lease.held() - repeated < lease.pool.long_hold


def found(unit: UnitOfWork, pool: Pool, repetition: Repetition, suppressed: int) -> Finding:
    """
    Tell of a repetition.

    Args:
        unit: The unit of work, at its end.
        pool: The pool whose connections were used.
        repetition: What was repeated.
        suppressed: How many units of work repeated the same since it was last told of.
    """
    where = str(locate(*repetition.site)) if repetition.site is not None else "unknown"
    spent = seconds(repetition.seconds)
    loader = f", as a {repetition.loader}" if repetition.loader else ""
    summary = f"{unit} ran one statement {repetition.count} times from {where} ({spent}){loader}: {repetition.shape}"
    evidence: dict[str, Evidence] = {
        "statement": repetition.shape,
        "repetitions": repetition.count,
        "seconds": repetition.seconds,
        "loader": repetition.loader,
        "repeated": suppressed,
    }
    return Finding(
        N_PLUS_ONE,
        Severity.WARNING,
        summary,
        _cure(repetition),
        pool=pool,
        evidence={key: value for key, value in evidence.items() if value != ""},
        unit=unit,
        origin=repetition.site,
        trace=unit.span,
    )


def _cure(repetition: Repetition) -> str:
    verb = summary_of(repetition.shape)
    if repetition.loader in {RELATED, QUERY_SET} and verb in _WRITTEN_BY_DJANGO:
        return _WRITTEN_BY_DJANGO[verb]
    return _LOADERS.get(repetition.loader) or _CURES.get(verb, _CURE)
