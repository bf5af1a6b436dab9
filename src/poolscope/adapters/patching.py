"""
What adapters use of `poolscope.patching`, under the name they know.
"""

from __future__ import annotations

from typing import Final

from poolscope.patching import Patch, Patcher, Refused, active_patches, when_imported

__all__: Final = ["Patch", "Patcher", "Refused", "active_patches", "when_imported"]
