"""
Services at full speed while everything goes wrong: the laws hold in the end, and memory, threads and descriptors are
what they were.

Each process drives one pool of each library; every some seconds other faults are drawn (hooks come and go, forks,
interrupts, exporters that hang, a server that closes connections, ...), and afterwards what poolscope counted is
compared with what the service did.

Usage:
    python -m tests.soak.run [--minutes N] [--leases N] [--processes N] [--seed TEXT] [--fault WORD] [--json]
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from examples.lab.postgres import postgres
from examples.lab.processes import Child
from tests.contract.drivers import all_drivers
from tests.contract.drivers.base import Feature
from tests.soak.faults import FAULTS
from tests.soak.service import END_SECONDS, Order

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parents[2]
#: What memory at rest may differ between the first half and the second, and grow while exporters hang; in bytes.
FLAT: Final = 20 * 2**20
STUCK: Final = 50 * 2**20
#: Seconds that a process whose exporters hang may take to end.
EXIT_SECONDS: Final = 4.0
#: Pools that are not driven: those on MariaDB, of one thread, or whose connections have no limit to hold them to.
_LEFT_OUT: Final = ("MySQL", "aiomysql", "SingletonThreadPool", "NullPool", "AssertionPool", "django")


@dataclasses.dataclass
class Process:
    """
    A service and what it said.

    Args:
        order: What it does.
        child: Its process.
    """

    order: Order
    child: Child
    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    ended_after: float | None = None

    def read(self) -> list[dict[str, Any]]:
        """What it said since the last look."""
        path = Path(self.order.out)
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()[len(self.lines) :] if line.endswith("}")]
        self.lines.extend(lines)
        return lines

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The epochs so far."""
        return [line for line in self.lines if "epoch" in line]

    def broken(self) -> Iterator[str]:
        """Every law that did not hold."""
        for epoch in self.epochs:
            for law in epoch["broken"]:
                yield f"epoch {epoch['epoch']} ({', '.join(epoch['faults']) or 'no fault'}): {law}"
        yield from self._not_flat()
        hung = [epoch for epoch in self.epochs if "exporters hang" in epoch["faults"]]
        for epoch in hung:
            if epoch["grown"] > STUCK:
                faults = ", ".join(epoch["faults"])
                yield f"epoch {epoch['epoch']} ({faults}): {_mebibytes(epoch['grown'])} more while exporters hang"
        for line in self.lines:
            if "died" in line:
                yield f"it died: {line['died']}"
        if self.ended_after is None:
            yield "it did not end as it should"
        elif self.ended_after > EXIT_SECONDS:
            yield f"it took {self.ended_after:.1f} s to end while its exporters hang"

    def _not_flat(self) -> Iterator[str]:
        epochs = self.epochs[2:]  # caches fill
        if len(epochs) < 2:
            return
        half = len(epochs) // 2
        first, second = epochs[:half], epochs[half:]
        grown = statistics.median(one["resident"] for one in second) - statistics.median(
            one["resident"] for one in first
        )
        if grown > FLAT:
            yield f"memory at rest grew by {_mebibytes(grown)}"
        for what in ("threads", "descriptors"):
            least = min(one[what] for one in first)
            if epochs[-1][what] > least:
                yield f"{what} at rest grew from {least} to {epochs[-1][what]}"


def labels() -> tuple[str, ...]:
    """The drivers of the pools that a service drives."""
    return tuple(
        kind.label
        for kind in all_drivers()
        if kind.missing() is None
        and kind.threads
        and not kind.stalls
        and Feature.SHARED not in kind.features
        and not any(word in kind.label for word in _LEFT_OUT)
    )


