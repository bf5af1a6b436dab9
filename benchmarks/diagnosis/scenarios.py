"""Scenarios: which causes are planted in which pool, with which share of it, drawn at random from a seed."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from typing import Any, Final

from poolscope.core.catalogue.exhaustion import BURST, POOL_TOO_SMALL
from poolscope.core.catalogue.holds import (
    FAN_OUT,
    IDLE_IN_TRANSACTION,
    LONG_HOLD,
    NESTED_CHECKOUT,
    THREAD_STARVATION,
)
from poolscope.core.catalogue.kept import LISTENER_HOLD
from poolscope.core.catalogue.leaks import LEAK
from poolscope.core.catalogue.locks import LOCK_WAIT
from poolscope.core.catalogue.loops import BLOCKED_EVENT_LOOP

#: What is planted where nothing is wrong.
HEALTHY: Final = "healthy"
#: A long hold that runs no query; the same id as one that does.
LONG_IDLE: Final = "long_hold (idle)"

#: Pools of threads, and pools of tasks.
SYNC: Final = ("sqlalchemy+psycopg", "psycopg_pool", "sqlalchemy+psycopg2")
ASYNC: Final = ("sqlalchemy+asyncpg", "psycopg_pool (async)", "asyncpg")

# Causes that hold some connections of a pool, and leave the others to the usual load.
_PARTIAL: Final = (LEAK, IDLE_IN_TRANSACTION, LONG_HOLD, LONG_IDLE, LOCK_WAIT, LISTENER_HOLD)
# Causes that concern the pool as a whole.
_WHOLE: Final = (NESTED_CHECKOUT, FAN_OUT, POOL_TOO_SMALL, BURST, BLOCKED_EVENT_LOOP, THREAD_STARVATION)
# The share of scenarios in which nothing is wrong, and of those with causes of the first kind.
_HEALTHY_SHARE: Final = 0.34
_PARTIAL_SHARE: Final = 0.4


@dataclass(frozen=True)
class Plant:
    """
    One cause in a scenario.

    Args:
        cause: What is wrong.
        connections: How many connections of the pool it holds.
    """

    cause: str
    connections: int


@dataclass(frozen=True)
class Scenario:
    """
    One run.

    Args:
        number: Its number; with the seed it is drawn again.
        seed: The seed.
        driver: The pool library and driver.
        size: The connections of the pool.
        plants: What is wrong in it; empty for a healthy one.
        needed: How many connections the usual load needs on average.
        hold: How long each of its requests holds one, in seconds.
    """

    number: int
    seed: str
    driver: str
    size: int
    plants: tuple[Plant, ...]
    needed: float
    hold: float

    @property
    def main(self) -> str:
        """The cause with the largest share, or `HEALTHY`."""
        return max(self.plants, key=lambda plant: plant.connections).cause if self.plants else HEALTHY

    @property
    def share(self) -> float:
        """Its share of the pool."""
        return max((plant.connections for plant in self.plants), default=0) / self.size

    def as_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scenario:
        """The scenario of plain data."""
        return cls(**{**data, "plants": tuple(Plant(**plant) for plant in data["plants"])})


def draw(seed: str, number: int) -> Scenario:
    """
    A scenario.

    Args:
        seed: Any text.
        number: Which one of that seed's.
    """
    chance = random.Random(f"{seed}/{number}")
    size = chance.randint(4, 12)
    hold = chance.uniform(0.05, 0.2)
    kind = chance.random()
    if kind < _HEALTHY_SHARE:
        needed, plants = chance.uniform(0.1, 0.35) * size, ()
        return Scenario(number, seed, chance.choice(SYNC + ASYNC), size, plants, needed, hold)
    if kind < _HEALTHY_SHARE + _PARTIAL_SHARE:
        return _partial(chance, seed, number, size, hold)
    cause = chance.choice(_WHOLE)
    driver = chance.choice(SYNC if cause == THREAD_STARVATION else SYNC + ASYNC)
    needed = {
        POOL_TOO_SMALL: chance.uniform(1.5, 2.5) * size,
        BURST: chance.uniform(0.1, 0.25) * size,
    }.get(cause, chance.uniform(0.1, 0.3) * size)
    return Scenario(number, seed, driver, size, (Plant(cause, size),), needed, hold)


def _partial(chance: random.Random, seed: str, number: int, size: int, hold: float) -> Scenario:
    first, second = chance.sample(_PARTIAL, 2)
    if chance.random() < 0.3:  # noqa: PLR2004 - two causes
        mine = max(2, round(size * chance.uniform(0.4, 0.6)))
        plants: tuple[Plant, ...] = (Plant(first, mine), Plant(second, max(1, size - mine)))
    else:
        plants = (Plant(first, min(size, max(2, round(size * chance.uniform(0.6, 1.0))))),)
    left = size - sum(plant.connections for plant in plants)
    # What is left over does not carry the usual load; the whole pool would.
    needed = min(0.65 * size, 1.4 * left + chance.uniform(0.5, 1.5)) if left else chance.uniform(0.1, 0.3) * size
    return Scenario(number, seed, chance.choice(SYNC + ASYNC), size, plants, max(needed, 0.8), hold)
