"""The dashboards, one module each; a module has a function ``dashboard()`` that returns the model."""

from __future__ import annotations

from grafana.dashboards import findings, fleet, pool, postgresql, requests

ALL = (fleet, pool, requests, postgresql, findings)
