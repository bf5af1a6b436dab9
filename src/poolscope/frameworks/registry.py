"""The hooks of all frameworks, and the state of each."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Final

from poolscope.hooks.registry import Hook, HookRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from poolscope.core.pool_registry import PoolRegistry

#: The modules here that hook frameworks, each with a ``FRAMEWORKS``.
MODULES: Final = (
    "flask",
    "starlette",
    "django",
    "celery",
    "queues",
    "grpc",
    "servers",
    "asgiref",
    "threads",
    "script",
    "event_loops",
)


def load(names: Iterable[str] = MODULES) -> list[Hook]:
    """The hooks of those modules."""
    return [hook for name in names for hook in importlib.import_module(f"poolscope.frameworks.{name}").FRAMEWORKS]


class Frameworks(HookRegistry[Hook]):
    """
    Hooks each framework when it is imported, or now if it is already.

    Args:
        pool_registry: The pool registry, where units of work begin.
        disabled: Names of frameworks not to hook.
        propagate_to_threads: Whether threads and jobs that a unit of work starts belong to it.
        hooks: The hooks of each framework.
    """

    def __init__(
        self,
        pool_registry: PoolRegistry,
        disabled: Iterable[str] = (),
        *,
        propagate_to_threads: bool = False,
        hooks: Iterable[Hook] | None = None,
    ) -> None:
        pool_registry.units.reach_threads = propagate_to_threads
        super().__init__(pool_registry, load() if hooks is None else hooks, disabled, "POOLSCOPE_DISABLED_FRAMEWORKS")
