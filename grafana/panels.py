"""
The kinds of panel that the dashboards use, with one common look.

These are the kinds that Grafana's own component library draws outside its server, so that a test can draw what is
committed. Every panel says what good and bad look like, has a unit and thresholds, and links to the next step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from grafana.sdk import (
    HeatmapColorMode,
    HeatmapColorScale,
    TextMode,
    bargauge,
    c,
    common,
    d,
    dashboard,
    heatmap,
    p,
    prometheus,
    stat,
    table,
    text,
    timeseries,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana.links import Link

PROMETHEUS: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN: Final = "green"
ORANGE: Final = "orange"
RED: Final = "red"
BLUE: Final = "blue"
GREY: Final = "text"
_COLOURS: Final = (ORANGE, RED)
# A threshold above this is too high to be the top of the axis while the line is healthy.
HIGHEST_SOFT_MAXIMUM: Final = 60

Visual = TypeVar(
    "Visual", bargauge.Panel, heatmap.Panel, stat.Panel, table.Panel, timeseries.Panel
)  # fmt: skip


@dataclass(frozen=True)
class PanelOptions:
    """
    What every panel shows beside its data.

    Args:
        title: What it shows, as short as possible.
        good: What a healthy service looks like here.
        bad: What trouble looks like here, and where to look next.
        unit: Grafana's id of the unit.
        thresholds: The values from which it is orange and red; a single value is red; none where a series of the panel
            is the limit, or the value is neither good nor bad.
        links: Where it leads.
        width: Of 24 columns.
        height: In rows of 30 pixels.
        decimals: Digits after the decimal point, where Grafana's own choice reads badly.
        maximum: The highest value of the axis or bar, where it is known.
        no_value: The text of a panel that has no data in normal operation.
    """

    title: str
    good: str
    bad: str
    unit: str
    thresholds: tuple[float, ...]
    links: tuple[Link, ...]
    width: int = 8
    height: int = 8
    decimals: int | None = None
    maximum: float | None = None
    no_value: str = ""

    @property
    def description(self) -> str:
        """The text behind the panel's information sign."""
        return f"**Good:** {self.good}\n\n**Bad:** {self.bad}"


def stat_options(
    title: str,
    *,
    good: str,
    bad: str,
    unit: str,
    thresholds: tuple[float, ...],
    links: tuple[Link, ...],
    decimals: int | None = None,
) -> PanelOptions:
    """The options of a small panel with one value; six fill a line."""
    return PanelOptions(title, good, bad, unit, thresholds, links, 4, 4, decimals)


@dataclass(frozen=True)
class Target:
    """
    One query of a panel.

    Args:
        expr: PromQL.
        legend: The name of each series, with labels in double braces.
        exemplars: Whether the panel shows the exemplars of a histogram, which lead to traces.
    """

    expr: str
    legend: str
    exemplars: bool = False


def stat_panel(options: PanelOptions, expr: str) -> stat.Panel:
    """
    One value, coloured by its thresholds, with its history behind it.

    Args:
        options: What it shows beside its data.
        expr: PromQL with one series.
    """
    panel = with_options(stat.Panel(), options)
    panel = panel.with_target(_range(Target(expr, options.title), "A"))
    panel = panel.graph_mode(common.BigValueGraphMode.AREA).color_mode(common.BigValueColorMode.VALUE)
    panel = panel.reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    return panel.text_mode(common.BigValueTextMode.VALUE).justify_mode(common.BigValueJustifyMode.CENTER)


def time_series_panel(
    options: PanelOptions, targets: Iterable[Target], *, stacked: bool = False, colours: dict[str, str] | None = None,
    limit_series: tuple[str, ...] = (), threshold_lines: bool = False, many_series: bool = False,
) -> timeseries.Panel:  # fmt: skip
    """
    Values over time.

    Args:
        options: What it shows beside its data.
        targets: Its queries.
        stacked: Whether the series are parts of a whole.
        colours: A fixed colour by the name of the series, where the colour has a meaning.
        limit_series: Names of series that are limits: dashed, neither filled nor stacked.
        threshold_lines: Whether the thresholds are drawn.
        many_series: Whether there are too many series for a legend below the graph: the legend is at the right, highest
            value first, and lines are not filled.
    """
    panel = with_options(timeseries.Panel(), options)
    for letter, target in zip("ABCDEFGHIJ", targets, strict=False):
        panel = panel.with_target(_range(target, letter))
    panel = (
        panel.min(0)
        .line_width(1.5)
        .fill_opacity(70 if stacked else 0 if many_series else 10)
        .show_points(common.VisibilityMode.NEVER)
    )
    panel = panel.span_nulls(60_000).color_scheme(d.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    if options.thresholds and options.thresholds[0] <= HIGHEST_SOFT_MAXIMUM:
        # A healthy line stays flat at the bottom instead of filling the panel with noise.
        panel = panel.axis_soft_max(options.thresholds[0])
    if stacked:
        panel = panel.stacking(c.StackingConfig().mode(common.StackingMode.NORMAL).group("A")).line_width(0)
    if threshold_lines:
        style = c.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [setting("color", {"mode": "fixed", "fixedColor": colour})])
    for name in limit_series:
        panel = panel.override_by_name(name, _limit_line())
    panel = panel.legend(_legend(many_series=many_series))
    return panel.tooltip(c.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))


