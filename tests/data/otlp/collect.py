"""
Send the recorded telemetry through the real Collector and keep what its file exporter writes.

    python -m tests.data.otlp.collect

Writes ``collector.jsonl`` beside this script; needs the Collector (`make pipeline-build`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import httpx

from examples.lab.pipeline import collector_binary
from examples.lab.processes import LOOPBACK, Child, free_port, listens

HERE = Path(__file__).parent
SIGNALS = {"cumulative.jsonl": "metrics", "traces.jsonl": "traces", "logs.jsonl": "logs"}
CONFIG = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "{address}"}}}}}}}}
exporters: {{file: {{path: "{path}", format: json, flush_interval: 100ms}}}}
service:
  telemetry: {{metrics: {{level: none}}}}
  pipelines:
    metrics: {{receivers: [otlp], exporters: [file]}}
    traces: {{receivers: [otlp], exporters: [file]}}
    logs: {{receivers: [otlp], exporters: [file]}}
"""
START_SECONDS = 30.0


def through_the_collector(target: Path) -> None:
    """
    Send every recording to a Collector that writes a file.

    Args:
        target: The file.
    """
    target.unlink(missing_ok=True)
    address = f"{LOOPBACK}:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="poolscope-collector-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(CONFIG.format(address=address, path=target))
        with Child([collector_binary(), "--config", config], log=Path(folder) / "log") as collector:
            collector.wait_ready(lambda: listens(int(address.rpartition(":")[2])), START_SECONDS)
            for file, signal in SIGNALS.items():
                for line in (HERE / file).read_text().splitlines():
                    _send(f"http://{address}/v1/{signal}", line)


def _send(url: str, line: str) -> None:
    answer = httpx.post(url, content=line, headers={"Content-Type": "application/json"}, timeout=10)
    answer.raise_for_status()


if __name__ == "__main__":
    through_the_collector(HERE / "collector.jsonl")
