"""
Grafana's foundation SDK, imported in one place.

On import it warns that a newer dashboard model exists. File provisioning reads the classic model in every Grafana
version, so the warning is suppressed: it is an error where warnings are errors.
"""

from __future__ import annotations

import json
import warnings
from typing import cast

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana_foundation_sdk.builders import bargauge, heatmap, stat, table, text, timeseries
    from grafana_foundation_sdk.builders import common as c
    from grafana_foundation_sdk.builders import dashboard as d
    from grafana_foundation_sdk.builders import prometheus as p
    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models import common, dashboard, prometheus
    from grafana_foundation_sdk.models.heatmap import HeatmapColorMode, HeatmapColorScale
    from grafana_foundation_sdk.models.text import TextMode

__all__ = [
    "Builder",
    "HeatmapColorMode",
    "HeatmapColorScale",
    "TextMode",
    "bargauge",
    "c",
    "common",
    "d",
    "dashboard",
    "heatmap",
    "p",
    "plain",
    "prometheus",
    "stat",
    "table",
    "text",
    "timeseries",
]  # fmt: skip


def plain(model: object) -> dict[str, object]:
    """A model of the SDK as plain lists, dictionaries, strings and numbers."""
    return cast("dict[str, object]", json.loads(JSONEncoder().encode(model)))