def _legend(*, many_series: bool) -> c.VizLegendOptions:
    legend = c.VizLegendOptions().calcs(["lastNotNull"]).show_legend(show_legend=True)
    if many_series:
        legend = legend.sort_by("Last *").sort_desc(sort_desc=True)
        return legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
    return legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)


def bar_gauge_panel(options: PanelOptions, expr: str, legend: str) -> bargauge.Panel:
    """One bar per series, for the value at the end of the time range."""
    panel = with_options(bargauge.Panel(), options)
    panel = panel.with_target(instant(expr, "A", prometheus.PromQueryFormat.TIME_SERIES).legend_format(legend))
    panel = panel.reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)).min(0)
    panel = panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel = panel.sizing(common.BarGaugeSizing.MANUAL).min_viz_height(16).max_viz_height(40)
    panel = panel.name_placement(common.BarGaugeNamePlacement.TOP)
    panel = panel.text(c.VizTextDisplayOptions().title_size(13).value_size(16))
    return panel.value_mode(common.BarGaugeValueMode.COLOR)


def heatmap_panel(options: PanelOptions, expr: str) -> heatmap.Panel:
    """How many values fall into each bucket of a histogram, over time; the expression keeps the label ``le``."""
    panel = with_options(heatmap.Panel(), options)
    query = _range(Target(expr, "{{le}}", exemplars=True), "A").format(prometheus.PromQueryFormat.HEATMAP)
    panel = panel.with_target(query).calculate(calculate=False).cell_gap(1).show_legend()
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).fill("dark-orange")
    panel = panel.color(colour.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
    return panel.y_axis(heatmap.YAxisConfig().unit(options.unit).axis_placement(common.AxisPlacement.LEFT))


def text_panel(title: str, content: str, *, width: int = 24, height: int = 5) -> text.Panel:
    """Markdown."""
    panel = text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).span(width).height(height)
    return panel.description("How to read the rest of this dashboard.")


def with_options(panel: Visual, options: PanelOptions) -> Visual:
    """The panel with title, description, unit, thresholds, size and links."""
    panel = panel.title(options.title).description(options.description).datasource(PROMETHEUS)
    panel = panel.unit(options.unit).span(options.width).height(options.height)
    panel = panel.thresholds(threshold_config(options.thresholds))
    panel = panel.color_scheme(d.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    if options.decimals is not None:
        panel = panel.decimals(options.decimals)
    if options.maximum is not None:
        panel = panel.max(options.maximum)
    if options.no_value:
        panel = panel.no_value(options.no_value)
    panel = panel.data_links([d.DashboardLink(link.title).url(link.url) for link in options.links if link.of_data])
    return panel.links([d.DashboardLink(link.title).url(link.url) for link in options.links if not link.of_data])


def threshold_config(values: tuple[float, ...]) -> d.ThresholdsConfig:
    """Green, then orange and red from these values on; blue where there are none."""
    colours = _COLOURS[-len(values) :] if values else ()
    steps = [dashboard.Threshold(value=None, color=GREEN if values else BLUE)]
    steps += [dashboard.Threshold(value=value, color=colour) for value, colour in zip(values, colours, strict=True)]
    return d.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _range(target: Target, letter: str) -> p.Dataquery:
    query = p.Dataquery().expr(target.expr).legend_format(target.legend).ref_id(letter).range()
    query = query.datasource(PROMETHEUS).editor_mode(prometheus.QueryEditorMode.CODE)
    return query.exemplar(exemplar=True) if target.exemplars else query


def instant(expr: str, letter: str, form: prometheus.PromQueryFormat) -> p.Dataquery:
    """A query for the values at the end of the time range."""
    query = p.Dataquery().expr(expr).ref_id(letter).instant().format(form)
    return query.datasource(PROMETHEUS).editor_mode(prometheus.QueryEditorMode.CODE)


def _limit_line() -> list[dashboard.DynamicConfigValue]:
    return [
        setting("custom.lineStyle", {"fill": "dash", "dash": [10, 6]}),
        setting("custom.lineWidth", 2),
        setting("custom.fillOpacity", 0),
        setting("custom.stacking", {"mode": "none", "group": "limits"}),
        setting("color", {"mode": "fixed", "fixedColor": RED}),
    ]


def setting(name: str, value: object) -> dashboard.DynamicConfigValue:
    """One setting of an override."""
    return dashboard.DynamicConfigValue(id_val=name, value=value)
