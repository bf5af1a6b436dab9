"""
What an adapter is: one pool library, the points where it is hooked, and what the library reports.

Here and in the adapters, ``library_pool`` is the library's pool and ``pool`` is ours.
"""

from __future__ import annotations

import functools
import importlib
import operator
from dataclasses import KW_ONLY, dataclass
from enum import Flag, auto
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from poolscope.adapters.existing import find_existing, unless_half_made
from poolscope.adapters.leases import LEASE_FINDERS
from poolscope.adapters.pools import Pools
from poolscope.core.failure import type_and_place
from poolscope.core.guard import guard
from poolscope.hooks.patching import Refused, is_being_imported
from poolscope.hooks.registry import Hook

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

    from poolscope.core.pool_registry import PoolRegistry
    from poolscope.hooks.patching import Patcher
    from poolscope.types import LibraryObject

    Function = Callable[..., Any]


class Capability(Flag):
    """What an adapter can measure; the contract tests leave out what is not declared."""

    WAIT = auto()
    WAIT_PHASES = auto()
    USE = auto()
    HOLD_PHASES = auto()
    LIMIT = auto()
    IDLE = auto()
    CREATE = auto()
    CLOSE = auto()
    TIMEOUT = auto()
    DRIFT = auto()
    ABANDONED = auto()


NOTHING = Capability(0)


class PoolAdapter(Hook, Protocol):
    """
    Hooks one pool library.

    Beyond the contract of `Hook`: from the moment it is hooked, each checkout of the library's pools becomes exactly
    one `Lease` of a pool that the adapter registered.
    """

    #: Versions it is tested with, in the form of a version specifier.
    versions: str

    @property
    def capabilities(self) -> Capability:
        """What it can measure."""


@dataclass(frozen=True)
class Point:
    """
    One place in a library where something happens in the life of a pool, a lease or a connection.

    Args:
        where: ``Class.method`` in the adapter's module, or ``module:Class.method``, or ``module:function``; the class's
            own ``__dict__`` must hold the method.
        optional: Whether some supported versions of the library do not have it.
        inherited: Whether a base class holds the method in some supported versions.
    """

    #: What an adapter can measure because it has such a point.
    measures: ClassVar[Capability] = NOTHING
    #: Whether libraries look at the function itself, as SQLAlchemy does at the arguments of constructors.
    is_looked_at: ClassVar[bool] = False

    where: str
    _: KW_ONLY
    optional: bool = False
    inherited: bool = False

    def make(self, adapter: PointAdapter, original: Function) -> Function:
        """The function that takes the original's place."""
        raise NotImplementedError

    def find(self, module: ModuleType) -> tuple[LibraryObject, str] | None:
        """
        The class or module and the attribute's name; None where an optional one is missing.

        Args:
            module: The adapter's.

        Raises:
            Refused: It is missing.
        """
        try:
            owner, name = resolve(module, self.where)
        except Refused:
            if self.optional:
                return None
            raise
        if self.inherited:
            owner = next((kind for kind in owner.__mro__ if name in vars(kind)), owner)
        return None if self.optional and name not in vars(owner) else (owner, name)


