"""
Settings: their one home, and the only reader of the environment.

Each field of `Settings` is a keyword of `PoolscopeInstrumentor.instrument()` and, in capitals behind ``POOLSCOPE_``, an
environment variable. A keyword wins over the variable, the variable over the default. A wrong value never stops the
application: it gives one warning that names the setting, the value and what is allowed, and the default is used.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from numbers import Number
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from poolscope.types import LibraryObject

_logger: Final = logging.getLogger("poolscope")

PREFIX: Final = "POOLSCOPE_"

# How alike two names are, from 0 to 1, when one may be a misspelling of the other.
_NEAR: Final = 0.9


class WrongValueError(ValueError):
    """A setting's value that is not allowed; its message says what is."""


@dataclass(frozen=True)
class Rule:
    """
    What a setting allows.

    Args:
        parse: Turns text, or a value of the right type, into the value; raises `WrongValueError`.
        allowed: What is allowed, in words.
        description: What the setting does.
    """

    parse: Callable[[object], Any]
    allowed: str
    description: str


_WORDS: Final = re.compile(r"[\w ,.+-]{0,100}")
_TRUE: Final = frozenset({"1", "true", "yes", "on"})
_FALSE: Final = frozenset({"0", "false", "no", "off"})


def _text(value: object) -> str:
    if not isinstance(value, (str, Number)):  # what else there is formats itself in its own way
        raise WrongValueError
    return str(value).strip()


def _shown(value: object) -> str:
    # What is no word or number, such as an address with a password, was meant for another variable.
    if isinstance(value, str):
        return repr(value) if _WORDS.fullmatch(value) else f"a text of {len(value)} characters"
    return repr(value) if type(value) in (bool, int, float, type(None)) else f"a {type(value).__qualname__}"


def _switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    text = _text(value).lower()
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    raise WrongValueError


def _seconds(value: object) -> float:
    if isinstance(value, bool):
        raise WrongValueError
    try:
        number = float(_text(value))
    except ValueError:
        raise WrongValueError from None
    if not 0 <= number < float("inf"):
        raise WrongValueError
    return number


def _whole(least: int, most: int) -> Callable[[object], int]:
    def parse(value: object) -> int:
        if isinstance(value, bool):
            raise WrongValueError
        try:
            number = int(_text(value))
        except ValueError:
            raise WrongValueError from None
        if not least <= number <= most:
            raise WrongValueError
        return number

    return parse


def _choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        text = _text(value).lower()
        if text not in choices:
            raise WrongValueError
        return text

    return parse


def _names(value: object) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, (list, tuple, set, frozenset)) or not all(isinstance(part, str) for part in parts):
        raise WrongValueError
    return tuple(part.strip() for part in parts if part.strip())


def _setting(
    default: LibraryObject, parse: Callable[[object], LibraryObject], allowed: str, description: str
) -> LibraryObject:
    return field(default=default, metadata={"rule": Rule(parse, allowed, description)})


_SWITCH_WORDS: Final = "true or false"
_SECONDS_WORDS: Final = "a number of seconds, 0 or more"


