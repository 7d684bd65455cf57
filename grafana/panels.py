"""The vocabulary of the dashboards: graph, number and table panels, rows of them, and a dashboard of rows.

What all panels have in common is decided here: the data source, the frame, how limits and empty answers look.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common, dashboard
from grafana_foundation_sdk.models import prometheus as prometheus_models

from grafana.rules import Alerts

COLUMNS: Final = 24
REFRESH: Final = "10s"
RANGE: Final = "now-30m"
NO_TRAFFIC: Final = "no traffic"

SOURCE_OF_DATA: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")

_Builder = timeseries.Panel | stat.Panel | table.Panel
_B = TypeVar("_B", timeseries.Panel, stat.Panel, table.Panel)


@dataclass(frozen=True, slots=True)
class Query:
    """A PromQL expression and how its series are called."""

    expr: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A link from a value to elsewhere in Grafana."""

    title: str
    url: str
    column: str = ""  # of a table; empty: all values


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What every panel must say. Ids are fixed: alerts link to them."""

    id: int
    title: str
    about: str  # what it shows, of which entries, by which clock, and what is normal
    unit: str
    queries: Sequence[Query]
    width: int
    height: int = 8
    empty: str = NO_TRAFFIC  # what stands there when there is no data
    limits: Sequence[float] = ()  # an alert's own constants, from rules.Alerts
    limits_of: Sequence[str] = ()  # the alerts whose constants they are, beside those that link here
    link: Link | None = None


@dataclass(frozen=True, kw_only=True)
class Graph(Panel):
    """Lines over time, or bars where single events count."""

    style: Literal["lines", "stacked", "bars"] = "lines"
    maximum: float | None = None


@dataclass(frozen=True, kw_only=True)
class Number(Panel):
    """One large value for each series: what is now, exactly."""

    meanings: Mapping[float, tuple[str, str]] = field(default_factory=dict)  # a value's word and colour
    otherwise: tuple[str, str] = ("", "")  # the word and colour of every value above those
    color: str = "text"  # of what has no meaning
    good_above: bool = False  # whether the side above the limit is the good one
    decimals: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table(Panel):
    """Rows of the moment. `steps` are Grafana's transformations, by name."""

    steps: Sequence[tuple[str, dict[str, Any]]] = ()
    sort: str = ""  # the column, descending


@dataclass(frozen=True, slots=True)
class Row:
    """A question, and the panels that answer it."""

    title: str
    panels: Sequence[Panel]


