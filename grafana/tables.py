"""Tables: one row per set of labels, one query per column of values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from grafana.panels import PanelOptions, instant, setting, threshold_config, with_options
from grafana.sdk import c, common, dashboard, prometheus, table

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana.links import Link


@dataclass(frozen=True)
class Column:
    """
    One column of a table.

    Args:
        title: Its header.
        source: A label, or PromQL that is evaluated at the end of the time range.
        unit: Grafana's id of the unit; empty for a label.
        thresholds: The values from which a cell is orange and red.
        width: In pixels; 0 for the remaining space.
        link: Where a cell leads.
        decimals: Digits after the decimal point.
        bar: Whether cells are drawn as bars, for shares.
    """

    title: str
    source: str
    unit: str = ""
    thresholds: tuple[float, ...] = ()
    width: int = 0
    link: Link | None = None
    decimals: int | None = None
    bar: bool = False


def table_panel(options: PanelOptions, columns: Iterable[Column], *, sort_by: str) -> table.Panel:
    """
    A table with one row per set of labels.

    Args:
        options: What it shows beside its data.
        columns: Labels first, then values.
        sort_by: The title of the column that is sorted by, highest value first.
    """
    columns = tuple(columns)
    labels = [column for column in columns if not column.unit]
    values = [column for column in columns if column.unit]
    # Cells link through their columns.
    panel = (
        with_options(table.Panel(), options)
        .data_links([])
        .cell_height(common.TableCellHeight.SM)
        .show_header(show_header=True)
    )
    titles = {column.source: column.title for column in labels}
    for letter, column in zip("ABCDEFGHIJKLMNOP", values, strict=False):
        panel = panel.with_target(instant(column.source, letter, prometheus.PromQueryFormat.TABLE))
        titles[f"Value #{letter}" if len(values) > 1 else "Value"] = column.title
    order = {source: position for position, source in enumerate(titles)}
    organised = {"excludeByName": {"Time": True}, "renameByName": titles, "indexByName": order}
    panel = panel.with_transformation(dashboard.DataTransformerConfig(id_val="merge", options={}))
    panel = panel.with_transformation(dashboard.DataTransformerConfig(id_val="organize", options=organised))
    for column in columns:
        panel = panel.override_by_name(column.title, list(_column(column)))
    return panel.sort_by([c.TableSortByFieldState().display_name(sort_by).desc(desc=True)])


def _column(column: Column) -> Iterable[dashboard.DynamicConfigValue]:
    if column.unit:
        yield setting("unit", column.unit)
    else:
        yield setting("noValue", "—")
    if column.width:
        yield setting("custom.width", column.width)
    if column.decimals is not None:
        yield setting("decimals", column.decimals)
    if column.thresholds:
        steps = threshold_config(column.thresholds).build()
        yield setting("thresholds", steps.to_json())
        yield setting("custom.cellOptions", {"type": "color-text"})
    if column.bar:
        yield setting("min", 0)
        yield setting("max", 1)
        yield setting("custom.cellOptions", {"type": "gauge", "mode": "basic", "valueDisplayMode": "color"})
    if column.link:
        yield setting("links", [{"title": column.link.title, "url": column.link.url}])