@dataclass(frozen=True)
class Settings:
    """All settings, frozen once read. Durations are in seconds."""

    enabled: bool = _setting(
        default=True, parse=_switch, allowed=_SWITCH_WORDS, description="Whether poolscope does anything at all."
    )
    disabled_adapters: tuple[str, ...] = _setting(
        (), _names, "names of adapters, separated by commas", "Pool libraries not to instrument, such as `asyncpg`."
    )
    disabled_frameworks: tuple[str, ...] = _setting(
        (), _names, "names of frameworks, separated by commas", "Frameworks not to instrument, such as `celery`."
    )
    propagate_to_threads: bool = _setting(
        default=True,
        parse=_switch,
        allowed=_SWITCH_WORDS,
        description="Whether threads and executor jobs belong to the request, task or job that starts them, until that "
        "ends; otherwise each is a job of its own.",
    )
    checkout_spans: str = _setting(
        "slow",
        _choice("slow", "always", "never"),
        "slow, always or never",
        "Which checkouts become a `checkout` span: those that wait for longer than the threshold or fail (`slow`), all "
        "of them, or none.",
    )
    checkout_span_threshold: float = _setting(
        0.001, _seconds, _SECONDS_WORDS, "How long a checkout waits before it counts as slow and becomes a span."
    )
    hold_spans: bool = _setting(
        default=True,
        parse=_switch,
        allowed=_SWITCH_WORDS,
        description="Whether each lease inside a recorded span becomes a `hold` span.",
    )
    stack_depth: int = _setting(
        5,
        _whole(1, 100),
        "a whole number from 1 to 100",
        "How many frames of a checkout's stack are kept, from the first application frame outwards.",
    )
    application_paths: tuple[str, ...] = _setting(
        (),
        _names,
        "folders, separated by commas",
        "Folders inside site-packages with code of your own: their frames count as the application's.",
    )
    max_pools: int = _setting(
        200,
        _whole(1, 100_000),
        "a whole number from 1 to 100000",
        "How many pools, by name, get series of their own; further ones share one called `overflow`.",
    )
    max_units: int = _setting(
        500,
        _whole(1, 100_000),
        "a whole number from 1 to 100000",
        "How many units of work, by name (route, task), get series of their own; further ones share one, `overflow`.",
    )
    n_plus_one_threshold: int = _setting(
        5,
        _whole(1, 1_000_000),
        "a whole number from 1 to 1000000",
        "How often one unit of work may run the same statement from one line before that is reported as N+1.",
    )
    leak_threshold: float = _setting(
        60.0,
        _seconds,
        _SECONDS_WORDS,
        "How long a connection may be checked out before it is reported as overdue; 0: never.",
    )
    long_hold_threshold: float = _setting(
        0.5,
        _seconds,
        _SECONDS_WORDS,
        "How long a connection may be held before the hold is reported: slow queries, or non-database work.",
    )
    exhaustion_threshold: float = _setting(
        1.0,
        _seconds,
        _SECONDS_WORDS,
        "How long a checkout waits before its pool is reported as exhausted, with all holders; 0: only when it fails.",
    )
    event_loop_heartbeat: bool = _setting(
        default=True,
        parse=_switch,
        allowed=_SWITCH_WORDS,
        description="Whether each event loop that uses a pool gets a heartbeat, for its lag and for what blocks it.",
    )
    blocked_event_loop_threshold: float = _setting(
        0.25,
        _seconds,
        _SECONDS_WORDS,
        "How long an event loop may be blocked before that is reported, with the line that blocks it; 0: never.",
    )
    finding_interval: float = _setting(
        30.0,
        _seconds,
        _SECONDS_WORDS,
        "How long further occurrences of a finding at the same place are only counted; then the count is reported.",
    )
    server_probe: bool = _setting(
        default=False,
        parse=_switch,
        allowed=_SWITCH_WORDS,
        description="Whether to ask the database who waits for whose lock: on a connection of its own beside the pool, "
        "at most once for each database in the finding interval, while a statement that locks runs for long.",
    )
    dump_signal: str = _setting(
        "",
        _choice("", "sigusr1", "sigusr2"),
        "sigusr1, sigusr2 or nothing",
        "The signal that makes the process write the holders of every pool to its log; none by default.",
    )
    native_aggregation: bool = _setting(
        default=True,
        parse=_switch,
        allowed=_SWITCH_WORDS,
        description="Whether poolscope aggregates histograms itself, at a tenth of the SDK's cost.",
    )

    @classmethod
    def read(cls, overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None) -> Settings:
        """
        Read the settings.

        Args:
            overrides: Values given in code; an unknown name gives a warning that lists the known ones.
            environ: Where the variables are read; the process's environment when not given.

        Returns:
            Settings in which each value is allowed. It never raises.
        """
        settings, problems = examine(overrides, environ)
        for problem in problems:
            _logger.warning("%s", problem)
        return settings


def examine(
    overrides: Mapping[str, object] | None = None, environ: Mapping[str, str] | None = None
) -> tuple[Settings, list[str]]:
    """
    Read the settings, and say what is wrong with what was given.

    Args:
        overrides: Values given in code.
        environ: Where the variables are read; the process's environment when not given.

    Returns:
        Settings in which each value is allowed, and a sentence for each value and name that is not. It never raises.
    """
    variables = environment() if environ is None else environ
    given = dict(overrides or {})
    values: dict[str, Any] = {}
    problems = []
    for setting in fields(Settings):
        variable = variable_of(setting.name)
        if setting.name in given:
            source, value = setting.name, given.pop(setting.name)
        elif variables.get(variable, "").strip():
            source, value = variable, variables[variable]
        else:
            continue
        rule: Rule = setting.metadata["rule"]
        try:
            values[setting.name] = rule.parse(value)
        except WrongValueError:
            problems.append(
                f"{source}={_shown(value)} is not allowed ({rule.allowed}); using the default, {setting.default!r}"
            )
    if given:
        known = ", ".join(sorted(setting.name for setting in fields(Settings)))
        problems.append(f"Unknown settings, ignored: {', '.join(sorted(given))}. Known settings: {known}")
    return Settings(**values), [*problems, *_misspelt(variables)]


def _misspelt(variables: Iterable[str]) -> Iterator[str]:
    # Only what is near a setting: others may have variables with our prefix too, as our own tests have.
    known = [variable_of(setting.name) for setting in fields(Settings)]
    for variable in sorted(name for name in variables if name.startswith(PREFIX) and name not in known):
        meant = get_close_matches(variable, known, n=1, cutoff=_NEAR)
        if meant:
            yield f"{variable}: unknown setting, ignored. Did you mean {meant[0]}?"


def variable_of(setting: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + setting.upper()


def environment() -> Mapping[str, str]:
    """The process's environment, for whoever has to look at variables that are not poolscope's own."""
    return os.environ


def rules() -> dict[str, tuple[object, Rule]]:
    """Every setting with its default and rule, in order; the documentation's table is made from it."""
    return {setting.name: (setting.default, setting.metadata["rule"]) for setting in fields(Settings)}
