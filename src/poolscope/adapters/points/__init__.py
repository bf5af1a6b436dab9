"""
Hook points: the places in a library where something happens to a pool, a lease or a connection. An adapter lists its
points; what is done at each stands here, once.

An error of ours never reaches the application: each hook guards what it does before and after the original. A lease
whose bookkeeping failed is undone, so that it neither waits nor counts as held for ever.
"""

from __future__ import annotations

from typing import Final

from poolscope.adapters.points.calls import Call, Fetch, Statement
from poolscope.adapters.points.checkin import Abandoned, Checkin
from poolscope.adapters.points.checkout import Checkout
from poolscope.adapters.points.cold import Close, Connect, Created, Handover, Opened, Resize, Sweep, Validation

__all__: Final = [
    "Abandoned",
    "Call",
    "Checkin",
    "Checkout",
    "Close",
    "Connect",
    "Created",
    "Fetch",
    "Handover",
    "Opened",
    "Resize",
    "Statement",
    "Sweep",
    "Validation",
]
