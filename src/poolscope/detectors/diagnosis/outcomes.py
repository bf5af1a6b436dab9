"""How a checkout went without a connection, in words and as a value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from poolscope.core.lease import Outcome
from poolscope.detectors.diagnosis.describe import seconds

if TYPE_CHECKING:
    from poolscope.core.lease import Lease

#: A wait shorter than this is none: the checkout ended at once. In seconds.
AT_ONCE: Final = 0.1
#: The outcome of a checkout that has none yet.
PENDING: Final = "pending"

_ENDED: Final = {Outcome.TIMEOUT: "timed out", Outcome.REJECTED: "was refused", Outcome.CANCELLED: "was cancelled"}


def outcome_of(checkout: Lease) -> str:
    """How a checkout ended: the value of an `Outcome`, or `PENDING`."""
    return checkout.outcome.value if checkout.outcome is not None else PENDING


def ending_of(checkout: Lease, waited: float) -> str:
    """
    How a checkout ended, in words that follow the name of who waited.

    Args:
        checkout: The checkout.
        waited: For how long it waited, in seconds.
    """
    if checkout.outcome is None:
        return f"still waits after {seconds(waited)}"
    ended = _ENDED.get(checkout.outcome, f"failed ({checkout.error_type})")
    return f"{ended} {'at once' if waited < AT_ONCE else f'after {seconds(waited)}'}"
