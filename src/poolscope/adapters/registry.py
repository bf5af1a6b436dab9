"""All adapters, and the state of each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from poolscope.adapters.existing import one_walk
from poolscope.hooks.registry import HookRegistry, State, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from poolscope.adapters.base import PoolAdapter
    from poolscope.core.pool_registry import PoolRegistry

#: The adapters: the module here that holds each, imported when it is looked at.
ADAPTERS: Final = (
    "sqlalchemy",
    "psycopg_pool",
    "asyncpg",
    "psycopg2_pool",
    "django",
    "aiomysql",
    "aiopg",
    "dbutils",
    "mysql_connector",
    "mysql_connector_aio",
    "oracledb",
    "peewee",
)


def load(names: Iterable[str] = ADAPTERS) -> list[PoolAdapter]:
    """The adapters of those names; a module of `poolscope.adapters` holds its adapter as ``ADAPTER``."""
    return [importlib.import_module(f"poolscope.adapters.{name}").ADAPTER for name in names]


class Registry(HookRegistry["PoolAdapter"]):
    """
    Hooks each pool library when it is imported, or now if it is already.

    Args:
        pool_registry: Where pools are registered.
        disabled: Names of adapters that do not hook their libraries.
        adapters: The adapters.
    """

    def __init__(
        self, pool_registry: PoolRegistry, disabled: Iterable[str] = (), adapters: Iterable[PoolAdapter] | None = None
    ) -> None:
        super().__init__(
            pool_registry, load() if adapters is None else adapters, disabled, "POOLSCOPE_DISABLED_ADAPTERS"
        )

    def start(self, hooked: Callable[[], None] = lambda: None) -> None:
        """
        Hook what is there and wait for the rest; pools that exist already are found by one walk for all adapters.

        Args:
            hooked: Called when all hooks are in, before the walk.
        """
        with one_walk():
            super().start()
            hooked()


__all__: Final = ["ADAPTERS", "Registry", "State", "Status", "load"]
