"""What a trace store got."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path

from examples.lab.pipeline import Collector


class Sink(Collector):
    """A Collector in the place of the trace store."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, Path(__file__).with_name("sink.yaml"))

    def traces(self) -> dict[str, list[str]]:
        """The names of the spans that arrived, by trace id."""
        found: dict[str, list[str]] = defaultdict(list)
        path = self.folder / "traces.jsonl"
        if not path.exists():
            return found
        # The last line may be half written.
        for line in path.read_text().splitlines(keepends=True):
            if not line.endswith("\n"):
                continue
            for resource in json.loads(line)["resourceSpans"]:
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        found[span["traceId"]].append(span["name"])
        return found


def figure(collector: Collector, name: str) -> float:
    """The sum of a metric that a Collector has about itself."""
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", collector.page("self"), re.MULTILINE)
    return sum(map(float, found))
