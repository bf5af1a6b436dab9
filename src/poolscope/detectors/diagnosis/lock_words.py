"""Locks, and who holds them, in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.core.sql.locks import Mode
from poolscope.detectors.diagnosis.describe import current_stack, owner_of, place_of, seconds

if TYPE_CHECKING:
    from poolscope.core.lease import Lease
    from poolscope.core.lock_wait import LockWait
    from poolscope.detectors.server_probe import Blocker


def in_words(holder: Lease) -> str:
    """Who holds a lock, since when and doing what."""
    if holder.running:
        does = "which is running another statement"
    else:
        state = "idle in its transaction" if holder.in_transaction else "idle"
        does = f"which has been {state} for {seconds(max(0.0, holder.pool.now() - holder.last_used))}"
    executing = current_stack(holder, 1)
    now_at = f", currently executing {place_of(executing)}" if executing else ""
    return f"{owner_of(holder)}, {does}{now_at}"


def elsewhere(said: Blocker) -> str:
    """The same of another process, by the server's word."""
    if not said.process:
        return "a prepared transaction"
    name = f"application {said.application}, " if said.application else ""
    state = f", {said.state} for {seconds(said.seconds)}" if said.state else ""
    return f"another process ({name}backend {said.process}){state}"


def lock_in_words(wait: LockWait, system: str) -> str:
    """The lock that is waited for: ``a row lock of table items``."""
    if wait.wanted is None:
        return "a lock"
    if system == "sqlite":
        return "the lock of the database"
    mode, name = wait.wanted.mode, wait.wanted.name
    if mode is Mode.READ:
        return f"table {name}"
    article = "an" if mode is Mode.ADVISORY else "a"
    return f"{article} {mode.value} of table {name}" if name else f"{article} {mode.value}"
