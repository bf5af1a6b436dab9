"""What the recorded telemetry beside this file says; importable without the exporters that recorded it."""

from __future__ import annotations

# Two collections of the same pool: seconds waited, used and counted before each.
WAITS = ([0.0002] * 80 + [0.3] * 10, [0.0002] * 4 + [0.7] * 6)
HOLDS = ([0.02] * 50, [0.4] * 50)
ROUTES = ("GET /users/{id}", "POST /checkout/{id}")
USED = (15, 4)
TIMEOUTS = (2, 3)
TRUTH = {"limit": 15, "waits": 100, "holds": 100, "used": 4, "peak": 15, "timeouts": 5}
