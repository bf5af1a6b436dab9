"""
One target under atheris, which mutates what reaches new code.

Usage:
    python tests/fuzz/run.py fingerprint FOLDER [libFuzzer's options]     FOLDER keeps what reached new code
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

with atheris.instrument_imports(include=["poolscope"]):
    from tests.fuzz.targets import FOUND, TARGETS


def main() -> None:
    """Fuzz until the time is up or something is found; libFuzzer ends the process."""
    name, folder, *options = sys.argv[1:]
    target = TARGETS[name]
    corpus = Path(folder)
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number:04}").write_bytes(seed)
    for path in FOUND.glob(f"{name}-*"):
        (corpus / path.name).write_bytes(path.read_bytes())

    def run(data: bytes) -> None:
        try:
            target.run(data)
        except BaseException as error:
            # Not left to libFuzzer: it ends with nothing where it cannot print the error.
            FOUND.mkdir(exist_ok=True)
            path = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
            path.write_bytes(data)
            print(f"{path}: {type(error).__name__}: {str(error)!a}", flush=True)
            raise

    atheris.Setup([sys.argv[0], str(corpus), *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
