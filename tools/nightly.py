"""
All of what CI runs in part, every transparency suite, matrix cell and way to be late, mutants, and a soak of half an
hour.

It takes hours. The first line says when it last passed on this machine, and on which commit.

Usage:
    python tools/nightly.py
"""

from __future__ import annotations

import os
import sys
from datetime import datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.support.late import WAYS
from tools import steps


def plan() -> list[steps.Step]:
    """The steps: the tests wait for timers beside what computes; the ways to be late come one after the other."""
    made = [
        steps.Step("check", (), "make check"),
        steps.Step("programs", (), "make pipeline-build"),
        steps.Step("tests", ("programs",), "make test"),
        steps.Step("matrix", ("check",), "make matrix"),
        steps.Step("transparency", ("tests", "matrix"), "make transparency"),
    ]
    for way in WAYS:
        made.append(steps.Step(f"late-{way}", (made[-1].name,), f"make late ARGS='--way {way}'"))
    made.append(steps.Step("mutants", (made[-1].name,), "make mutants ARGS='--number 600'"))
    made.append(steps.Step("soak", (made[-1].name,), "make soak"))
    made.append(steps.Step("fuzz", (made[-1].name,), "make fuzz ARGS='--minutes 20'"))
    return made


def main() -> int:
    """
    Run it.

    Returns:
        0 when all of it passed, which is noted; 1 when something failed, 130 after an interrupt.
    """
    os.environ["WHOLE"] = "1"  # see tests/support/scale.py
    seed = os.environ.setdefault("SEED", datetime.now().astimezone().date().isoformat())  # see tests/support/seeds.py
    print(f"seed {seed}")
    words = [word for step in plan() for word in (step.name, " ".join(step.after), step.command)]
    return steps.main(["--note", "nightly", *words])


if __name__ == "__main__":
    sys.exit(main())
