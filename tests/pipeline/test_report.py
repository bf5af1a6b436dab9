"""
The report reads what the real Collector's file exporter writes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from poolscope.report import build_report
from tests.data.otlp.collect import HERE, SIGNALS, through_the_collector

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("collector")
def test_a_collectors_file_says_what_went_in(tmp_path: Path) -> None:
    """
    Nothing is lost or counted twice on the way through the Collector, whatever lines it makes of it.
    """
    through_the_collector(tmp_path / "collector.jsonl")

    assert build_report([tmp_path]) == build_report([HERE / file for file in SIGNALS])
