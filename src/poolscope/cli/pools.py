"""
A report on a terminal.
"""

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

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console, RenderableType

    from poolscope.report import Holder, PoolReport, Report, Starvation, Timing

HOLDERS_SHOWN = 8
STARVATIONS_SHOWN = 4
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
    "query": "query",
    "idle_in_transaction": "idle in transaction",
    "idle": "idle",
}


def render_report(console: Console, report: Report) -> None:
    """
    Print every pool, then the findings.
    """
    for pool in report.pools:
        console.print(pool_panel(pool))
    render_findings(console, report.findings)


def pool_panel(pool: PoolReport) -> RenderableType:
    """
    One pool.
    """
    where = " ".join(part for part in (pool.system, pool.server, pool.namespace) if part)
    parts: list[RenderableType] = [
        _summary(pool),
        _timing("wait", "cyan", pool.waits),
        _timing("hold", "magenta", pool.holds),
    ]
    if pool.holders:
        parts.append(_holders(pool))
    if pool.starvations:
        parts.append(_starvations(pool))
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
        _figure("used now", str(pool.used)),
        _figure("peak", str(pool.peak), "bold red" if full else "bold"),
        _figure("waiting peak", str(pool.pending_peak)),
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
        remarks.append(Text.assemble("still out ", (str(pool.used), "bold"), f", the oldest for {age}"))
    if pool.leaks:
        kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in pool.leaks.items())
        remarks.append(Text.assemble("leaked ", (kinds, "bold red")))
    if pool.nested_checkouts:
        remarks.append(Text.assemble("nested check-outs ", (str(pool.nested_checkouts), "bold yellow")))
    if pool.closures:
        reasons = ", ".join(f"{count} {reason.replace('_', ' ')}" for reason, count in pool.closures.items())
        remarks.append(Text.assemble("closed ", (reasons, "bold")))
    if pool.drift:
        remarks.append(Text(f"drift {pool.drift}: the ledger and the pool disagree, do not trust `used`", "bold red"))
    return remarks


def _figure(name: str, value: str, style: str = "bold") -> Text:
    return Text.assemble(f"{name} ", (value, style))


def _timing(name: str, colour: str, timing: Timing) -> RenderableType:
    failed = f", {timing.failed} failed" if timing.failed else ""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column(Text(f"{timing.count} times{failed}"), min_width=_NAME_WIDTH, no_wrap=True)
    for column in ("p50", "p95", "p99", "together"):
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
            f"  {_PHASES.get(phase.name, phase.name)}",
            *(figures.seconds(value) for value in (each.p50, each.p95, each.p99, phase.seconds)),
            Text.assemble((figures.bar(phase.share, _BAR), colour), f" {figures.percent(phase.share)}"),
        )
    return Group(_heading(name, colour, timing), table)


def _heading(name: str, colour: str, timing: Timing) -> Text:
    heading = Text(f"{name}s", f"bold {colour}")
    if timing.distribution is not None and timing.count:
        columns, low, high = figures.spark(timing.distribution)
        heading = Text.assemble(heading, (f"   {low} ", "dim"), (columns, colour), (f" {high}", "dim"))
    return heading


def _holders(pool: PoolReport) -> RenderableType:
    shown = [holder for holder in pool.holders[:HOLDERS_SHOWN] if holder.share >= _WORTH_A_LINE] or pool.holders[:1]
    entries = [_holder(holder) for holder in shown]
    if rest := pool.holders[len(shown) :]:
        share = figures.percent(sum(holder.share for holder in rest))
        places = figures.counted(len(rest), "other place")
        entries.append(Text(f"   and {places}, {share} together", "dim"))
    return Group(Text("who holds", "bold"), *entries)


def _holder(holder: Holder) -> Text:
    facts = [
        figures.counted(holder.count, "lease") if holder.phases else figures.counted(holder.count, "time"),
        f"p50 {figures.seconds(holder.quantiles.p50)}",
        f"longest {figures.seconds(holder.longest)}",
    ]
    if holder.still_out:
        facts.insert(1, f"{holder.still_out} still out")
    if holder.queries:
        facts.append(f"{holder.queries:.3g} {'query' if holder.queries == 1 else 'queries'} each")
    if any(holder.phases.values()):
        phase = max(holder.phases, key=lambda name: holder.phases[name])
        facts.append(f"mostly {_PHASES.get(phase, phase)}")
    where = f"   {figures.place(holder.place)}" if holder.place.file else ""
    return Text.assemble(
        (figures.bar(holder.share, _BAR), "magenta"),
        f" {figures.percent(holder.share):>5}  ",
        (holder.place.route, "bold"),
        f"{where}\n",
        (f"   {', '.join(facts)}", "dim"),
    )


def _starvations(pool: PoolReport) -> RenderableType:
    blamed: defaultdict[str, list[Starvation]] = defaultdict(list)
    for starvation in pool.starvations:
        blamed[starvation.holder].append(starvation)
    ranked = sorted(blamed.items(), key=lambda entry: -sum(one.seconds for one in entry[1]))
    return Group(Text("who stands in the way", "bold"), *(_blame(*entry) for entry in ranked[:STARVATIONS_SHOWN]))


def _blame(holder: str, starvations: Sequence[Starvation]) -> Text:
    waits = figures.counted(sum(one.waits for one in starvations), "wait")
    worst = starvations[0]
    most = f"{figures.counted(worst.waits, 'wait')}, {figures.seconds(worst.seconds)}"
    return Text.assemble(
        (holder, "bold"),
        f"   held during {waits}\n",
        (f"   most often of {worst.waiter}: {most}", "dim"),
    )


def _heat(saturation: float, timeouts: int) -> str:
    if timeouts or saturation >= _HOT:
        return "red"
    return "yellow" if saturation > 0 else "green"
