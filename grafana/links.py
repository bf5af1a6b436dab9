"""
Links from a dashboard to the others, to traces and to the pages of the findings.

The alerts use the same addresses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import Enum
from typing import Final
from urllib.parse import quote

from grafana import query
from grafana.collector import INSTANCE, SERVICE
from poolscope.core.catalogue import KINDS


class Dashboard(Enum):
    """The dashboards; the value is the uid, which never changes, for it is the address: ``/d/<uid>``."""

    POOLS = "poolscope-fleet"
    POOL = "poolscope-pool"
    REQUESTS = "poolscope-requests"
    SERVER = "poolscope-postgresql"
    FINDINGS = "poolscope-findings"


FLEET: Final = Dashboard.POOLS.value
POOL: Final = Dashboard.POOL.value
REQUESTS: Final = Dashboard.REQUESTS.value
POSTGRESQL: Final = Dashboard.SERVER.value
FINDINGS: Final = Dashboard.FINDINGS.value

# Grafana serves the files of its folder `public` without a login; docker-compose.yml mounts `docs` there.
DOCS: Final = "/public/poolscope"

_TIME: Final = "${__url_time_range}"
_SOURCE: Final = "${datasource:queryparam}"


@dataclass(frozen=True)
class Link:
    """
    A link of a panel or of a value in it.

    Args:
        title: What the reader finds there.
        url: The address; Grafana replaces the variables in it.
        of_data: Whether the link belongs to a value, whose labels Grafana puts in, and not to the whole panel.
    """

    title: str
    url: str
    of_data: bool = False


def to(uid: str, title: str, *variables: str) -> Link:
    """
    A link to another dashboard that keeps the time range and these variables.

    Args:
        uid: The uid of a `Dashboard`.
        title: What the reader finds there.
        variables: Those that both dashboards have.
    """
    kept = "&".join([_TIME, _SOURCE, *(f"${{{variable}:queryparam}}" for variable in variables)])
    return Link(title, f"/d/{uid}?{kept}")


def of_series(uid: str, title: str, *kept: str, **variables: str) -> Link:
    """
    A link from one line of a graph: its labels set the variables of the other dashboard.

    The query must keep these labels. They are encoded explicitly, since Grafana leaves `#` and `&` as they are by
    default, and the second of two pools of one name is called `name#2`.

    Args:
        uid: The uid of a `Dashboard`.
        title: What the reader finds there.
        kept: Variables that keep their values.
        variables: The label by the variable.
    """
    chosen = [f"${{{variable}:queryparam}}" for variable in kept]
    chosen += [f"var-{variable}=${{__field.labels.{label}:percentencode}}" for variable, label in variables.items()]
    return Link(title, f"/d/{uid}?{'&'.join([_TIME, _SOURCE, *chosen])}", of_data=True)


def of_row(uid: str, title: str, **variables: str) -> Link:
    """
    A link from one row of a table: its columns set the variables of the other dashboard.

    Args:
        uid: The uid of a `Dashboard`.
        title: What the reader finds there.
        variables: The column's title by the variable.
    """
    chosen = [f'var-{variable}=${{__data.fields["{column}"]:percentencode}}' for variable, column in variables.items()]
    return Link(title, f"/d/{uid}?{'&'.join([_TIME, _SOURCE, *chosen])}", of_data=True)


def traces(title: str, traceql: str) -> Link:
    """
    A link to the traces that a query finds in the chosen trace store.

    Args:
        title: What the reader finds there.
        traceql: The query.
    """
    pane = {
        "datasource": "${traces}",
        "queries": [{"refId": "A", "queryType": "traceql", "query": traceql, "limit": 20}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    return Link(title, f"/explore?schemaVersion=1&panes={quote(json.dumps({'poolscope': pane}), safe='${}')}")


def page(finding: str) -> Link:
    """The page of a finding: what it means, how poolscope finds it, and how to fix it."""
    return Link(f"What {finding} means", f"{DOCS}/{KINDS[finding].page.removeprefix('docs/')}")


POOL_OF_SERIES: Final = of_series(POOL, "This pool", service=SERVICE, pool=query.POOL)
INSTANCE_OF_SERIES: Final = of_series(POOL, "Only this process", "service", "pool", instance=INSTANCE)
