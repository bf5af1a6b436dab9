"""
Django's ORM in jobs that run in threads of the application's own: each closes its connection, or none does.

    python -m tests.integration.programs.django_jobs DSN
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import django
from django.conf import settings
from django.db import OperationalError

from tests.integration.programs.django_threads import database
from tests.integration.programs.found import Findings

if TYPE_CHECKING:
    from collections.abc import Callable

#: So many connections the role may have; there is one thread more.
LIMIT = 3


def lookup(number: int) -> int:
    """A job."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("select %s", [number])
        return int(cursor.fetchone()[0])


def lookup_and_close(number: int) -> int:
    """The same, repaired."""
    from django.db import connection

    try:
        return lookup(number)
    finally:
        connection.close()


def main() -> None:
    """See above."""
    settings.configure(SECRET_KEY="none", INSTALLED_APPS=[], DATABASES={"default": database(sys.argv[1], 0)})
    findings = Findings(long_hold_threshold=600)
    django.setup()
    executors = [ThreadPoolExecutor(1, thread_name_prefix="pipeline") for _ in range(LIMIT + 1)]

    def one_after_the_other(job: Callable[[int], int]) -> int:
        refused = 0
        for number, executor in enumerate(executors):
            try:
                assert executor.submit(job, number).result() == number
            except OperationalError:
                refused += 1
        return refused

    repaired = one_after_the_other(lookup_and_close)
    findings.telemetry.instrumentor.flush()
    before = len(findings.found)
    refused = one_after_the_other(lookup)
    findings.wait("too_many_connections")
    findings.print(repaired=repaired, before=before, refused=refused)


if __name__ == "__main__":
    main()
