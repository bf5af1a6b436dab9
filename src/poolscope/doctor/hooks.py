"""
What poolscope hooks: the pool libraries and frameworks that are installed, and whether their hooks fit.

The modules are imported and hooked as `instrument()` does it, and unhooked again.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import sys
import warnings
from functools import lru_cache
from importlib.metadata import packages_distributions
from typing import TYPE_CHECKING, Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from poolscope.adapters.registry import Registry
from poolscope.core.failure import type_and_place
from poolscope.core.pool_registry import PoolRegistry
from poolscope.doctor.installation import installed
from poolscope.doctor.model import Remark, Status
from poolscope.frameworks.registry import Frameworks
from poolscope.hooks.registry import State
from poolscope.instrumentor import PoolscopeInstrumentor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.doctor.model import Environment
    from poolscope.hooks.registry import Hook, HookRegistry

_NEWER: Final = "Use a version in that range, or a newer poolscope."


def pool_libraries(environment: Environment) -> Iterator[Remark]:
    """Each pool library that is installed: its version, whether it is supported, and whether its hooks fit."""
    settings = environment.settings
    with _quiet():
        registry = Registry(PoolRegistry(()), settings.disabled_adapters)
    remarks = list(_remarks(registry, PoolscopeInstrumentor().statuses()))
    yield from remarks
    if not remarks:
        known = ", ".join(registry.statuses)
        fix = f"Run this with the interpreter of your service: python -m poolscope doctor. Known libraries: {known}."
        yield Remark(Status.PROBLEM, "No pool library that poolscope knows is installed here", fix)
    elif all(remark.facts["state"] == State.DISABLED.value for remark in remarks):
        fix = "Take at least one of them out of POOLSCOPE_DISABLED_ADAPTERS."
        yield Remark(Status.PROBLEM, "Every pool library is disabled by a setting", fix)


def frameworks(environment: Environment) -> Iterator[Remark]:
    """Each framework that is installed, and whether its hooks fit; those of Python's own are always there."""
    settings = environment.settings
    with _quiet():
        registry = Frameworks(
            PoolRegistry(()), settings.disabled_frameworks, propagate_to_threads=settings.propagate_to_threads
        )
    for name in [name for name, status in registry.statuses.items() if _top(status.hook) in sys.stdlib_module_names]:
        del registry.statuses[name]
    remarks = list(_remarks(registry, PoolscopeInstrumentor().framework_statuses()))
    yield from remarks
    if not remarks:
        text = "No framework that poolscope knows is installed here: findings will not name requests, tasks or jobs"
        yield Remark(Status.WARNING, text, 'Name your work: with poolscope.unit_of_work("nightly-import"): ...')


def _remarks(registry: HookRegistry[Any], in_force: dict[str, Any]) -> Iterator[Remark]:
    # Where poolscope is active in this process (under opentelemetry-instrument), its own hooks are looked at.
    statuses = {name: in_force.get(name, status) for name, status in registry.statuses.items()}
    hooks = [status.hook for status in statuses.values() if _is_installed(status.hook)]
    with _quiet():
        if not in_force:
            registry.start()
        try:
            for hook in hooks:
                status = statuses[hook.name]
                error = "" if status.state is State.DISABLED else _imported(hook)
                yield _remark(hook, status.state, status.reason, error)
        finally:
            if not in_force:
                registry.stop()


def _remark(hook: Hook, state: State, reason: str, error: str) -> Remark:
    version = _version_of(hook)
    what = f"{hook.name} {version}".rstrip()
    supported = getattr(hook, "versions", "")
    facts = {"name": hook.name, "version": version, "supported": supported, "state": state.value}
    if state is State.DISABLED:
        return Remark(Status.OK, f"{what} is disabled by a setting", facts=facts)
    if error:
        return Remark(Status.WARNING, f"{what} cannot be imported: {error}", "Repair its installation.", facts)
    if state is State.REFUSED:
        fix = f"Use a supported version ({supported}), or a newer poolscope." if supported else "Use a newer poolscope."
        return Remark(Status.PROBLEM, f"{what} is not instrumented: {reason}", fix, facts)
    if state is not State.ACTIVE:
        fix = "Report this as a bug of poolscope, with the warning in the service's log."
        return Remark(Status.PROBLEM, f"{what} is not instrumented: its hooks failed", fix, facts)
    if not _is_supported(version, supported):
        text = f"{what} is instrumented, but no version outside of {supported} was tested"
        return Remark(Status.WARNING, text, _NEWER, facts)
    return Remark(
        Status.OK, f"{what} is instrumented" + (f" (supported: {supported})" if supported else ""), facts=facts
    )


def _is_installed(hook: Hook) -> bool:
    try:
        return importlib.util.find_spec(hook.module) is not None
    except (ImportError, ValueError):  # a package above it is not there
        return False


def _imported(hook: Hook) -> str:
    """
    Import what is hooked.

    Returns:
        Why that is not possible, where it is not.
    """
    for module in getattr(hook, "modules", (hook.module,)):
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - a library may raise anything while it is imported
            missing = vars(ImportError)["name"].__get__(error) if isinstance(error, ImportError) else None
            return f"{type_and_place(error)}" + (f"; the module is {missing}" if type(missing) is str else "")
    return ""


def _version_of(hook: Hook) -> str:
    for package in _packages().get(_top(hook), ()):
        found = installed(package)
        if found:
            return found
    return str(getattr(sys.modules.get(_top(hook)), "__version__", ""))


@lru_cache(maxsize=1)
def _packages() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _top(hook: Hook) -> str:
    return hook.module.partition(".")[0]


def _is_supported(version: str, supported: str) -> bool:
    try:
        return not version or SpecifierSet(supported).contains(Version(version), prereleases=True)
    except (InvalidSpecifier, InvalidVersion):
        return True  # not known to be unsupported


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # What the hooks and the libraries would say in the log, the remarks say.
    logger = logging.getLogger("poolscope")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before
