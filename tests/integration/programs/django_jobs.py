"""
Django's connection in jobs that run in threads of the application's own: each closes its own, or none does. The jobs
are those of the page.

    python -m tests.integration.programs.django_jobs DSN
"""

from __future__ import annotations

import contextlib
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.db import OperationalError

from examples.lab.postgres import Postgres
from poolscope.core.catalogue.connects import TOO_MANY_CONNECTIONS
from tests.integration.programs.found import Findings
from tests.support.pages import blocks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

#: So many connections the role may have; there is one thread more.
LIMIT = 3


class Threads:
    """In the place of the page's executor: each job in a thread of its own, one after the other."""

    def __init__(self) -> None:
        self._executors = [ThreadPoolExecutor(1, thread_name_prefix="pipeline") for _ in range(LIMIT + 1)]

    def map(self, job: Callable[[int], Any], numbers: Iterable[int]) -> Iterator[Any]:
        """What each job returns."""
        for number, executor in zip(numbers, self._executors, strict=True):
            yield executor.submit(job, number).result()


def main() -> None:
    """See above."""
    database = Postgres.from_dsn(sys.argv[1]).django_settings()
    settings.configure(SECRET_KEY="none", INSTALLED_APPS=[], DATABASES={"default": database})
    findings = Findings(long_hold_threshold=600)
    django.setup()
    bad, repaired = blocks(TOO_MANY_CONNECTIONS)
    bad["executor"] = repaired["executor"] = Threads()
    numbers = range(1, LIMIT + 2)
    names = repaired["pipeline"](numbers)
    findings.telemetry.instrumentor.flush()
    before = len(findings.found)
    with contextlib.suppress(OperationalError):
        names += bad["pipeline"](numbers)
    findings.wait(TOO_MANY_CONNECTIONS)
    findings.print(names=names, before=before)


if __name__ == "__main__":
    main()
