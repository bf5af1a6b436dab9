"""Formats figures for people."""

from __future__ import annotations

import math
import re
from pathlib import PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from poolscope.report import CallSite
    from poolscope.report.distribution import Distribution

NOTHING = "-"
_MILLI = 1e-3
_PERCENT = 0.01
_MINUTE = 60.0
_LARGE = 100.0
_HEIGHTS = "▁▂▃▄▅▆▇█"
_EIGHTHS = " ▏▎▍▌▋▊▉"
_PATH_PARTS = 2
_COLUMNS = 40
# Python's names for functions without a name, inside a function with one.
_NAMELESS = re.compile(r"(?:\.<locals>)?\.<(?:dictcomp|listcomp|setcomp|genexpr|lambda)>")
_PATH = re.compile(r"/[^\s:]+")
# The end of a path, and what follows it.
_END = re.compile(r"\.py\b")


def seconds(value: float | None) -> str:
    """A duration with a suitable unit and about three digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 0.0:
        return f"-{seconds(-value)}"
    value = float(f"{value:.3g}")
    if value < _MILLI:
        return "0" if value == 0.0 else f"{value * 1e6:.0f} µs"
    if value < 1.0:
        return f"{value * 1e3:.3g} ms"
    if value < _MINUTE:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


def number(value: float) -> str:
    """A number without a unit: whole if it is whole or large, else about three digits."""
    if not math.isfinite(value):
        return NOTHING
    if value == round(value) or abs(value) >= _LARGE:
        return f"{value:.0f}"
    return f"{value:.3g}"


def counted(number: int, what: str) -> str:
    """A number and a noun with a regular plural."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def percent(share: float) -> str:
    """A share as a percentage; only 0 is shown as 0."""
    if not math.isfinite(share):
        return NOTHING
    if 0.0 < share < _PERCENT:
        return "<1 %"
    return f"{share * 100:.0f} %"


def bar(share: float, width: int) -> str:
    """A horizontal bar, in eighths of a character."""
    full, part = divmod(round(max(0.0, min(share, 1.0)) * width * 8), 8)
    return ("█" * full + (_EIGHTHS[part] if part else "")).ljust(width)


def code_location(call_site: CallSite) -> str:
    """File, line and function, with the last parts of the path."""
    if not call_site.file:
        return call_site.function or NOTHING
    path = "/".join(PurePath(call_site.file).parts[-_PATH_PARTS:])
    return f"{path}:{call_site.line} {_NAMELESS.sub('', call_site.function)}".rstrip()


def short_paths(text: str) -> str:
    """A text with every path of a Python file cut to its last two parts, and function names without comprehensions."""
    return _NAMELESS.sub("", _PATH.sub(_short_path, text))


def _short_path(match: re.Match[str]) -> str:
    path = match[0]
    end = max((found.end() for found in _END.finditer(path)), default=0)
    parts = path[:end].split("/")[-_PATH_PARTS:]
    return "/".join(parts) + path[end:] if all(parts) and end else path


def spark(distribution: Distribution) -> tuple[str, str, str]:
    """
    A histogram in one line: a column per bucket, or per several of many, from the first filled bucket to the last.

    Returns:
        The columns, the lower end of the first and the upper end of the last bucket.
    """
    filled = [index for index, count in enumerate(distribution.counts) if count]
    if not filled:
        return "", "", ""
    first, last = filled[0], filled[-1]
    counts = distribution.counts[first : last + 1]
    each = -(-len(counts) // _COLUMNS)
    counts = tuple(sum(counts[start : start + each]) for start in range(0, len(counts), each))
    top = max(counts)
    columns = "".join(_HEIGHTS[max(0, -(-count * len(_HEIGHTS) // top) - 1)] if count else " " for count in counts)
    low = distribution.bounds[first - 1] if first else 0.0
    high = distribution.bounds[last] if last < len(distribution.bounds) else distribution.maximum
    return columns, seconds(low), seconds(high)
