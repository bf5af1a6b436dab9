"""The evidence of a kind of finding, put briefly."""

from __future__ import annotations

from typing import Final

from poolscope import semconv
from poolscope.core.finding_kind import Field, Unit


def fields(unit: Unit, *short: str, **attributes: str) -> dict[str, Field]:
    """
    Pieces of evidence, by their short names.

    Args:
        unit: What they are measured in.
        short: Those without an attribute of their own: it goes under the prefix of evidence.
        attributes: The others, with their attributes.
    """
    own = {name: Field(unit, attribute) for name, attribute in attributes.items()}
    return {name: Field(unit, semconv.EVIDENCE_PREFIX + name) for name in short} | own


#: How many more there were since the last report.
REPEATED: Final = fields(Unit.COUNT, "repeated")
