"""Task queues beside Celery: RQ, arq and dramatiq. What runs one job is hooked, so that enqueueing is left alone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from poolscope.core.guard import guard
from poolscope.core.work_scope import begin, current, inside, inside_async
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.core.work_scope import WorkScope
    from poolscope.hooks.patching import Patcher
    from poolscope.hooks.registry import Hook
    from poolscope.types import LibraryObject

#: The name of a job until its function is known.
UNNAMED: Final = "<unnamed>"


class RqFramework:
    """Jobs of RQ. Its work horse is a child process that ends without notice: what is known is sent before it does."""

    name = "rq"
    servers = ("rq",)
    module = "rq.job"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.Job, ("perform",))
        parent = os.getpid()

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def perform(self: LibraryObject) -> LibraryObject:
                def begins() -> WorkScope | None:
                    name = guard.run("rq.name", lambda: safe(str(self.func_name)), UNNAMED)
                    return begin(pool_registry, "task", name)

                try:
                    return inside(begins, lambda: original(self))
                finally:
                    if os.getpid() != parent:
                        guard.run("rq.flush", pool_registry.flush, None)

            return perform

        patcher.replace(module.Job, "perform", make)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


class ArqFramework:
    """Jobs of arq. Which function a job is for is known once it has been read."""

    name = "arq"
    servers = ("arq",)
    module = "arq.worker"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        patcher.require(module.Worker, ("run_job",))
        patcher.require(module, ("deserialize_job_raw",))

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            async def run_job(self: LibraryObject, *args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
                return await inside_async(
                    lambda: begin(pool_registry, "task", UNNAMED), lambda: original(self, *args, **kwargs)
                )

            return run_job

        patcher.replace(module.Worker, "run_job", make)
        patcher.replace(module, "deserialize_job_raw", _make_read)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


def _make_read(original: Callable[..., Any]) -> Callable[..., Any]:
    def deserialize_job_raw(*args: LibraryObject, **kwargs: LibraryObject) -> LibraryObject:
        job = original(*args, **kwargs)
        unit = guard.run("arq.unit", current, None)
        if unit is not None and unit.name == UNNAMED:
            guard.run("arq.name", lambda: setattr(unit, "name", safe(str(job[0]))), None)
        return job

    return deserialize_job_raw


class DramatiqFramework:
    """Messages of dramatiq; middleware around the actor is part of it."""

    name = "dramatiq"
    servers = ("dramatiq",)
    module = "dramatiq.worker"

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """Put the hooks in."""
        # Before 2.0 its name had an underscore.
        worker = getattr(module, "WorkerThread", None) or getattr(module, "_WorkerThread", module)
        patcher.require(worker, ("process_message",))

        def make(original: Callable[..., Any]) -> Callable[..., Any]:
            def process_message(self: LibraryObject, message: LibraryObject) -> LibraryObject:
                def begins() -> WorkScope | None:
                    name = guard.run("dramatiq.name", lambda: safe(str(message.actor_name)), UNNAMED)
                    return begin(pool_registry, "task", name)

                return inside(begins, lambda: original(self, message))

            return process_message

        patcher.replace(worker, "process_message", make)

    def release(self) -> None:
        """Nothing: no object of the library has a mark."""


FRAMEWORKS: Final[tuple[Hook, ...]] = (RqFramework(), ArqFramework(), DramatiqFramework())
