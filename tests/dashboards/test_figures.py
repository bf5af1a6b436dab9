"""What the panels' queries answer where a fleet is not as simple as the demo: asked of Prometheus's own test runner."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from grafana import collector, generate, links
from grafana.prometheus import family, label
from poolscope import semconv
from tests.dashboards import lint
from tests.support.skips import PIPELINE_TOOL_MISSING, require
from tools.pipeline_build import find_binaries

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
POOL = {
    collector.SERVICE: "shop", collector.INSTANCE: "host-1", label(semconv.POOL_NAME): "orders",
    label(semconv.DB_SYSTEM): "postgresql", label(semconv.SERVER_ADDRESS): "db", label(semconv.SERVER_PORT): "5432",
}  # fmt: skip
SERVER = {key: POOL[key] for key in map(label, (semconv.SERVER_ADDRESS, semconv.SERVER_PORT))}
SECOND = {**SERVER, "server_port": "5433"}


def series(name: str, *labels: Mapping[str, str], **more: str) -> str:
    """A series in the notation of promtool."""
    merged = {key: text for part in (*labels, more) for key, text in part.items()}
    return f"{name}{{{','.join(f'{key}={json.dumps(text)}' for key, text in merged.items())}}}"


def server(where: Mapping[str, str], limit: int, used: int) -> dict[str, int]:
    """A server that the Collector monitors, with three connections reserved."""
    return {
        series(family(collector.SERVER_CONNECTIONS_MAX), where): limit,
        series(family(collector.SERVER_CONNECTIONS_RESERVED), where): 3,
        series(family(collector.SERVER_CONNECTIONS), where, state="idle"): used,
    }


# Two servers on one machine, one with more pool limits than connections, and a cache that no Collector monitors.
FLEET = {
    **server(SERVER, 103, 20),
    **server(SECOND, 53, 45),
    series(family(semconv.CONNECTION_MAX), POOL): 30,
    series(family(semconv.CONNECTION_MAX), POOL, SECOND, db_client_connection_pool_name="bills"): 60,
    series(family(semconv.CONNECTION_MAX), POOL, server_port="6379", db_client_connection_pool_name="cache"): 500,
}
# A worker that keeps its instance id over a deploy: the series of the version before have not expired yet.
DEPLOYED = {
    series(family(metric), POOL, service_version=version): value
    for metric, values in ((semconv.USED_PEAK, (10, 4)), (semconv.CONNECTION_MAX, (10, 10)))
    for version, value in zip(("1.0", "2.0"), values, strict=True)
}
FIRING = {
    series("ALERTS", alertstate="firing", alertname="PoolTimeouts", service_name="shop"): 1,
    series("ALERTS", alertstate="firing", alertname="PoolTimeouts", service_name="mail"): 1,
    series("ALERTS", alertstate="firing", alertname="CollectorDown"): 1,
    series("ALERTS", alertstate="pending", alertname="PoolSaturated", service_name="shop"): 1,
    series("ALERTS", alertstate="firing", alertname="DiskFull", service_name="shop"): 1,
}


@dataclass(frozen=True)
class Figure:
    """What a panel shows of some series."""

    law: str
    uid: str
    panel: str
    series: Mapping[str, int]
    shown: Mapping[str, float]


FIGURES = [
    Figure("a deploy does not break the join with the limits", links.FLEET, "Fullest pool", DEPLOYED, {"{}": 1}),
    Figure("ports tell servers apart", links.FLEET, "Sum of pool limits, as a share of what the server accepts", FLEET,
           {series("", SERVER): 0.3, series("", SECOND): 1.2}),
    Figure("the fullest server counts", links.POSTGRESQL, "Budget used", FLEET, {"{}": 1.2}),
    Figure("the fullest server counts", links.POSTGRESQL, "Connected", FLEET, {"{}": 0.9}),
    Figure("what is reserved is not accepted", links.POSTGRESQL, "Server accepts", FLEET, {"{}": 150}),
    Figure("a cache has no part in it", links.POSTGRESQL, "Pools may open", FLEET, {"{}": 90}),
    Figure("other alerts and services do not count", links.FINDINGS, "Alerts firing", FIRING, {"{}": 2}),
]  # fmt: skip


def asked(figure: Figure) -> str:
    """The panel's query with the service ``shop`` chosen, and everything else."""
    model = json.loads((ROOT / generate.FOLDER / f"{figure.uid}.json").read_text(encoding="utf-8"))
    (panel,) = [panel for panel in lint.panels(model) if panel["title"] == figure.panel]
    expr: str = panel["targets"][0]["expr"]
    return expr.replace("$service", "shop").replace("$server", ".*").replace("$pool", ".*")


@pytest.mark.parametrize("figure", FIGURES, ids=lambda figure: f"{figure.panel}: {figure.law}")
def test_a_panel_shows(figure: Figure, tmp_path: Path) -> None:
    """Of these series the panel shows these figures."""
    promtool = find_binaries().promtool
    require(
        promtool, f"{PIPELINE_TOOL_MISSING}: promtool is not built", "make pipeline-build (needs Go, minutes, once)"
    )
    assert promtool
    samples = [{"labels": labels, "value": value} for labels, value in figure.shown.items()]
    test = {
        "interval": "15s",
        "input_series": [{"series": one, "values": f"{value}x8"} for one, value in figure.series.items()],
        "promql_expr_test": [{"expr": asked(figure), "eval_time": "1m", "exp_samples": samples}],
    }
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "plan.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
