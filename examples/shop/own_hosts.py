"""
The shop answers requests to itself only (`examples.loopback`), in the form of each framework.

Applications of one's own use what their framework has: `TRUSTED_HOSTS` in Flask, `ALLOWED_HOSTS` and CSRF tokens in
Django, `TrustedHostMiddleware` in Starlette.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from examples.loopback import refusal

if TYPE_CHECKING:
    from http import HTTPStatus
    from wsgiref.types import WSGIEnvironment

    from starlette.types import ASGIApp, Receive, Scope, Send


def refused_wsgi(environ: WSGIEnvironment) -> HTTPStatus | None:
    """
    Whether a WSGI request is for another server or comes from a page of another one.

    Args:
        environ: The request's.

    Returns:
        The status of the answer; None for a request to take.
    """
    origins = [environ["HTTP_ORIGIN"]] if "HTTP_ORIGIN" in environ else []
    return refusal([environ.get("HTTP_HOST", "")], origins, int(environ["SERVER_PORT"]))


def refuse_in_flask() -> tuple[str, int] | None:
    """Answer such a request before a view does."""
    from flask import request  # noqa: PLC0415 - only the chosen framework is imported

    status = refused_wsgi(request.environ)
    return None if status is None else (f"{status.phrase}\n", status)


class OwnHosts:
    """
    Answers such a request before an ASGI application does.

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is for this server."""
        if scope["type"] == "http":
            hosts, origins = (
                [value.decode("latin-1") for name, value in scope["headers"] if name == wanted]
                for wanted in (b"host", b"origin")
            )
            status = refusal(hosts, origins, scope["server"][1])
            if status is not None:
                from starlette.responses import PlainTextResponse  # noqa: PLC0415 - only the chosen framework is imported

                await PlainTextResponse(f"{status.phrase}\n", status)(scope, receive, send)
                return
        await self._app(scope, receive, send)
