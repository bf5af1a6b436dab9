"""A census: who in this process has how many connections to one server, by pool and by place."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import KINDS
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from poolscope.core.finding import Finding
from poolscope.core.refusal import LIMITS
from poolscope.detectors.diagnosis.describe import (
    finding_about,
    lines_of,
    owner_of,
    place_of,
    seconds,
    thread_names,
)
from poolscope.detectors.diagnosis.holders import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from poolscope.core.finding import Evidence
    from poolscope.core.lease import Lease
    from poolscope.core.pool import Pool
    from poolscope.core.refusal import Refusal

# So many pools and places are named; the rest is counted.
_MOST_NAMED: Final = 10
# So many pools of one database in one process are more than readers and writers need.
_MANY_POOLS: Final = 3
_MAJORITY: Final = 0.5
_SQLSTATE_LENGTH: Final = 5


@dataclass(frozen=True)
class Use:
    """
    A lease at the moment.

    Args:
        lease: The lease.
        phase: What its connection does.
        unused: Seconds since its last call to the server, where none runs.
    """

    lease: Lease
    phase: str
    unused: float


@dataclass(frozen=True)
class Share:
    """
    The open connections of one pool.

    Args:
        pool: The pool.
        idle: Those that are not checked out.
        uses: Those that are.
    """

    pool: Pool
    idle: int
    uses: tuple[Use, ...]

    @property
    def open(self) -> int:
        """How many there are."""
        return self.idle + len(self.uses)


def census_of(refused: Pool, pools: Iterable[Pool]) -> tuple[Share, ...]:
    """
    Count the open connections of all pools of a pool's server, as far as pools say which server that is; those with
    most first. It takes some microseconds for each.

    Args:
        refused: The pool that was refused a connection.
        pools: Every pool of the process.
    """
    mine = [pool for pool in dict.fromkeys((refused, *pools)) if _is_same_server(pool, refused)]
    shares = (Share(pool, pool.idle(), tuple(_uses(pool))) for pool in mine)
    return tuple(sorted((share for share in shares if share.open), key=lambda share: -share.open))


def opened(census: Iterable[Share]) -> int:
    """How many connections there are in all."""
    return sum(share.open for share in census)


def _is_same_server(one: Pool, other: Pool) -> bool:
    mine, theirs = one.identity, other.identity
    if mine.system != theirs.system:
        return False
    unknown = mine.address is None or theirs.address is None
    return unknown or (mine.address, mine.port) == (theirs.address, theirs.port)


def _uses(pool: Pool) -> Iterable[Use]:
    now = pool.now()
    for lease in pool.leases.copy():
        yield Use(lease, lease.phase, 0.0 if lease.running else max(0.0, now - lease.last_used))


def found(pool: Pool, refusal: Refusal, waiter: Lease | None, census: Sequence[Share], repeated: int) -> Finding:
    """
    Put a refusal in words.

    Args:
        pool: The pool that was refused a connection.
        refusal: The refusal.
        waiter: The checkout that the connect was for, if any.
        census: Who in this process has connections to that server.
        repeated: How many more refusals were counted since the last report.
    """
    threads = thread_names()
    total = opened(census)
    places = _places(census, threads)
    by_pool = [
        f"{share.pool.identity.name}: {share.open} open, {len(share.uses)} checked out, {share.idle} idle"
        for share in census
    ]
    who = f"{owner_of(waiter, threads)} at {place_of(waiter.origin)}" if waiter is not None else "a worker of the pool"
    mine = f"this process has {total} of them" if total else "this process has none of them"
    several = f" in {len(census)} pools" if len(census) > 1 else ""
    summary = (
        f"the server has too many connections: it refused pool {pool.identity.name} one, for {who}, by "
        f"{LIMITS.get(refusal.limit, refusal.limit)}{_code(refusal.code)}; {mine}{several}"
        + (f": {places[0]}" if places else "")
    )
    fix = _fix(refusal, census, total)
    evidence: dict[str, Evidence] = {
        "code": refusal.code,
        "limit_reached": refusal.limit,
        "open_connections": total,
        "pools": _cut(by_pool),
        "places": _cut(places),
        "checkout_stack": lines_of(waiter.origin) if waiter is not None else [],
        "repeated": repeated,
    }
    lines = (summary, *(f"  pool {line}" for line in _cut(by_pool)), *(f"  {line}" for line in _cut(places)))
    report = "\n".join((*lines, f"fix: {fix}"))
    if waiter is not None:
        return finding_about(waiter, TOO_MANY_CONNECTIONS, summary, evidence, fix=fix, report=report)
    kind = KINDS[TOO_MANY_CONNECTIONS]
    known = {name: value for name, value in evidence.items() if value not in ("", [])}
    return Finding(kind, kind.severity, summary, fix, pool=pool.identity, evidence=known, report=report)


def _code(code: str) -> str:
    if not code:
        return ""
    if not code.isdigit():
        return f" ({code})"
    return f" (SQLSTATE {code})" if len(code) == _SQLSTATE_LENGTH else f" (error {code})"


def _places(census: Sequence[Share], threads: Mapping[int, str]) -> list[str]:
    # By pool, by the line that checked out and by who holds; the most first.
    groups: defaultdict[tuple[str, str, str], list[Use]] = defaultdict(list)
    for share in census:
        for use in share.uses:
            key = (share.pool.identity.name, place_of(use.lease.origin), _holder(use.lease, threads))
            groups[key].append(use)
    ordered = sorted(groups.items(), key=lambda item: -len(item[1]))
    lines = [f"{len(uses)} of {pool} checked out at {at} by {who}: {_doing(uses)}" for (pool, at, who), uses in ordered]
    idle = [share for share in census if share.idle]
    if len(idle) == 1:
        lines.append(f"{idle[0].idle} of {idle[0].pool.identity.name} idle in the pool")
    elif idle:
        lines.append(f"{sum(share.idle for share in idle)} idle in {len(idle)} pools")
    return lines


def _holder(lease: Lease, threads: Mapping[int, str]) -> str:
    # Threads of one pool of threads are one holder: their names differ in a number.
    name = threads.get(lease.thread, "") if lease.task is None and lease.thread_reference() is not None else ""
    stem = name.rstrip("0123456789")
    thread = f"thread {name}" if stem == name else f"threads {stem}*"
    if lease.unit is None:
        return thread if name else owner_of(lease, {})
    return f"{lease.unit} in {thread}" if name and _is_apart(lease) else str(lease.unit)


def _doing(uses: Sequence[Use]) -> str:
    phases = ", ".join(f"{count} {PHASES[phase]}" for phase, count in Counter(use.phase for use in uses).most_common())
    unused = max(use.unused for use in uses)
    return f"{phases}, unused for up to {seconds(unused)}" if unused > 0 else phases


def _is_apart(lease: Lease) -> bool:
    # Whether no request ends with it: the holder is a thread of the application, or a request that has finished.
    unit = lease.unit
    return unit is None or unit.ended or unit.kind == "job" or lease.thread != unit.thread


def _fix(refusal: Refusal, census: Sequence[Share], total: int) -> str:
    kind = KINDS[TOO_MANY_CONNECTIONS]
    apart = Counter(share.pool.closed_by for share in census for use in share.uses if _is_apart(use.lease))
    apart.pop("", None)
    for closed_by, count in apart.most_common(1):
        if count >= _MAJORITY * total:
            return f"{kind.fix_for('threads')}: {closed_by}"
    alike = Counter((share.pool.identity.namespace, share.pool.identity.address) for share in census)
    if alike and alike.most_common(1)[0][1] >= max(_MANY_POOLS, _MAJORITY * len(census)):
        return kind.fix_for("pools")
    return kind.fix_for(refusal.limit)


def _cut(lines: list[str]) -> list[str]:
    more = len(lines) - _MOST_NAMED
    return lines if more <= 0 else [*lines[:_MOST_NAMED], f"and {more} more"]
