"""Poolscope, which a test starts and stops while something else goes on."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from poolscope.core.guard import guard
from poolscope.hooks import patching
from poolscope.hooks.patching import active_patches
from tests.support.marks import marks
from tests.support.trials import Failures

if TYPE_CHECKING:
    from tests.support.telemetry import Telemetry


class Toggles(Failures):
    """
    Poolscope beside what goes on, and what goes wrong there.

    Args:
        telemetry: Poolscope.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__()
        self.telemetry = telemetry

    @property
    def is_on(self) -> bool:
        """Whether poolscope is there."""
        return bool(self.telemetry.instrumentor.is_instrumented_by_opentelemetry)

    def toggle(self) -> None:
        """Start or stop poolscope, whichever it is not."""
        self.telemetry.stop() if self.is_on else self.telemetry.start()

    def restart(self) -> None:
        """Stop it, and start it again."""
        self.toggle()
        self.toggle()

    def leaves_nothing(self) -> None:
        """Once poolscope has gone: no patch and no mark is left, and no error of ours was caught."""
        if active_patches():
            self.fails(f"left patches: {active_patches()}")
            patching._active.clear()
        gc.collect()
        if left := marks():
            self.fails(f"left marks on {sorted(set(left))}")
        # What a machine under load has no time to report is dropped, and counted: that is no error.
        if caught := {place: count for place, count in guard.counts().items() if not place.endswith(".dropped")}:
            self.fails(f"caught {caught}")
        guard.reset()
