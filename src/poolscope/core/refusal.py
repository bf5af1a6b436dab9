"""A refusal: a database server, or a pooler in front of it, accepts no further connection."""

from __future__ import annotations

from typing import Final, NamedTuple

#: Whose limit was reached -> in words.
LIMITS: Final = {
    "server": "the limit of the whole server",
    "reserved": "the limit of the whole server, whose last slots are reserved",
    "role": "the limit of its role",
    "database": "the limit of its database",
    "pooler": "the limit of the pooler in front of the server",
}


class Refusal(NamedTuple):
    """
    One connect that was refused.

    Args:
        code: What the server calls it: a SQLSTATE, an error number, or the like.
        limit: Whose limit was reached: one of `LIMITS`.
        moment: When, in seconds of the clock.
        in_checkout: Whether a checkout made the connect; else a worker of the pool, on behalf of those that wait.
    """

    code: str
    limit: str
    moment: float
    in_checkout: bool
