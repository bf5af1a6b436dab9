"""What Alertmanager holds back, by the committed file: a symptom whose cause is reported."""

from __future__ import annotations

import json
import urllib.request
from typing import TYPE_CHECKING

import pytest

from examples.lab.pipeline import Alertmanager
from examples.lab.processes import wait_until
from examples.lab.webhook import webhook

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(120)

Labels = dict[str, str]
POOL = {"service_name": "shop", "db_client_connection_pool_name": "orders"}
LEAK = {"alertname": "ConnectionLeak", "finding": "connection_leak", **POOL}
SATURATED = {"alertname": "PoolSaturated", "finding": "pool_too_small", **POOL}
DOWN = {"alertname": "CollectorDown", "instance": "collector:8888"}
SILENT = {"alertname": "PoolscopeNoData", "service_name": "shop"}
UNWATCHED = {"alertname": "ServerUnwatched", "server_address": "db"}
TIMEOUTS = {"alertname": "PoolTimeouts", "finding": "pool_exhausted", **POOL}


@pytest.fixture
def manager(alertmanager: Path, tmp_path: Path) -> Iterator[str]:
    """The address of an Alertmanager with the committed file."""
    with webhook() as hook, Alertmanager(tmp_path, hook.url, patience="1s") as running:
        yield f"http://{running.address}/api/v2/alerts"


@pytest.mark.parametrize(
    ("cause", "symptom", "held_back"),
    [
        (LEAK, SATURATED, True),
        (LEAK, {**SATURATED, "db_client_connection_pool_name": "bills"}, False),
        (LEAK, TIMEOUTS, False),
        (DOWN, SILENT, True),
        (DOWN, UNWATCHED, True),
        (DOWN, TIMEOUTS, False),
    ],
    ids=lambda value: value["alertname"] if isinstance(value, dict) else None,
)
def test_a_symptom_is_held_back_while_its_cause_is_reported(
    manager: str, cause: Labels, symptom: Labels, held_back: bool
) -> None:
    """
    Of a cause and its symptom only the cause is reported; what says something else, or of something
    else, is reported too.
    """
    body = json.dumps([{"labels": cause}, {"labels": symptom}]).encode()
    request = urllib.request.Request(manager, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200

    def states() -> dict[str, str]:
        with urllib.request.urlopen(manager, timeout=10) as answer:
            return {json.dumps(each["labels"], sort_keys=True): each["status"]["state"] for each in json.load(answer)}

    expected = {json.dumps(cause, sort_keys=True): "active"}
    expected[json.dumps(symptom, sort_keys=True)] = "suppressed" if held_back else "active"
    wait_until(lambda: states() == expected, 30, f"{expected}")