def dashboard_of(
    uid: str,
    title: str,
    about: str,
    rows: Sequence[Row],
    alerts: Alerts,
    links: Iterable[tuple[str, str]],
    variables: Iterable[builders.QueryVariable] = (),
) -> dashboard.Dashboard:
    """The dashboard, laid out: panels side by side, from left to right, wrapped at the full width."""
    made = (
        builders.Dashboard(title)
        .uid(uid)
        .description(about)
        .tags(["sluice"])
        .readonly()
        .time(RANGE, "now")
        .refresh(REFRESH)
        .timezone("browser")
        .tooltip(dashboard.DashboardCursorSync.CROSSHAIR)
        .with_variable(builders.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
    )
    for variable in variables:
        made.with_variable(variable)
    for name, url in links:
        made.link(
            builders.DashboardLink(name)
            .type(dashboard.DashboardLinkType.LINK)
            .url(url)
            .icon("dashboard")
            .keep_time(keep_time=True)
        )
    y = 0
    for number, row in enumerate(rows):
        made.with_row(builders.Row(row.title).id(1000 + number).grid_pos(dashboard.GridPos(x=0, y=y, w=COLUMNS, h=1)))
        y += 1
        x = tallest = 0
        for panel in row.panels:
            if x + panel.width > COLUMNS:
                x, y, tallest = 0, y + tallest, 0
            place = dashboard.GridPos(x=x, y=y, w=panel.width, h=panel.height)
            made.with_panel(_built(panel, uid, alerts).grid_pos(place))
            x, tallest = x + panel.width, max(tallest, panel.height)
        y += tallest
    return made.build()


def _built(panel: Panel, uid: str, alerts: Alerts) -> _Builder:
    if isinstance(panel, Graph):
        return _graph(_framed(timeseries.Panel(), panel, uid, alerts), panel)
    if isinstance(panel, Number):
        return _number(_framed(stat.Panel(), panel, uid, alerts), panel)
    assert isinstance(panel, Table)
    return _table(_framed(table.Panel(), panel, uid, alerts), panel)


def _framed(builder: _B, panel: Panel, uid: str, alerts: Alerts) -> _B:
    belonging = list(dict.fromkeys([*alerts.of_panel(uid, panel.id), *panel.limits_of]))
    told = "".join(f"\n\nAlert {alert}: {alerts.runbook(alert)}" for alert in belonging)
    builder.id(panel.id).title(panel.title).description(panel.about + told).unit(panel.unit).no_value(panel.empty)
    builder.datasource(SOURCE_OF_DATA)
    for number, query in enumerate(panel.queries):
        target = prometheus.Dataquery().expr(query.expr).ref_id(chr(ord("A") + number)).datasource(SOURCE_OF_DATA)
        target.legend_format(query.legend or "__auto").editor_mode(prometheus_models.QueryEditorMode.CODE)
        if isinstance(panel, Graph):
            target.range()
        else:
            target.instant()
        if isinstance(panel, Table):
            target.format(prometheus_models.PromQueryFormat.TABLE)
        builder.with_target(target)
    if panel.link and not panel.link.column:
        builder.data_links([_link(panel.link)])
    return builder


def _graph(builder: timeseries.Panel, panel: Graph) -> timeseries.Panel:
    legend = common_builders.VizLegendOptions().show_legend(show_legend=True)
    legend.display_mode(common.LegendDisplayMode.LIST).placement(common.LegendPlacement.BOTTOM)
    tooltip = common_builders.VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    builder.legend(legend).tooltip(tooltip.sort(common.SortOrder.DESCENDING)).min(0)
    builder.line_width(1).show_points(common.VisibilityMode.AUTO).point_size(4)
    if panel.maximum is not None:
        builder.max(panel.maximum)
    if panel.style == "bars":
        builder.draw_style(common.GraphDrawStyle.BARS).fill_opacity(80).interval("30s")
    else:
        builder.fill_opacity(10 if panel.style == "lines" else 40)
    if panel.style != "lines":
        builder.stacking(common_builders.StackingConfig().mode(common.StackingMode.NORMAL))
    if panel.limits:
        builder.thresholds_style(
            common_builders.GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        )
    return builder.thresholds(_thresholds("transparent", *((limit, "red") for limit in panel.limits)))


def _number(builder: stat.Panel, panel: Number) -> stat.Panel:
    builder.color_mode(common.BigValueColorMode.BACKGROUND_SOLID if panel.meanings else common.BigValueColorMode.VALUE)
    builder.graph_mode(common.BigValueGraphMode.NONE).justify_mode(common.BigValueJustifyMode.CENTER)
    builder.text_mode(
        common.BigValueTextMode.AUTO if panel.queries[0].legend else common.BigValueTextMode.VALUE
    ).reduce_options(common_builders.ReduceDataOptions().calcs(["lastNotNull"]).values(values=False).fields(""))
    if panel.decimals is not None:
        builder.decimals(panel.decimals)
    words = {str(value): _meaning(*meaning) for value, meaning in panel.meanings.items()}
    mappings: list[dashboard.ValueMapping] = []
    if words:
        mappings.append(dashboard.ValueMap(options=words))
    if panel.otherwise[1]:
        above = dashboard.DashboardRangeMapOptions(from_val=max(panel.meanings) + 1, result=_meaning(*panel.otherwise))
        mappings.append(dashboard.RangeMap(options=above))
    builder.mappings(mappings)
    below, over = ("red", "green") if panel.good_above else ("green", "red")
    steps = ((limit, over) for limit in panel.limits)
    return builder.thresholds(_thresholds(below if panel.limits else panel.color, *steps))


def _table(builder: table.Panel, panel: Table) -> table.Panel:
    builder.show_header(show_header=True).cell_height(common.TableCellHeight.SM)
    builder.transformations(
        [dashboard.DataTransformerConfig(id_val=name, options=options) for name, options in panel.steps]
    )
    if panel.sort:
        builder.sort_by([common_builders.TableSortByFieldState().display_name(panel.sort).desc(desc=True)])
    if panel.link and panel.link.column:
        builder.override_by_name(
            panel.link.column,
            [dashboard.DynamicConfigValue(id_val="links", value=[{"title": panel.link.title, "url": panel.link.url}])],
        )
    return builder.thresholds(_thresholds("text"))


def _link(link: Link) -> builders.DashboardLink:
    return builders.DashboardLink(link.title).url(link.url)


def _meaning(word: str, color: str) -> dashboard.ValueMappingResult:
    return dashboard.ValueMappingResult(text=word or None, color=color)


def _thresholds(base: str, *steps: tuple[float, str]) -> builders.ThresholdsConfig:
    return (
        builders.ThresholdsConfig()
        .mode(dashboard.ThresholdsMode.ABSOLUTE)
        .steps([dashboard.Threshold(color=base), *(dashboard.Threshold(value=at, color=color) for at, color in steps)])
    )
