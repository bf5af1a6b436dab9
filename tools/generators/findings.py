"""docs/findings.md: every kind of finding, made from the catalogue."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from poolscope.core.catalogue import KINDS
from poolscope.core.finding_kind import Source, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from poolscope.core.finding_kind import Field, FindingKind

HEAD = """\
# Findings

<!-- Made by `make generate` from src/poolscope/core/catalogue; do not edit. -->

A finding is one problem that poolscope has detected, with the place in the code, the evidence and the fix. Its id is
the same in the event, on the span, in the alert, on the dashboard, in the report and in the name of its page.
"""
EVIDENCE = """
## Evidence

Each finding's page explains its evidence. Figures are in these units; evidence without a unit is a text, a list of
lines or an identifier.

| attribute of the event | unit | found in |
| --- | --- | --- |"""
SOURCES = {
    Source.DETECTOR: "event",
    Source.CAUSE: "cause in an event",
    Source.ALERT: "alert only",
}


def generate() -> dict[str, str]:
    """
    The page.

    Returns:
        Its text by its path.
    """
    return {"docs/findings.md": "\n".join([*_page(), ""])}


def _page() -> Iterator[str]:
    yield HEAD
    yield "| finding | severity | what is wrong | fix |\n| --- | --- | --- | --- |"
    for kind in KINDS.values():
        fixes = "; ".join((kind.fix, *(f"*{case}:* {fix}" for case, fix in kind.further_fixes.items())))
        yield f"| [{kind.id}]({_page_of(kind)}) | {kind.severity.value} | {kind.meaning} | {fixes} |"
    yield "\n## Events\n"
    yield "| finding | reported as | event |\n| --- | --- | --- |"
    for kind in KINDS.values():
        events = ", ".join(f"`{event.name}`" for event in (kind.event, kind.resolved_event) if event is not None)
        yield f"| `{kind.id}` | {SOURCES[kind.source]} | {events or '–'} |"
    yield EVIDENCE
    for part, ids in _evidence().items():
        unit = "" if part.unit is Unit.NONE else f"`{part.unit.value}`"
        yield f"| `{part.attribute}` | {unit} | {', '.join(ids)} |"


def _evidence() -> dict[Field, list[str]]:
    found: dict[Field, list[str]] = {}
    for kind in KINDS.values():
        # A cause's evidence is that of the event that names it.
        if kind.source is not Source.CAUSE:
            for part in kind.evidence.values():
                found.setdefault(part, []).append(kind.id)
    return found


def _page_of(kind: FindingKind) -> str:
    return str(PurePosixPath(kind.page).relative_to("docs"))
