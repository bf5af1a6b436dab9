"""Findings on a terminal: each cause with its location, evidence and fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from poolscope import semconv
from poolscope.cli import figures
from poolscope.cli.shown import line, whole
from poolscope.core.catalogue import KINDS, UNITS
from poolscope.core.finding_kind import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from poolscope.report import FindingReport

_COLOURS = {"critical": "red", "warning": "yellow", "info": "blue"}
_LINES_SHOWN = 4
_SHORT = 60
_LABEL = 40
_LENGTH = 200

# Evidence with a row of its own, in this order; other texts follow, and all figures share one row.
_LABELS = {
    semconv.CAUSE: "cause",
    semconv.HOLDERS: "holders",
    semconv.DB_QUERY_TEXT: "query",
    semconv.CURRENT_LOCATION: "currently executing",
    semconv.CODE_STACKTRACE: "called by",
}
# The panel's subject is not repeated before each figure.
_SUBJECT = re.compile(r"^(?:lease|pool|statement)\.")
# Evidence that other rows show.
_HIDDEN = frozenset({semconv.UNIT_OF_WORK_KIND, "owner"})
_LIBRARIES = ("site-packages", "dist-packages")
_HOLDER = re.compile(r"(?P<hold>[^;]+); checked out at (?P<location>[^;]+)")
_SHARE = "_share"


def render_findings(console: Console, findings: Sequence[FindingReport]) -> None:
    """Print each finding in a panel of its own."""
    for finding in findings:
        console.print(_panel(finding))


def _panel(finding: FindingReport) -> Panel:
    finding = whole(finding)
    colour = _COLOURS.get(finding.severity, "white")
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("summary", Text(figures.short_paths(_summary(finding)), "bold"))
    if finding.call_site.route:
        table.add_row("route", Text(finding.call_site.route))
    if finding.call_site.file or finding.call_site.function:
        table.add_row("line", Text(figures.code_location(finding.call_site)))
    for label, value in _evidence(finding.evidence):
        table.add_row(Text(line(label, _LABEL)), Text(value))
    if finding.fix:
        table.add_row("fix", Text(figures.short_paths(finding.fix), "green"))
    if finding.page:
        table.add_row("page", Text(finding.page, "dim"))
    name = KINDS[finding.id].heading if finding.id in KINDS else _words(finding.id)
    title = Text.assemble((name, f"bold {colour}"), f"  {finding.severity}")
    count = figures.counted(finding.count, "occurrence")
    if finding.resolved:
        count += f", {finding.resolved} returned later"
    return Panel(table, title=title, title_align="left", subtitle=count, subtitle_align="right", border_style=colour)


def _summary(finding: FindingReport) -> str:
    # The statement has a row of its own.
    return finding.summary.removesuffix(f": {finding.evidence.get(semconv.DB_QUERY_TEXT)}")


def _evidence(evidence: Mapping[str, object]) -> list[tuple[str, str]]:
    rows, facts = [], []
    for name in sorted(evidence, key=lambda name: list(_LABELS).index(name) if name in _LABELS else len(_LABELS)):
        value = evidence[name]
        label = _SUBJECT.sub("", name.removeprefix(semconv.EVIDENCE_PREFIX).removeprefix("poolscope."))
        if name in _HIDDEN or label in _HIDDEN or not value:
            continue
        if isinstance(value, (int, float)):
            facts.append(_figure(label, value, UNITS.get(name, Unit.NONE)))
        elif isinstance(value, str) and len(value) < _SHORT and name not in _LABELS:
            facts.append(f"{_words(label)} {_words(value)}")
        elif text := _lines(name, value):
            rows.append((_LABELS.get(name, _words(label)), text))
    if facts:
        rows.append(("figures", ", ".join(facts)))
    return rows


def holder_lines(holders: Sequence[str]) -> list[str]:
    """
    The holders of an exhaustion report by the line that checked them out, each with its longest hold.

    Args:
        holders: One text per hold, longest first.
    """
    found: dict[str, tuple[int, str]] = {}
    for holder in holders:
        match = _HOLDER.match(holder)
        location, hold = (match["location"], match["hold"]) if match else ("", holder)
        count, longest = found.get(location or holder, (0, hold))
        found[location or holder] = (count + 1, longest)
    return [
        hold if hold == location else f"{count} from {location}: {hold}" for location, (count, hold) in found.items()
    ]


def _figure(label: str, value: float, unit: Unit) -> str:
    if unit is Unit.SHARE:
        return f"{figures.percent(value)} {_words(label.removesuffix(_SHARE))}"
    if unit is Unit.PER_SECOND:
        return f"{_words(label)} {figures.number(value)}/s"
    if unit is Unit.SECONDS:
        return f"{_words(label)} {figures.seconds(value)}"
    return f"{_words(label)} {figures.number(value)}"


def _lines(name: str, value: object) -> str:
    if not isinstance(value, (tuple, list)):
        text = str(value)
        return _cut(_words(text) if name == semconv.CAUSE else figures.short_paths(text))
    lines = [str(each) for each in value]
    # The first line is the checkout itself; of its callers, only the application's own lines are kept.
    lines = [each for each in lines if each == lines[0] or not any(library in each for library in _LIBRARIES)]
    if name == semconv.CODE_STACKTRACE:
        # The row "line" shows the first line.
        del lines[:1]
    if name == semconv.HOLDERS:
        lines = holder_lines(lines)
    more = [f"and {len(lines) - _LINES_SHOWN} more"] if len(lines) > _LINES_SHOWN else []
    return "\n".join([*(_cut(figures.short_paths(each)) for each in lines[:_LINES_SHOWN]), *more])


def _words(name: str) -> str:
    return name.replace(".", " ").replace("_", " ")


def _cut(text: str) -> str:
    return text if len(text) <= _LENGTH else f"{text[:_LENGTH]}…"
