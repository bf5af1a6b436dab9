"""
Writes the dashboards as JSON for Grafana's file provisioning, or checks that the committed files are current.

Usage:
    python grafana/generate.py            write
    python grafana/generate.py --check    write nothing; name the stale files and fail
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDER = "grafana/generated/dashboards"


def main() -> int:
    """
    Run the command line.

    Returns:
        1 if a file is stale under ``--check``, else 0.
    """
    check = "--check" in sys.argv[1:]
    stale = {name: text for name, text in generate().items() if _committed(ROOT / name) != text}
    for name, text in stale.items():
        print(f"{name} is stale: run `make generate` and commit it" if check else f"wrote {name}")
        if not check:
            (ROOT / name).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / name).write_text(text, encoding="utf-8")
    return 1 if check and stale else 0


def generate() -> dict[str, str]:
    """
    Every dashboard.

    Returns:
        Its JSON by its path from the project's root.
    """
    from grafana.dashboards import ALL  # noqa: PLC0415 - a script puts the root on the path below

    made = [module.dashboard() for module in ALL]
    return {f"{FOLDER}/{model['uid']}.json": json.dumps(model, indent=2, sort_keys=True) + "\n" for model in made}


def _committed(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
