"""
Fuzz what reads foreign text: fingerprints of statements, DSNs and URLs, and files of telemetry.

atheris mutates what reaches new code, in an environment of its own; its wheels are for Python 3.11 on Linux. What makes
a target fail is written to ``tests/fuzz/found`` and named; as a file there it is a test from then on. What reached new
code is kept below ``$POOLSCOPE_CACHE`` (else ``~/.cache/poolscope``), folder ``fuzz``: the next run goes on there.

Usage:
    python tools/fuzz.py                                    3 minutes for each target
    python tools/fuzz.py --minutes 60 fingerprint           an hour for one
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.venvs import ROOT, cache, environment, interpreters

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Those of tests/fuzz/targets.py.
TARGETS: Final = ("fingerprint", "login", "report")
FOUND: Final = ROOT / "tests" / "fuzz" / "found"
PYTHON: Final = "3.11"
REQUIREMENTS: Final = ("atheris==3.0.0", "pglast>=7", "psycopg[binary]>=3.2", "-e.[cli]")
MINUTES: Final = 3.0
# Bytes of one input, and seconds that it may take.
LONGEST: Final = 3_000
PATIENCE: Final = 10


def missing() -> str | None:
    """Why atheris does not run here and what to do, or None."""
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "aarch64"):
        machine = f"{platform.system()} {platform.machine()}"
        return f"atheris has wheels for Linux alone, not for {machine}; fix: use a container"
    if all(one.minor != PYTHON for one in interpreters()):
        return f"no Python {PYTHON} here, for which atheris has wheels; fix: uv python install {PYTHON}"
    return None


def fuzz(python: Path, target: str, minutes: float) -> bool:
    """
    Fuzz one target.

    Args:
        python: The Python of the environment.
        target: Its name.
        minutes: For how long.

    Returns:
        Whether nothing was found.
    """
    FOUND.mkdir(exist_ok=True)
    corpus = cache() / "fuzz" / target
    command = [
        str(python), str(ROOT / "tests" / "fuzz" / "run.py"), target, str(corpus),
        f"-max_total_time={max(1, round(minutes * 60))}", f"-max_len={LONGEST}", f"-timeout={PATIENCE}",
        f"-artifact_prefix={FOUND / target}-", "-print_final_stats=1",
    ]  # fmt: skip
    began = time.monotonic()
    log = corpus.with_suffix(".log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as out:
        ended = subprocess.run(command, check=False, stdout=out, stderr=out, cwd=ROOT, env={**os.environ})
    text = log.read_text(errors="replace")
    runs = text.rpartition("stat::number_of_executed_units:")[2].split()[:1]
    print(f"{target}: {runs[0] if runs else '?'} inputs in {time.monotonic() - began:.0f} s", flush=True)
    if ended.returncode:
        print(f"{target}: failed; what it was is in {FOUND}, and said in {log}:", *text.splitlines()[-40:], sep="\n")
    return not ended.returncode


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Fuzz all targets, or some.

    Returns:
        0 where nothing was found or atheris cannot run here, else 1.
    """
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[1])
    parser.add_argument(
        "targets", nargs="*", choices=[*TARGETS, []], default=[], metavar="target", help=", ".join(TARGETS)
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for each target")
    options = parser.parse_args(arguments)
    if reason := missing():
        print(f"skipped: {reason}")
        return 0
    python = environment(PYTHON, REQUIREMENTS)
    passed = [fuzz(python, target, options.minutes) for target in options.targets or TARGETS]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main())
