"""A soak finds what it looks for: a wrong count, memory that grows, a process that does not end."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from poolscope.core.lease import Lease
from tests.soak import run
from tests.soak.run import Process
from tests.soak.service import IN_MAIN, Order, Service
from tests.support.skips import require

if TYPE_CHECKING:
    from pathlib import Path

MEBIBYTE = 2**20


class Ended:
    """A child that has ended."""


def order(folder: Path, **changes: Any) -> Order:
    """The order of a service."""
    given: dict[str, Any] = {
        "dsn": "postgresql://nobody@127.0.0.1/none",
        "seed": "test",
        "seconds": 0.0,
        "leases": 0,
        "epoch": 0.2,
        "labels": IN_MAIN[:1],
        "faults": (),
        "out": str(folder / "out.jsonl"),
    }
    return Order(**{**given, **changes})


def process(folder: Path, *epochs: dict[str, Any], ended_after: float | None = 0.1) -> Process:
    """A service that said this."""
    fine = {"resident": 100 * MEBIBYTE, "grown": 0, "threads": 3, "descriptors": 4, "broken": [], "faults": []}
    lines = [{**fine, "epoch": number, **epoch} for number, epoch in enumerate(epochs)]
    return Process(order(folder), Ended(), lines, ended_after)  # type: ignore[arg-type]


def test_a_healthy_epoch_breaks_no_law(tmp_path: Path) -> None:
    """A service without faults counts what it does."""
    said = Service(order(tmp_path), tmp_path)._epoch(0, [])
    assert said["broken"] == []
    assert said["leases"] > 0


def test_a_lease_that_does_not_end_breaks_a_law(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One in a hundred returns is not counted."""
    released = Lease.released
    draw = random.Random(1)

    def forgets(lease: Lease, **how: Any) -> None:
        if draw.randrange(100):
            released(lease, **how)

    monkeypatch.setattr(Lease, "released", forgets)
    said = Service(order(tmp_path), tmp_path)._epoch(0, [])
    assert any("used at rest" in law or "drift at rest" in law for law in said["broken"])
    assert any("uses" in law for law in said["broken"])


@pytest.mark.parametrize("what", ["threads", "descriptors"])
def test_what_is_left_behind_is_found(tmp_path: Path, what: str) -> None:
    """More threads or descriptors at the end than at the beginning."""
    healthy = [{}] * 6
    assert list(process(tmp_path, *healthy).broken()) == []
    (law,) = process(tmp_path, *healthy, {what: 9}).broken()
    assert what in law


def test_memory_that_grows_is_found(tmp_path: Path) -> None:
    """What comes once, as caches fill, is none; what comes with every epoch is."""
    once = [{"resident": (60 if number < 2 else 100) * MEBIBYTE} for number in range(10)]
    assert list(process(tmp_path, *once).broken()) == []
    always = [{"resident": (100 + 6 * number) * MEBIBYTE} for number in range(10)]
    (law,) = process(tmp_path, *always).broken()
    assert "grew by 24 MiB" in law


def test_what_exporters_that_hang_cost_is_bounded(tmp_path: Path) -> None:
    """Up to 50 MB more, and not more than that."""
    fine = {"faults": ["exporters hang"], "grown": 49 * MEBIBYTE}
    assert list(process(tmp_path, fine).broken()) == []
    (law,) = process(tmp_path, {**fine, "grown": 51 * MEBIBYTE}).broken()
    assert "51 MiB more" in law


def test_a_process_that_does_not_end_is_found(tmp_path: Path) -> None:
    """Nor one that takes long."""
    assert list(process(tmp_path, {}, ended_after=run.EXIT_SECONDS + 1).broken()) != []
    assert list(process(tmp_path, {}, ended_after=None).broken()) != []


def test_a_law_that_is_broken_names_its_faults(tmp_path: Path) -> None:
    """The line says in which epoch, and what went wrong in it."""
    (law,) = process(tmp_path, {"faults": ["fork"], "broken": ["drift at rest: 1"]}).broken()
    assert law == "epoch 0 (fork): drift at rest: 1"


def test_there_are_pools_to_drive() -> None:
    """Both that the main thread uses among them, where they are installed."""
    found = run.labels()
    require(set(IN_MAIN) <= set(found), "SQLAlchemy 1.4 has no dialect for psycopg", "make matrix")
    assert len(found) >= 10
