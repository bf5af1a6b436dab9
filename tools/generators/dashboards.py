"""The dashboards' JSON, made from the Python in `grafana/dashboards`."""

from __future__ import annotations

import sys


def generate() -> dict[str, str]:
    """
    Every dashboard.

    Returns:
        Its JSON by its path; nothing on Python 3.10, which Grafana's SDK does not know.
    """
    if sys.version_info < (3, 11):
        return {}
    from grafana import generate as dashboards  # noqa: PLC0415 - not importable where the SDK is not

    return dashboards.generate()
