"""Poolscope's settings: those in effect, and what is wrong with those that were given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.adapters.registry import load as adapters
from poolscope.config import rules, variable_of
from poolscope.doctor.model import Remark, Status
from poolscope.frameworks.registry import load as frameworks
from poolscope.names import safe

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from poolscope.doctor.model import Environment


def settings(environment: Environment) -> Iterator[Remark]:
    """
    The settings that differ from their defaults, and the wrong ones. Arguments of `instrument()`
    are not seen here.
    """
    read = environment.settings
    defaults = {name: default for name, (default, _) in rules().items()}
    changed = {name: getattr(read, name) for name, default in defaults.items() if getattr(read, name) != default}
    if not changed:
        yield Remark(Status.OK, "all have their defaults")
    for name, value in changed.items():
        text = f"{variable_of(name)}={safe(repr(value))} (default: {defaults[name]!r})"
        yield Remark(Status.OK, text, facts={name: safe(str(value))})
    for problem in environment.wrong_settings:
        yield Remark(Status.WARNING, problem, "Correct the variable; docs/settings.md lists what is allowed.")
    if not read.enabled:
        name = variable_of("enabled")
        yield Remark(Status.PROBLEM, f"{name} turns poolscope off", f"Unset {name}, or set it to true.")
    yield from _unknown("disabled_adapters", read.disabled_adapters, {one.name for one in adapters()})
    yield from _unknown("disabled_frameworks", read.disabled_frameworks, {one.name for one in frameworks()})


def _unknown(setting: str, given: Collection[str], known: Collection[str]) -> Iterator[Remark]:
    for name in given:
        if name not in known:
            text = f"{variable_of(setting)} names {safe(name)!r}, which poolscope does not know"
            yield Remark(Status.WARNING, text, f"Use one of: {', '.join(sorted(known))}.")
