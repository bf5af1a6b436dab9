"""
The one catalogue of findings: what is wrong, how it is known, and how to fix it.

The events, the attributes of their evidence, the documentation's tables, the report, the terminal's units, the
dashboards and the alerts' pages are derived from it: an id, its event, severity, fix and units stand in its group's
module and nowhere else.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from poolscope.core.catalogue import connects, exhaustion, holds, kept, leaks, locks, loops, pools, queries

if TYPE_CHECKING:
    from collections.abc import Mapping

    from poolscope.core.finding_kind import FindingKind, Unit

_GROUPS: Final = (leaks, exhaustion, connects, loops, holds, queries, pools, locks, kept)

#: Every kind of finding, by its id.
KINDS: Final[Mapping[str, FindingKind]] = MappingProxyType({kind.id: kind for group in _GROUPS for kind in group.KINDS})

FINDING_IDS: Final = tuple(KINDS)

#: What each attribute of evidence is measured in.
UNITS: Final[Mapping[str, Unit]] = MappingProxyType(
    {part.attribute: part.unit for kind in KINDS.values() for part in kind.evidence.values()}
)
