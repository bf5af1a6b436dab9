"""The alert rules, for Prometheus and for Grafana."""

from __future__ import annotations

import grafana.alerts


def generate() -> dict[str, str]:
    """
    The files.

    Returns:
        Their text by their path.
    """
    return grafana.alerts.generate()
