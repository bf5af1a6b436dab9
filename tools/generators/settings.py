"""docs/settings.md, made from the settings and their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from poolscope.config import PREFIX, rules

if TYPE_CHECKING:
    from collections.abc import Iterator

HEAD = """\
# Settings

<!-- Made by `make generate` from src/poolscope/config.py; do not edit. -->

Each setting is an environment variable and a keyword of `PoolscopeInstrumentor().instrument()`; the keyword wins. A
value that is not allowed gives one warning that names the setting, the value and what is allowed, and the default is
used: the application starts all the same. A misspelt variable gives a warning that suggests the right one. Durations
are in seconds.

| variable | keyword | default | allowed | what it does |
| --- | --- | --- | --- | --- |
"""


def generate() -> dict[str, str]:
    """
    The page.

    Returns:
        Its text by its path.
    """
    return {"docs/settings.md": HEAD + "\n".join(_rows()) + "\n"}


def _rows() -> Iterator[str]:
    for name, (default, rule) in rules().items():
        shown = f"`{_text(default)}`" if _text(default) else "nothing"
        yield f"| `{PREFIX}{name.upper()}` | `{name}` | {shown} | {rule.allowed} | {rule.description} |"


def _text(default: object) -> str:
    if isinstance(default, bool):
        return str(default).lower()
    return ",".join(default) if isinstance(default, tuple) else str(default)
