"""The PostgreSQL that the suites share."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from examples.lab.postgres import postgres

if TYPE_CHECKING:
    from collections.abc import Iterator

    from examples.lab.postgres import Postgres

# SQLAlchemy's tests create these extensions before they start. The embedded server has none of PostgreSQL's contrib
# modules, and none of the tests that are run here uses a type of theirs: empty ones do.
EXTENSIONS = ("citext", "hstore")
CONNECTIONS = 250
TWO_PHASE_TRANSACTIONS = "20"


@contextlib.contextmanager
def server() -> Iterator[Postgres]:
    """
    A server for as long as the block runs.

    Yields:
        Where it is; each run makes a database of its own on it.
    """
    with tempfile.TemporaryDirectory(prefix="poolscope-extensions-") as temporary:
        folder = Path(temporary)
        _write_extensions(folder)
        settings = {
            "max_prepared_transactions": TWO_PHASE_TRANSACTIONS,
            "extension_control_path": f"$system:{folder}",
        }
        with postgres(max_connections=CONNECTIONS, settings=settings) as started:
            yield started


def _write_extensions(folder: Path) -> None:
    inside = folder / "extension"
    inside.mkdir()
    for path in (folder, inside):
        path.chmod(0o755)  # the server may be another user's
    for name in EXTENSIONS:
        (inside / f"{name}.control").write_text("default_version = '1'\n")
        (inside / f"{name}--1.sql").write_text("-- empty\n")