@click.command()
@click.option("--minutes", default=30.0, show_default=True, help="How long.")
@click.option("--leases", default=None, type=int, help="How many at least  [default: 10 million in 30 minutes]")
@click.option("--processes", default=os.cpu_count() or 1, show_default=True, help="How many services.")
@click.option("--epoch", default=10.0, show_default=True, help="Seconds between two looks at the laws.")
@click.option("--seed", default=None, help="From what faults are drawn; any text.")
@click.option("--fault", "faults", multiple=True, help="Only this fault; more than once for several.")
@click.option("--json", "as_json", is_flag=True, help="JSON instead of the table.")
def main(
    minutes: float,
    leases: int | None,
    *,
    processes: int,
    epoch: float,
    seed: str | None,
    faults: tuple[str, ...],
    as_json: bool,
) -> None:
    """Run the services; exit with 1 where a law does not hold."""
    known = [fault.name for fault in FAULTS]
    for unknown in set(faults) - set(known):
        raise click.BadParameter(f"{unknown!r} is none of: {', '.join(known)}", param_hint="--fault")
    seed = seed or secrets.token_hex(4)
    wanted = int(10_000_000 * minutes / 30) if leases is None else leases
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print(f"seed {seed}: repeat it with --seed {seed}")
    with (
        tempfile.TemporaryDirectory(prefix="poolscope-soak-") as folder,
        postgres(variable="POOLSCOPE_TEST_DSN", max_connections=400) as server,
        contextlib.ExitStack() as stack,
    ):
        running = []
        for number in range(processes):
            order = Order(
                dsn=server.dsn,
                seed=f"{seed} {number}",
                seconds=minutes * 60,
                leases=wanted // processes,
                epoch=epoch,
                labels=labels(),
                faults=faults,
                out=str(Path(folder) / f"{number}.jsonl"),
            )
            command = [sys.executable, "-m", "tests.soak.service", json.dumps(dataclasses.asdict(order))]
            child = stack.enter_context(Child(command, cwd=ROOT, log=Path(folder) / f"{number}.log"))
            running.append(Process(order, child))
        _follow(running, minutes * 60, console)
        broken = [f"process {number}: {law}" for number, one in enumerate(running) for law in one.broken()]
    result = _result(running)
    if as_json:
        click.echo(json.dumps({"seed": seed, **result, "broken": broken}, indent=2))
    else:
        _show(result)
        Console(highlight=False, soft_wrap=True).print(
            "\n".join(broken) or f"every law holds: {result['leases']:,} leases, {result['epochs']} epochs",
            markup=False,
        )
    sys.exit(1 if broken else 0)


def _follow(running: list[Process], seconds: float, console: Console) -> None:
    with Progress(console=console) as progress:
        task = progress.add_task("leases: 0", total=seconds)
        began = time.monotonic()
        while any(one.ended_after is None and one.child.exit_code() is None for one in running):
            time.sleep(0.1)
            for one in running:
                for line in one.read():
                    for law in line.get("broken", ()):
                        progress.console.print(f"{', '.join(line['faults'])}: {law}", markup=False)
                    if "ends" in line:
                        one.ended_after = _wait(one.child, line["ends"])
            leases = sum(epoch["leases"] for one in running for epoch in one.epochs)
            progress.update(task, completed=time.monotonic() - began, description=f"leases: {leases:,}")


def _wait(child: Child, since: float) -> float:
    with contextlib.suppress(TimeoutError):
        child.wait(END_SECONDS)
    return time.time() - since


def _result(running: list[Process]) -> dict[str, Any]:
    epochs = [epoch for one in running for epoch in one.epochs]
    strikes: Counter[str] = Counter()
    for epoch in epochs:
        strikes.update(epoch["strikes"])
    return {
        "leases": sum(epoch["leases"] for epoch in epochs),
        "failed": sum(epoch["failed"] for epoch in epochs),
        "dropped": sum(epoch["dropped"] for epoch in epochs),
        "interrupted": sum(epoch["interrupted"] for epoch in epochs),
        "epochs": len(epochs),
        "strikes": dict(strikes),
        "processes": [
            {
                "resident": [epoch["resident"] for epoch in one.epochs],
                "threads": [epoch["threads"] for epoch in one.epochs],
                "descriptors": [epoch["descriptors"] for epoch in one.epochs],
                "grown": max(
                    (epoch["grown"] for epoch in one.epochs if "exporters hang" in epoch["faults"]), default=0
                ),
                "ended_after": one.ended_after,
            }
            for one in running
        ],
    }


def _show(result: dict[str, Any]) -> None:
    out = Console(highlight=False)
    faults = Table("fault", "times", box=box.SIMPLE_HEAD)
    for name, times in sorted(result["strikes"].items()):
        faults.add_row(name, f"{times:,}")
    out.print(faults)
    table = Table(
        "process", "memory at rest", "most while exporters hang", "threads", "descriptors", "exit", box=box.SIMPLE_HEAD
    )
    for number, one in enumerate(result["processes"]):
        quarters = [one["resident"][len(one["resident"]) * part // 4] for part in range(4)] if one["resident"] else []
        table.add_row(
            str(number),
            ", ".join(map(_mebibytes, [*quarters, *one["resident"][-1:]])),
            f"+{_mebibytes(one['grown'])}",
            f"{min(one['threads'], default=0)} to {max(one['threads'], default=0)}",
            f"{min(one['descriptors'], default=0)} to {max(one['descriptors'], default=0)}",
            "-" if one["ended_after"] is None else f"{one['ended_after']:.1f} s",
        )
    out.print(table)
    out.print(f"telemetry beyond what is kept, as while exporters hang: {result['dropped']:,} items")


def _mebibytes(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


if __name__ == "__main__":
    main()
