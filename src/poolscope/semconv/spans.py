"""Spans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from poolscope.semconv.attributes import (
    BACKEND_PROCESS_ID,
    CHECKOUT_SPAN_THRESHOLD,
    CODE_FILE,
    CODE_FUNCTION,
    CODE_LINE,
    ERROR_TYPE,
    FINDINGS,
    LEAK_KIND,
    LEASE_QUERIES,
    POOL_ATTRIBUTES,
    POOL_LIMIT,
    POOL_PENDING,
    POOL_USED,
)


@dataclass(frozen=True)
class Span:
    """
    One kind of span.

    Args:
        prefix: The first word of its name; the pool's name follows.
        description: When it is emitted and what it says.
        attributes: Keys it may carry.
    """

    prefix: str
    description: str
    attributes: tuple[str, ...]

    def named(self, pool: str) -> str:
        """The name of the span for the pool of that name."""
        return f"{self.prefix} {pool}"


CHECKOUT_SPAN: Final = Span(
    "checkout",
    "One checkout that waited longer than the threshold, or failed; linked to the leases that held the connections.",
    (
        *POOL_ATTRIBUTES, POOL_LIMIT, POOL_USED, POOL_PENDING, ERROR_TYPE, CHECKOUT_SPAN_THRESHOLD,
        "poolscope.wait.queue", "poolscope.wait.connect", "poolscope.wait.validate", "poolscope.wait.resume",
        CODE_FUNCTION, CODE_FILE, CODE_LINE,
    ),
)  # fmt: skip
HOLD_SPAN: Final = Span(
    "hold",
    "One lease inside a recorded span, from receiving the connection to returning it.",
    (
        *POOL_ATTRIBUTES, "poolscope.hold.query", "poolscope.hold.idle_in_transaction", "poolscope.hold.idle",
        LEASE_QUERIES, BACKEND_PROCESS_ID, LEAK_KIND, FINDINGS, CODE_FUNCTION, CODE_FILE, CODE_LINE,
    ),
)  # fmt: skip
SPANS: Final = (CHECKOUT_SPAN, HOLD_SPAN)

# Seconds of one wait or hold by phase, as span attributes: the prefix and the phase.
SPAN_WAIT_PHASE_PREFIX: Final = "poolscope.wait."
SPAN_HOLD_PHASE_PREFIX: Final = "poolscope.hold."
