"""The pages of the findings, and the code in them, which tests run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from examples.lab.postgres import Postgres

PAGES = Path(__file__).resolve().parents[2] / "docs" / "findings"
#: A block of code; with the file and the function that it is, where it names one.
BLOCK = re.compile(r"(?:<!-- (?P<file>\S+): (?P<name>\w+) -->\n)?```python\n(?P<code>.*?)```", re.DOTALL)


def page(identity: str) -> str:
    """The text of a finding's page."""
    return (PAGES / f"{identity}.md").read_text(encoding="utf-8")


def blocks(identity: str, server: Postgres | None = None, **left_open: Any) -> list[dict[str, Any]]:
    """
    Run each block of code of a page by itself.

    Args:
        identity: The finding's.
        server: The PostgreSQL in the place of the page's.
        left_open: What the code uses and leaves open, by name.

    Returns:
        What each block defines, in the order of the page.
    """
    return [run_block(identity, number, server, **left_open) for number in range(len(codes(identity)))]


def run_block(identity: str, number: int, server: Postgres | None = None, **left_open: Any) -> dict[str, Any]:
    """
    Run one block of code of a page.

    Args:
        identity: The finding's.
        number: Which block, from 0 on.
        server: The PostgreSQL in the place of the page's.
        left_open: What the code uses and leaves open, by name.

    Returns:
        What it defines.
    """
    code = codes(identity)[number]
    begins = page(identity).count("\n", 0, page(identity).index(code))
    if server is not None:
        code = code.replace('"host=db dbname=shop"', repr(server.dsn))
        code = re.sub(r'"postgresql\+(\w+)://shop@db/shop"', lambda driver: repr(server.url(driver[1])), code)
    made = dict(left_open)
    exec(compile("\n" * begins + code, str(PAGES / f"{identity}.md"), "exec"), made)
    return made


def codes(identity: str) -> list[str]:
    """The blocks of code of a page."""
    return [block["code"] for block in BLOCK.finditer(page(identity))]
