"""What a person sees on the terminal: the summary, the receipt, the addresses, the health of each part."""

from collections.abc import Sequence

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table

from native.client import Json
from native.settings import NativeSettings
from native.stack import grafana
from native.supervisor import State

_SHOWN = 5  # rows of each table; the API has them all


def summary(found: Json, anomalies: Json) -> RenderableType:
    """Entries by source and status, the slowest and heaviest operations, and the newest anomalies.

    The arguments are the answers of /analytics/summary and /analytics/anomalies.
    """
    duration, memory = found["duration_seconds"], found["memory_bytes"]
    figures = (
        f"success rate {_share(found['success_rate'])} · duration p50 {seconds(duration['p50'])}, "
        f"p95 {seconds(duration['p95'])}, max {seconds(duration['max'])} · memory max {size(memory['max'])}"
    )
    return Group(
        _by_source(found),
        figures,
        _operations("Slowest operations", found["slowest"]),
        _operations("Heaviest operations", found["heaviest"]),
        _anomalies(anomalies),
    )


def receipt(found: Json) -> str:
    """One line: what a run brought, and where it is now."""
    return (
        f"Receipt of run {found['run_id']}: {found['accepted']} accepted = {found['stored']} stored "
        f"+ {found['dead_lettered']} dead-lettered + {found['in_flight']} in flight"
    )


def addresses(settings: NativeSettings) -> RenderableType:
    """Where to look next."""
    processing = settings.url("processing")
    rows = [
        ("Summary", f"{processing}/analytics/summary"),
        ("Newest records", f"{processing}/analytics/recent?limit=5"),
        ("Anomalies", f"{processing}/analytics/anomalies"),
        *((f"{service.capitalize()} API", f"{settings.url(service)}/docs") for service in settings.service_ports),
        ("Prometheus", settings.url("prometheus")),
        ("Alerts", f"{processing}/alerts"),
        *([("Grafana", f"{settings.url('grafana')} (admin)")] if grafana() else []),
        ("Kafka", settings.bootstrap),
    ]
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    return Panel(table, title="Sluice is running", expand=False)


def states(found: Sequence[State]) -> Table:
    """The supervisor's view of each program."""
    table = Table("program", "state", "pid", "up for")
    for state in found:
        colour = "green" if state.state == "RUNNING" else "red"
        pid, uptime = (str(state.pid), seconds(state.uptime)) if state.pid else ("", "")
        table.add_row(state.name, f"[{colour}]{state.state}[/{colour}]", pid, uptime)
    return table


def health(rows: Sequence[tuple[str, str, str]]) -> Table:
    """(part, status, what is wrong) as a table."""
    table = Table("part", "status", "problems")
    for name, status, problems in rows:
        colour = {"healthy": "green", "degraded": "yellow"}.get(status, "red")
        table.add_row(name, f"[{colour}]{status}[/{colour}]", problems)
    return table


def seconds(value: float | None) -> str:
    """A duration as a person reads it: 0.8 s, 47 s, 13m 07s."""
    if value is None:
        return "-"
    if value < 60:
        return f"{value:.3g} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h {minutes:02d}m" if hours else f"{minutes}m {rest:02d}s"


def size(value: float | None) -> str:
    """A number of bytes as a person reads it, in decimal units: 0 B, 12.5 MB."""
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f} %"


def _by_source(found: Json) -> Table:
    by_source: dict[str, dict[str, int]] = found["by_source"]
    statuses = sorted({status for counts in by_source.values() for status in counts}, reverse=True)
    table = Table("source", *statuses, "all", title=f"Entries: {found['total']}", show_footer=True)
    for column in table.columns[1:]:
        column.justify = "right"
    for source, counts in sorted(by_source.items(), key=lambda pair: -sum(pair[1].values())):
        table.add_row(source, *(str(counts.get(status, 0)) for status in statuses), str(sum(counts.values())))
    table.columns[0].footer = "total"
    for column, status in zip(table.columns[1:], statuses, strict=False):
        column.footer = str(sum(counts.get(status, 0) for counts in by_source.values()))
    table.columns[-1].footer = str(found["total"])
    return table


def _operations(title: str, rows: Sequence[Json]) -> Table:
    table = Table("source", "operation", "duration", "memory", title=title)
    for row in rows[:_SHOWN]:
        table.add_row(row["source"], row["operation"], seconds(row["duration_seconds"]), size(row["memory_bytes"]))
    return table


def _anomalies(found: Json) -> Table:
    table = Table("source", "operation", "reason", "detail", title=f"Anomalies: {found['total']}")
    for row in found["anomalies"][:_SHOWN]:
        table.add_row(row["service_name"], row["event_name"], row["reason"], row["detail"] or "")
    return table


def console() -> Console:
    """The terminal; where output goes to a file or a pipe, lines are wide enough not to break addresses."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=120)
