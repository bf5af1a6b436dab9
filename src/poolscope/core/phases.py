"""The phases of a wait and of a hold, in the order in which their seconds are kept."""

from __future__ import annotations

from typing import Final

#: Those that are recorded with each wait.
RECORDED_WAIT_PHASES: Final = ("queue", "connect", "validate")

#: The same and the part of the queue in which a connection could not be received, since the event loop was blocked.
WAIT_PHASES: Final = (*RECORDED_WAIT_PHASES, "resume")

HOLD_PHASES: Final = ("query", "idle_in_transaction", "idle")
