"""What every dashboard has: variables, links to the other dashboards, and rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeAlias

from grafana import panels, prometheus, query
from grafana.collector import INSTANCE, SERVER_CONNECTIONS_MAX, SERVICE
from grafana.sdk import Builder, d, dashboard, plain
from poolscope import semconv

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Panels: TypeAlias = "Iterable[Builder[dashboard.Panel]]"
TAG: Final = "poolscope"
REFRESH: Final = "10s"

_COUNT: Final = prometheus.family(semconv.CONNECTION_COUNT)
_VARIABLES: Final = {
    "service": ("Service", f"label_values({_COUNT}, {SERVICE})", "The services, by service.name."),
    "pool": (
        "Pool",
        f"label_values({_COUNT}{query.SERVICES}, {query.POOL})",
        "The connection pools of these services.",
    ),
    "instance": (
        "Instance",
        f"label_values({_COUNT}{query.POOLS}, {INSTANCE})",
        "The processes; each worker process has its own pool.",
    ),
    "server": (
        "Server",
        f"label_values({prometheus.family(SERVER_CONNECTIONS_MAX)}, {query.SERVER})",
        "The database servers, by the address that the applications use.",
    ),
}


def board(
    uid: str, title: str, description: str, variables: Iterable[str], rows: Mapping[str, Panels]
) -> dict[str, object]:
    """
    A whole dashboard in Grafana's classic model.

    Args:
        uid: Its id, which never changes: links use it.
        title: Its name.
        description: What it is for.
        variables: Which of the filters it has, in this order.
        rows: Its panels by the question that they answer, in the order in which an operator asks them.

    Returns:
        The model in the form of its JSON.
    """
    made = d.Dashboard(title).uid(uid).description(description).tags([TAG]).readonly()
    made = (
        made.time("now-30m", "now")
        .refresh(REFRESH)
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
    )
    made = made.with_variable(_source("datasource", "Metrics", "prometheus"))
    made = made.with_variable(_source("traces", "Traces", "tempo").hide(dashboard.VariableHide.HIDE_VARIABLE))
    for name in variables:
        made = made.with_variable(_filter(name))
    links = d.DashboardLink("Connection pools").type(dashboard.DashboardLinkType.DASHBOARDS).tags([TAG])
    made = made.link(links.include_vars(include_vars=True).keep_time(keep_time=True))
    for question, content in rows.items():
        made = made.with_row(d.Row(question))
        for panel in content:
            made = made.with_panel(panel)
    model = made.build()
    for number, panel in enumerate(model.panels or [], start=1):
        panel.id_val = number
    return plain(model)


def _source(name: str, label: str, kind: str) -> d.DatasourceVariable:
    return d.DatasourceVariable(name).label(label).type(kind)


def _filter(name: str) -> d.QueryVariable:
    label, values, description = _VARIABLES[name]
    everything = dashboard.VariableOption(selected=True, text="All", value="$__all")
    made = d.QueryVariable(name).label(label).description(description).datasource(panels.PROMETHEUS)
    made = made.query({"query": values, "refId": "values", "qryType": 5}).definition(values)
    made = made.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(dashboard.VariableSort.ALPHABETICAL_ASC)
    return made.multi(multi=True).include_all(include_all=True).all_value(".*").current(everything)
