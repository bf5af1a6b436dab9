"""Serve the shop: ``python -m examples.shop flask --port 8000``. SIGTERM and Ctrl-C end it in good order."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from typing import TYPE_CHECKING, Any

from examples.shop import own_hosts
from examples.shop.settings import Settings

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

# Above what customers keep open: at its limit (100 by default) waitress accepts no more until an idle one leaves.
CONNECTIONS = 1000


def main() -> None:
    """Read the command line and serve until told to stop."""
    parser = argparse.ArgumentParser(prog="shop", description=__doc__)
    servers = {"flask": serve_flask, "fastapi": serve_fastapi, "django": serve_django}
    parser.add_argument("framework", choices=servers)
    parser.add_argument("--port", type=int, default=8000)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _leave)
    servers[arguments.framework](arguments.port, Settings.from_environment())


def serve_flask(port: int, settings: Settings) -> None:
    """Serve the Flask shop with waitress, one process and many threads."""
    from examples.shop.flask_app import create_app  # noqa: PLC0415 - only the chosen framework is imported

    app = create_app(settings)
    app.before_request(own_hosts.refuse_in_flask)
    _serve_threads(app, port, settings)


def serve_django(port: int, settings: Settings) -> None:
    """Serve the Django shop with waitress."""
    from examples.shop.django_shop.wsgi import application  # noqa: PLC0415

    _serve_threads(application, port, settings)


def serve_fastapi(port: int, settings: Settings) -> None:
    """Serve the FastAPI shop with uvicorn, one process and one event loop."""
    import uvicorn  # noqa: PLC0415

    from examples.shop.fastapi_app import create_app  # noqa: PLC0415

    application = create_app(settings)
    application.add_middleware(own_hosts.OwnHosts)
    _settle()
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning")


def _serve_threads(application: WSGIApplication, port: int, settings: Settings) -> None:
    import waitress  # noqa: PLC0415

    _settle()
    waitress.serve(
        application,
        host="127.0.0.1",
        port=port,
        threads=settings.threads,
        connection_limit=CONNECTIONS,
        _quiet=True,
    )


def _settle() -> None:
    """
    Leave what is there at the start to itself: to look through it again would cost some request a
    quarter of a second.
    """
    gc.collect()
    gc.freeze()


def _leave(_signal: int, _frame: Any) -> None:  # noqa: ANN401 - the signature is the signal module's
    sys.exit(0)


if __name__ == "__main__":
    main()
