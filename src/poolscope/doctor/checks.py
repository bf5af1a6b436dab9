"""Every check, in the order of the report."""

from __future__ import annotations

from typing import Final

from poolscope.doctor import configuration, export, hooks, installation
from poolscope.doctor.model import Check

CHECKS: Final = (
    Check("versions", "Versions", installation.versions),
    Check("entry_point", "Auto-instrumentation", installation.entry_point),
    Check("settings", "Settings", configuration.settings),
    Check("pools", "Pool libraries", hooks.pool_libraries),
    Check("frameworks", "Frameworks", hooks.frameworks),
    Check("export", "Telemetry", export.export),
)
