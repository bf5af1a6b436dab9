"""Customers without end, shift after shift: ``python -m examples.lab.customers --address http://127.0.0.1:8000``."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools

from examples.shop.traffic import Tally, Traffic

SHIFT_SECONDS = 120.0
TALLY_SECONDS = 10.0


class Ticker:
    """
    One line of figures every few seconds.

    Args:
        shift: The number of the shift.
    """

    def __init__(self, shift: int) -> None:
        self._shift = shift
        self._next = TALLY_SECONDS

    def __call__(self, gone: float, tally: Tally) -> None:
        """Take the seconds gone and what came back so far."""
        if gone >= self._next:
            self._next += TALLY_SECONDS
            text = f"{tally.total} requests, {tally.rejected} refused"
            print(f"Shift {self._shift}: {gone:4.0f} s, {text}", flush=True)


def main() -> None:
    """Send customers until told to stop."""
    parser = argparse.ArgumentParser(description="Send customers to the shop until stopped.")
    parser.add_argument("--address", default="http://127.0.0.1:8000")
    parser.add_argument("--shift", type=float, default=SHIFT_SECONDS, help="seconds of one shift")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        for shift in itertools.count(1):
            asyncio.run(Traffic(arguments.address, arguments.shift, seed=shift).run(Ticker(shift)))


if __name__ == "__main__":
    main()
