"""The phases of a wait and of a hold, in the order in which their seconds are kept."""

from __future__ import annotations

from typing import Final

WAIT_PHASES: Final = ("queue", "connect", "validate")

HOLD_PHASES: Final = ("query", "idle_in_transaction", "idle")
