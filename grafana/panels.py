"""
The kinds of panel that the dashboards use, dressed alike.

Only kinds that Grafana's own component library can draw outside its server are here, so that what is committed can
be drawn and looked at in a test. Every panel says what good and bad look like, has a unit and thresholds, and leads
onward.
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
# Limits above this are no scale for a healthy line.
CALM: Final = 60

Visual = TypeVar(
    "Visual", bargauge.Panel, heatmap.Panel, stat.Panel, table.Panel, timeseries.Panel
)  # fmt: skip


@dataclass(frozen=True)
class Face:
    """
    What every panel shows beside its data.

    Args:
        title: The question it answers, as short as possible.
        good: What a healthy service looks like here.
        bad: What trouble looks like here, and where to look next.
        unit: Grafana's id of the unit.
        limits: From where on it is orange, and red; one alone is red; none where a series of the panel is the limit, or
            the figure is there to be known.
        onward: Where it leads to.
        width: Of 24 columns.
        height: In rows of 30 pixels.
        decimals: Digits behind the point, where Grafana's own choice reads badly.
        top: The highest value of the axis or bar, where it is known.
        empty: What it says where there is rightly nothing to show.
    """

    title: str
    good: str
    bad: str
    unit: str
    limits: tuple[float, ...]
    onward: tuple[Link, ...]
    width: int = 8
    height: int = 8
    decimals: int | None = None
    top: float | None = None
    empty: str = ""

    @property
    def description(self) -> str:
        """
        The text behind the panel's information sign.
        """
        return f"**Good:** {self.good}\n\n**Bad:** {self.bad}"


def tile(
    title: str,
    *,
    good: str,
    bad: str,
    unit: str,
    limits: tuple[float, ...],
    onward: tuple[Link, ...],
    decimals: int | None = None,
) -> Face:
    """
    The face of a small panel with one figure; six fill a line.
    """
    return Face(title, good, bad, unit, limits, onward, 4, 4, decimals)


@dataclass(frozen=True)
class Ask:
    """
    One query of a panel.

    Args:
        expr: PromQL.
        legend: The name of each series, with labels in double braces.
        exemplars: Whether the traces behind a histogram are drawn in.
    """

    expr: str
    legend: str
    exemplars: bool = False


def one(face: Face, expr: str, *, words: dict[str, str] | None = None) -> stat.Panel:
    """
    One figure, coloured by its thresholds, with its course behind it.

    Args:
        face: Its looks.
        expr: PromQL with one series.
        words: A text shown instead of a value.
    """
    panel = dressed(stat.Panel(), face)
    panel = panel.with_target(_range(Ask(expr, face.title), "A"))
    panel = panel.graph_mode(common.BigValueGraphMode.AREA).color_mode(common.BigValueColorMode.VALUE)
    panel = panel.reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False))
    if words:
        results = {value: dashboard.ValueMappingResult(text=said) for value, said in words.items()}
        panel = panel.mappings([dashboard.ValueMap(options=results)])
    return panel.text_mode(common.BigValueTextMode.VALUE).justify_mode(common.BigValueJustifyMode.CENTER)


def course(
    face: Face, asks: Iterable[Ask], *, stack: bool = False, colours: dict[str, str] | None = None,
    lines: tuple[str, ...] = (), limit_lines: bool = False, many: bool = False,
) -> timeseries.Panel:  # fmt: skip
    """
    Values over time.

    Args:
        face: Its looks.
        asks: Its queries.
        stack: Whether the series are parts of a whole.
        colours: A fixed colour by the name of the series, where the colour has a meaning.
        lines: Names of series that are limits: dashed, neither filled nor stacked.
        limit_lines: Whether the thresholds are drawn.
        many: Whether there are too many series for a legend of a few lines below: it stands at the right, the highest
            first, and lines have no shade.
    """
    panel = dressed(timeseries.Panel(), face)
    for letter, ask in zip("ABCDEFGHIJ", asks, strict=False):
        panel = panel.with_target(_range(ask, letter))
    panel = (
        panel.min(0)
        .line_width(1.5)
        .fill_opacity(70 if stack else 0 if many else 10)
        .show_points(common.VisibilityMode.NEVER)
    )
    panel = panel.span_nulls(60_000).color_scheme(d.FieldColor().mode(dashboard.FieldColorModeId.PALETTE_CLASSIC))
    if face.limits and face.limits[0] <= CALM:
        # A healthy line stays flat at the bottom instead of filling the panel with noise.
        panel = panel.axis_soft_max(face.limits[0])
    if stack:
        panel = panel.stacking(c.StackingConfig().mode(common.StackingMode.NORMAL).group("A")).line_width(0)
    if limit_lines:
        style = c.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(style)
    for name, colour in (colours or {}).items():
        panel = panel.override_by_name(name, [setting("color", {"mode": "fixed", "fixedColor": colour})])
    for name in lines:
        panel = panel.override_by_name(name, _limit_line())
    panel = panel.legend(_legend(many=many))
    return panel.tooltip(c.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI).sort(common.SortOrder.DESCENDING))


def _legend(*, many: bool) -> c.VizLegendOptions:
    legend = c.VizLegendOptions().calcs(["lastNotNull"]).show_legend(show_legend=True)
    if many:
        legend = legend.sort_by("Last *").sort_desc(sort_desc=True)
        return legend.display_mode(common.LegendDisplayMode.TABLE).placement(common.LegendPlacement.RIGHT)
    return legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)


def bars(face: Face, expr: str, legend: str) -> bargauge.Panel:
    """
    One bar per series, for the value at the end of the time range.
    """
    panel = dressed(bargauge.Panel(), face)
    panel = panel.with_target(instant(expr, "A", prometheus.PromQueryFormat.TIME_SERIES).legend_format(legend))
    panel = panel.reduce_options(c.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False)).min(0)
    panel = panel.orientation(common.VizOrientation.HORIZONTAL).display_mode(common.BarGaugeDisplayMode.BASIC)
    panel = panel.sizing(common.BarGaugeSizing.MANUAL).min_viz_height(16).max_viz_height(40)
    panel = panel.name_placement(common.BarGaugeNamePlacement.TOP)
    panel = panel.text(c.VizTextDisplayOptions().title_size(13).value_size(16))
    return panel.value_mode(common.BarGaugeValueMode.COLOR)


def heat(face: Face, expr: str) -> heatmap.Panel:
    """
    Where a histogram's points lie, over time; the expression keeps the label ``le``.
    """
    panel = dressed(heatmap.Panel(), face)
    query = _range(Ask(expr, "{{le}}", exemplars=True), "A").format(prometheus.PromQueryFormat.HEATMAP)
    panel = panel.with_target(query).calculate(calculate=False).cell_gap(1).show_legend()
    colour = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Oranges").steps(64).fill("dark-orange")
    panel = panel.color(colour.scale(HeatmapColorScale.EXPONENTIAL).exponent(0.5))
    return panel.y_axis(heatmap.YAxisConfig().unit(face.unit).axis_placement(common.AxisPlacement.LEFT))


def prose(title: str, content: str, *, width: int = 24, height: int = 5) -> text.Panel:
    """
    Markdown.
    """
    panel = text.Panel().title(title).mode(TextMode.MARKDOWN).content(content).span(width).height(height)
    return panel.description("How to read the rest of this dashboard.")


def dressed(panel: Visual, face: Face) -> Visual:
    """
    The panel with title, description, unit, thresholds, size and links.
    """
    panel = panel.title(face.title).description(face.description).datasource(PROMETHEUS)
    panel = panel.unit(face.unit).span(face.width).height(face.height).thresholds(thresholds(face.limits))
    panel = panel.color_scheme(d.FieldColor().mode(dashboard.FieldColorModeId.THRESHOLDS))
    if face.decimals is not None:
        panel = panel.decimals(face.decimals)
    if face.top is not None:
        panel = panel.max(face.top)
    if face.empty:
        panel = panel.no_value(face.empty)
    panel = panel.data_links([d.DashboardLink(link.title).url(link.url) for link in face.onward if link.of_data])
    return panel.links([d.DashboardLink(link.title).url(link.url) for link in face.onward if not link.of_data])


def thresholds(limits: tuple[float, ...]) -> d.ThresholdsConfig:
    """
    Green, then orange and red from the limits on; blue where there are none.
    """
    colours = _COLOURS[-len(limits) :] if limits else ()
    steps = [dashboard.Threshold(value=None, color=GREEN if limits else BLUE)]
    steps += [dashboard.Threshold(value=limit, color=colour) for limit, colour in zip(limits, colours, strict=True)]
    return d.ThresholdsConfig().mode(dashboard.ThresholdsMode.ABSOLUTE).steps(steps)


def _range(ask: Ask, letter: str) -> p.Dataquery:
    query = p.Dataquery().expr(ask.expr).legend_format(ask.legend).ref_id(letter).range()
    query = query.datasource(PROMETHEUS).editor_mode(prometheus.QueryEditorMode.CODE)
    return query.exemplar(exemplar=True) if ask.exemplars else query


def instant(expr: str, letter: str, form: prometheus.PromQueryFormat) -> p.Dataquery:
    """
    A query for the values at the end of the time range.
    """
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
    """
    One setting of an override.
    """
    return dashboard.DynamicConfigValue(id_val=name, value=value)
