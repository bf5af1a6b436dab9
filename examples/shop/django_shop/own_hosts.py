"""What `examples.shop.own_hosts` is for the other frameworks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse

from examples.shop.own_hosts import refused_wsgi

if TYPE_CHECKING:
    from collections.abc import Callable


class OwnHosts:
    """Answers a request that is for another server before a view does."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        """Pass on what is for this server."""
        status = refused_wsgi(request.META)
        if status is not None:
            return HttpResponse(f"{status.phrase}\n", status=status, content_type="text/plain")
        return self._get_response(request)