class PointAdapter(Pools):
    """
    An adapter that lists its hook points. From them follow the symbols that the library must have, what is patched
    and reverted, and the capabilities. What it says of pools and connections is in `Pools` and `Connections`.
    """

    #: The module whose import brings the library.
    module: str
    #: Versions it is tested with, in the form of a version specifier.
    versions: str
    #: Where it is hooked.
    points: tuple[Point, ...]
    #: The classes of its pools, as in `Point.where`: pools that were made earlier are found by them.
    pool_classes: tuple[str, ...]
    #: What the library must have besides, as in `Point.where`.
    required: tuple[str, ...] = ()
    #: Packages, or modules, whose frames only carry queries: neither the application's nor its framework's.
    library_modules: tuple[str, ...]
    #: Exceptions that are the pool's own timeout, and those by which it turns a checkout away without a wait; as in
    #: `Point.where`.
    timeout_errors: tuple[str, ...] = ()
    rejection_errors: tuple[str, ...] = ()
    #: What `stats` reports.
    stats_measure: Capability = Capability.LIMIT | Capability.IDLE | Capability.DRIFT
    #: What is measured in other ways than by points and `stats`.
    also_measures: Capability = NOTHING
    #: Whether a pool of another library may have taken the connections that it holds from a pool of this one.
    has_pools_above = True
    #: Applies further patches, of what only a pool in use shows; None while the library is not hooked.
    patcher: Patcher | None = None

    @property
    def capabilities(self) -> Capability:
        """What it can measure: derived from the points, `stats`, and the exceptions that it distinguishes."""
        by_points = functools.reduce(operator.or_, (point.measures for point in self.points), NOTHING)
        knows_timeouts = bool(self.timeout_errors) or type(self).outcome is not Pools.outcome
        timeouts = Capability.TIMEOUT if knows_timeouts else NOTHING
        return by_points | self.stats_measure | timeouts | self.also_measures

    def hook(self, module: ModuleType, patcher: Patcher, pool_registry: PoolRegistry) -> None:
        """
        Put the hooks in.

        Args:
            module: The library's imported module.
            patcher: Applies patches and remembers the originals.
            pool_registry: Where pools are registered.

        Raises:
            Refused: The library is not as expected; nothing was patched.
        """
        hooks = list(self._hooks(module))
        for _, owner, name in hooks:
            patcher.require(owner, (name,))
        for where in self.required:
            _resolved(module, where)
        classes = tuple(_resolved(module, where) for where in self.pool_classes)
        self.timeouts = tuple(_resolved(module, where) for where in self.timeout_errors)
        self.rejections = tuple(_resolved(module, where) for where in self.rejection_errors)
        self.pool_registry, self.patcher = pool_registry, patcher
        for point, owner, name in hooks:
            if point.is_looked_at:
                patcher.wrap(owner, name, _passing_on(point.make(self, vars(owner)[name])))
            else:
                patcher.replace(owner, name, functools.partial(point.make, self))
        if self.has_pools_above:
            LEASE_FINDERS[self.name] = self.lease_of
        if not is_being_imported(module):  # else no object of it exists yet
            find_existing(classes, f"{self.name}.find", self.found)

    def found(self, library_pools: list[LibraryObject]) -> None:
        """Pools were made before poolscope came."""
        for library_pool in library_pools:
            meet = functools.partial(unless_half_made, self.is_open, library_pool)
            if guard.run(f"{self.name}.is_open", meet, None):
                self.know(library_pool)

    def release(self) -> None:
        """After the patches were reverted: take every mark of ours off the library's objects."""
        LEASE_FINDERS.pop(self.name, None)
        self.patcher = None
        super().release()

    def _hooks(self, module: ModuleType) -> Iterator[tuple[Point, LibraryObject, str]]:
        known = set()
        for point in self.points:
            found = point.find(module)
            if found is not None and found not in known:  # two classes may have inherited one method
                known.add(found)
                yield point, *found


def _passing_on(call: Function) -> Function:
    # What wrapt calls in place of the original, which its proxy shows to whoever looks.
    def wrapper(
        _: LibraryObject, instance: LibraryObject, args: tuple[LibraryObject, ...], kwargs: dict[str, LibraryObject]
    ) -> LibraryObject:
        return call(instance, *args, **kwargs)

    return wrapper


def resolve(module: ModuleType, where: str) -> tuple[LibraryObject, str]:
    """
    The class or module that has an attribute, and the attribute's name.

    Args:
        module: Where to look when `where` names no module.
        where: As in `Point.where`.

    Raises:
        Refused: There is no such class or module.
    """
    place, _, path = where.rpartition(":")
    try:
        owner: LibraryObject = importlib.import_module(place) if place else module
    except ImportError as error:
        raise Refused(f"{place} cannot be imported: {type_and_place(error)}") from error
    *classes, name = path.split(".")
    for part in classes:
        if not hasattr(owner, part):
            raise Refused(f"{owner.__name__} has no {part}")
        owner = getattr(owner, part)
    return owner, name


def _resolved(module: ModuleType, where: str) -> LibraryObject:
    owner, name = resolve(module, where)
    if not hasattr(owner, name):
        raise Refused(f"{owner.__name__} has no {name}")
    return getattr(owner, name)
