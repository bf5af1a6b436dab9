"""
Django under ASGI, where each request has a thread of its own: with the settings of the page.

    python -m tests.integration.programs.django_threads DSN
"""

from __future__ import annotations

import asyncio
import gc
import sys
from typing import TYPE_CHECKING, Any

import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpResponse
from django.urls import path

from examples.lab.postgres import Postgres
from poolscope.core.catalogue.pools import STRANDED_CONNECTIONS
from tests.integration.programs.found import Findings
from tests.support.pages import blocks

if TYPE_CHECKING:
    from django.http import HttpRequest

REQUESTS = 7


def gang(request: HttpRequest, alias: str) -> HttpResponse:
    """A page that runs a query."""
    from django.db import connections

    with connections[alias].cursor() as cursor:
        cursor.execute("select 7")
        return HttpResponse(str(cursor.fetchone()[0]))


urlpatterns = [path("gangs/<str:alias>/", gang)]


async def request(application: Any, where: str) -> bytes:
    """One request, as a server makes it."""
    body, asked = b"", False

    async def receive() -> dict[str, Any]:
        nonlocal asked
        if asked:
            await asyncio.Event().wait()
        asked = True
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal body
        body += message.get("body", b"")

    scope = {"type": "http", "method": "GET", "path": where, "query_string": b"", "headers": [], "http_version": "1.1"}
    await application(scope, receive, send)
    return body


def main() -> None:
    """See above."""
    from django.db import connections

    gc.disable()  # a collection closes what was kept
    kept, closed, pooled = (page["DATABASES"]["default"] for page in blocks(STRANDED_CONNECTIONS))
    databases = {"default": closed, "kept": kept}
    if django.VERSION >= (5, 1):
        databases["pooled"] = pooled
    place = Postgres.from_dsn(sys.argv[1]).django_settings()
    databases = {alias: {**given, **place} for alias, given in databases.items()}
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="none", INSTALLED_APPS=[], DATABASES=databases
    )
    findings = Findings(long_hold_threshold=600)
    django.setup()
    application = get_asgi_application()
    for alias in databases:
        for _ in range(REQUESTS):
            assert asyncio.run(request(application, f"/gangs/{alias}/")) == b"7"
    findings.wait(STRANDED_CONNECTIONS)
    for alias in databases:
        connections[alias].close()
        if hasattr(connections[alias], "close_pool"):
            connections[alias].close_pool()
    findings.print(idle=findings.telemetry.collect().idle("kept"))


if __name__ == "__main__":
    main()
