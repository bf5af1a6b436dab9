"""Hooks libraries as they are imported, and keeps the state of each."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

from poolscope.core.guard import guard
from poolscope.core.libraries import KNOWN
from poolscope.hooks import patching
from poolscope.hooks.patching import Patcher, Refused, when_imported

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry

_logger: Final = logging.getLogger("poolscope")


class Hook(Protocol):
    """
    Hooks one library.

    The contract: `hook` checks every symbol it needs before it patches the first, and raises `Refused` with a reason
    when one is missing. A hook that has ``modules`` besides is called for each of them, as they are imported. What else
    it may have says what its library does to stacks (`declare`).
    """

    #: The library's distribution name; also the hook's name in settings.
    name: str
    #: The module whose import brings the library.
    module: str

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """
        Put the hooks in.

        Args:
            module: The library's imported module.
            patcher: Applies patches and remembers the originals.
            pool_registry: The pool registry, where pools are registered and units of work begin.

        Raises:
            Refused: The library is not as expected; nothing was patched.
        """

    def release(self) -> None:
        """After the patches were reverted: take every mark of ours off the library's objects."""


def declare(hook: Hook) -> None:
    """
    Let the core know a hook's library: its ``library_modules``, ``loops``, ``lazy_loaders``, ``switches``,
    ``templates``, ``worker_queues``, ``waits`` and ``servers``, as far as the hook has them (`Libraries.know`).

    Args:
        hook: The hook; its library need not be there, nor hooked.
    """
    KNOWN.know(
        getattr(hook, "library_modules", ()),
        loops=getattr(hook, "loops", ()),
        loaders=getattr(hook, "lazy_loaders", ()),
        switches=getattr(hook, "switches", None),
        templates=getattr(hook, "templates", ()),
        worker_queues=getattr(hook, "worker_queues", ()),
        waits=getattr(hook, "waits", None),
        servers=getattr(hook, "servers", ()),
    )


HookType = TypeVar("HookType", bound=Hook)


class State(Enum):
    """Whether a library is hooked."""

    ABSENT = "absent"
    ACTIVE = "active"
    REFUSED = "refused"
    DISABLED = "disabled"


@dataclass
class Status(Generic[HookType]):
    """
    Whether a library is hooked, and why not.

    Args:
        hook: What hooks it.
        state: Whether it is hooked.
        reason: Why not, if it refused.
    """

    hook: HookType
    state: State = State.ABSENT
    reason: str = ""


class HookRegistry(Generic[HookType]):
    """
    Hooks each library when it is imported, or now if it is already.

    Args:
        pool_registry: The pool registry, where pools are registered and units of work begin.
        hooks: What there is to hook.
        disabled: Names of hooks not to put in.
        setting: The setting that names those, for the warning about a name that does not exist.
    """

    def __init__(
        self, pool_registry: PoolRegistry, hooks: Iterable[HookType], disabled: Iterable[str], setting: str
    ) -> None:
        self._pool_registry = pool_registry
        self._patchers: dict[str, Patcher] = {}
        self._forgetting: list[Callable[[], None]] = []
        self.statuses = {hook.name: Status(hook) for hook in hooks}
        for name in disabled:
            if name in self.statuses:
                self.statuses[name].state = State.DISABLED
            else:
                _logger.warning(
                    "%s names %r, which poolscope does not know; it knows: %s", setting, name, ", ".join(self.statuses)
                )

    def start(self) -> None:
        """Hook what is there and wait for the rest."""
        KNOWN.know(patching.PACKAGES)
        for status in self.statuses.values():
            declare(status.hook)
        for status in self.statuses.values():
            if status.state is not State.DISABLED:
                self._await(status)

    def stop(self) -> None:
        """Put every original back."""
        while self._forgetting:
            self._forgetting.pop()()
        while self._patchers:
            name, patcher = self._patchers.popitem()
            guard.run("registry.revert", patcher.revert, None)
            guard.run("registry.release", self.statuses[name].hook.release, None)
            self.statuses[name].state = State.ABSENT

    def _await(self, status: Status[HookType]) -> None:
        for module in getattr(status.hook, "modules", (status.hook.module,)):
            self._forgetting.append(when_imported(module, lambda imported: self._hook(status, imported)))

    def _hook(self, status: Status[HookType], module: ModuleType) -> None:
        if status.state is State.REFUSED:
            return
        patcher = self._patchers.setdefault(status.hook.name, Patcher())
        try:
            status.hook.hook(module, patcher, self._pool_registry)
        except Refused as refusal:
            status.state, status.reason = State.REFUSED, str(refusal)
            self._take_out(status)
            _logger.warning("poolscope does not instrument %s: %s", status.hook.name, refusal)
        except Exception:
            self._take_out(status)
            raise
        else:
            status.state = State.ACTIVE

    def _take_out(self, status: Status[HookType]) -> None:
        # Of a library in several modules, others may be hooked by now.
        self._patchers.pop(status.hook.name).revert()
        guard.run("registry.release", status.hook.release, None)
