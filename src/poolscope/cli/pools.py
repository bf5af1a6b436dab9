"""A report on a terminal."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from rich.console import Group
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from poolscope.cli import figures
from poolscope.cli.findings import render_findings
from poolscope.cli.shown import whole

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from poolscope.report import Holder, PoolReport, Report, Starvation, Timing

HOLDERS_SHOWN = 8
BLOCKERS_SHOWN = 4
_BAR = 8
_WIDE_BAR = 30
_NAME_WIDTH = 22
_FIGURE_WIDTH = 7
_FULL = 0.999
_HOT = 0.5
_WORTH_A_LINE = 0.01

_PHASES = {
    "queue": "queue",
    "connect": "connect",
    "validate": "validate",
    "resume": "resume",
    "query": "query",
    "idle_in_transaction": "idle in transaction",
    "idle": "idle",
}


def render_report(console: Console, report: Report) -> None:
    """Print every pool, then the findings."""
    for pool in report.pools:
        console.print(pool_panel(pool))
    render_findings(console, report.findings)


def pool_panel(pool: PoolReport) -> RenderableType:
    """One pool."""
    pool = whole(pool)
    where = " ".join(part for part in (pool.system, pool.server, pool.namespace) if part)
    parts: list[RenderableType] = [
        _summary(pool),
        _timing("wait", "cyan", pool.waits),
        _timing("hold", "magenta", pool.holds),
    ]
    if pool.holders:
        parts.append(_holders(pool))
    if pool.starvations:
        parts.append(_blocked_by(pool))
    title = Text.assemble("pool ", (pool.name, "bold"), f" of {pool.service}")
    return Panel(
        Group(*(Padding(part, (0, 0, 1 if number < len(parts) else 0, 0)) for number, part in enumerate(parts, 1))),
        title=title,
        subtitle=Text(where),
        subtitle_align="right",
        border_style=_heat(pool.saturation, pool.timeouts),
    )


def _summary(pool: PoolReport) -> Table:
    limit = figures.NOTHING if pool.limit is None else str(pool.limit)
    full = pool.limit is not None and pool.peak >= pool.limit
    figures_now = (
        _figure("limit", limit),
        _figure("in use", str(pool.used)),
        _figure("peak", str(pool.peak), "bold red" if full else "bold"),
        _figure("peak pending", str(pool.pending_peak)),
        _figure("timeouts", str(pool.timeouts), "bold red" if pool.timeouts else "bold"),
        _figure("opened", str(pool.created)),
    )
    outer = Table.grid()
    outer.add_row(Text("  ").join(figures_now))
    if pool.saturated_seconds is not None:
        heat = _heat(pool.saturation, 0)
        share = (figures.percent(pool.saturation), f"bold {heat}")
        window = f" of {figures.seconds(pool.observed_seconds)}  "
        outer.add_row(Text.assemble("saturated ", share, window, (figures.bar(pool.saturation, _WIDE_BAR), heat)))
    for line in _remarks(pool):
        outer.add_row(line)
    return outer


def _remarks(pool: PoolReport) -> list[Text]:
    remarks = []
    if pool.used:
        age = figures.seconds(pool.oldest_lease_seconds)
        remarks.append(Text.assemble("held at the end ", (str(pool.used), "bold"), f", the longest for {age}"))
    if pool.leaks:
        kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in pool.leaks.items())
        remarks.append(Text.assemble("leaked ", (kinds, "bold red")))
    if pool.nested_checkouts:
        remarks.append(Text.assemble("nested checkouts ", (str(pool.nested_checkouts), "bold yellow")))
    if pool.closures:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in pool.closures.items())
        remarks.append(Text.assemble("closed ", (reasons, "bold")))
    if pool.drift:
        remarks.append(Text(f"drift {pool.drift}: the pool's own count differs, do not rely on `in use`", "bold red"))
    return remarks


def _figure(name: str, value: str, style: str = "bold") -> Text:
    return Text.assemble(f"{name} ", (value, style))


def _timing(name: str, colour: str, timing: Timing) -> RenderableType:
    failed = f", {timing.failed} failed" if timing.failed else ""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(Text(f"{timing.count} times{failed}"), min_width=_NAME_WIDTH, no_wrap=True)
    for column in ("p50", "p95", "p99", "total"):
        table.add_column(column, justify="right", min_width=_FIGURE_WIDTH)
    table.add_column("share", min_width=_BAR + 6)
    quantiles = timing.quantiles
    table.add_row(
        f"each {name}",
        *(figures.seconds(value) for value in (quantiles.p50, quantiles.p95, quantiles.p99, timing.seconds)),
        "",
        style="bold",
    )
    for phase in timing.phases:
        each = phase.quantiles
        table.add_row(
            Text(f"  {_PHASES.get(phase.name, phase.name)}"),
            *(figures.seconds(value) for value in (each.p50, each.p95, each.p99, phase.seconds)),
            Text.assemble((figures.bar(phase.share, _BAR), colour), f" {figures.percent(phase.share)}"),
        )
    return Group(_heading(name, colour, timing), table)


def _heading(name: str, colour: str, timing: Timing) -> Text:
    heading = Text(f"{name.capitalize()}s", f"bold {colour}")
    if timing.distribution is not None and timing.count:
        columns, low, high = figures.spark(timing.distribution)
        heading = Text.assemble(heading, (f"   {low} ", "dim"), (columns, colour), (f" {high}", "dim"))
    return heading


def _holders(pool: PoolReport) -> RenderableType:
    shown = [holder for holder in pool.holders[:HOLDERS_SHOWN] if holder.share >= _WORTH_A_LINE] or pool.holders[:1]
    entries = [_holder(holder) for holder in shown]
    if rest := pool.holders[len(shown) :]:
        share = figures.percent(sum(holder.share for holder in rest))
        others = figures.counted(len(rest), "other call site")
        entries.append(Text(f"   and {others}, {share} in total", "dim"))
    return Group(Text("Holders", "bold"), *entries)


def _holder(holder: Holder) -> Text:
    facts = [
        figures.counted(holder.count, "hold") if holder.phases else figures.counted(holder.count, "time"),
        f"p50 {figures.seconds(holder.quantiles.p50)}",
        f"longest {figures.seconds(holder.longest)}",
    ]
    if holder.not_returned:
        facts.insert(1, f"{holder.not_returned} not returned")
    if holder.queries:
        facts.append(f"{holder.queries:.3g} {'query' if holder.queries == 1 else 'queries'} each")
    if any(holder.phases.values()):
        phase = max(holder.phases, key=lambda name: holder.phases[name])
        facts.append(f"mostly {_PHASES.get(phase, phase)}")
    where = f"   {figures.code_location(holder.call_site)}" if holder.call_site.file else ""
    return Text.assemble(
        (figures.bar(holder.share, _BAR), "magenta"),
        f" {figures.percent(holder.share):>5}  ",
        (holder.call_site.route, "bold"),
        f"{where}\n",
        (f"   {', '.join(facts)}", "dim"),
    )


def _blocked_by(pool: PoolReport) -> RenderableType:
    by_holder: defaultdict[str, list[Starvation]] = defaultdict(list)
    for starvation in pool.starvations:
        by_holder[starvation.holder].append(starvation)
    ranked = sorted(by_holder.items(), key=lambda entry: -sum(one.seconds for one in entry[1]))
    return Group(Text("Blocked by", "bold"), *(_blocker(*entry) for entry in ranked[:BLOCKERS_SHOWN]))


def _blocker(holder: str, starvations: Sequence[Starvation]) -> Text:
    waits = figures.counted(sum(one.waits for one in starvations), "wait")
    worst = starvations[0]
    longest = f"{figures.counted(worst.waits, 'wait')}, {figures.seconds(worst.seconds)} in total"
    return Text.assemble(
        (holder, "bold"),
        f"   held connections during {waits}\n",
        (f"   longest for {worst.waiter}: {longest}", "dim"),
    )


def _heat(saturation: float, timeouts: int) -> str:
    if timeouts or saturation >= _HOT:
        return "red"
    return "yellow" if saturation > 0 else "green"
