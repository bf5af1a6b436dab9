"""docs/pools.md: what is written by hand, and the support matrix from the adapters' own declarations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from poolscope.adapters.base import Capability
from poolscope.adapters.registry import load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.adapters.base import PoolAdapter

BODY = Path(__file__).with_name("pools.body.md")
MARK = "<!-- the matrix -->"

# What each capability means, in the words of the metrics.
MEANINGS = {
    Capability.WAIT: "wait time",
    Capability.WAIT_PHASES: "wait by phase",
    Capability.USE: "hold time",
    Capability.HOLD_PHASES: "hold by phase, queries",
    Capability.LIMIT: "limit, saturation",
    Capability.IDLE: "idle",
    Capability.CREATE: "create time",
    Capability.CLOSE: "closures by reason",
    Capability.TIMEOUT: "timeouts",
    Capability.DRIFT: "drift",
    Capability.ABANDONED: "dropped connections found at once",
}


def generate() -> dict[str, str]:
    """
    The page.

    Returns:
        Its text by its path.
    """
    return {"docs/pools.md": BODY.read_text(encoding="utf-8").replace(MARK, "\n".join(_matrix(load())))}


def _matrix(adapters: list[PoolAdapter]) -> Iterator[str]:
    yield "| | " + " | ".join(f"`{adapter.name}`" for adapter in adapters) + " |"
    yield "| --- |" + " --- |" * len(adapters)
    yield "| versions | " + " | ".join(adapter.versions.replace("|", "\\|") for adapter in adapters) + " |"
    for capability, meaning in MEANINGS.items():
        cells = ("yes" if capability in adapter.capabilities else "no" for adapter in adapters)
        yield f"| {meaning} | " + " | ".join(cells) + " |"
