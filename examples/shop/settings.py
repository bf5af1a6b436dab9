"""What the shop takes from its environment."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True)
class Settings:
    """
    The shop's settings.

    Args:
        dsn: A libpq URL, ``postgresql://...``.
        payment_url: Where payments are charged.
        pool_size: Connections that the pool keeps.
        max_overflow: Connections that it may open beyond them.
        pool_timeout: Seconds a request waits for a connection before it fails.
        pool_recycle: Seconds after which a connection is replaced, so that none grows older than what lies between the
            shop and its server allows.
        threads: Requests that the server handles at once.
        slow_seconds: How long the slow report runs.
    """

    dsn: str
    payment_url: str = "http://127.0.0.1:8099/charge"
    pool_size: int = 10
    max_overflow: int = 5
    pool_timeout: float = 1.5
    pool_recycle: int = 1800
    threads: int = 40
    slow_seconds: float = 0.7

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """
        Read ``SHOP_DSN`` and its neighbours.

        Raises:
            SystemExit: ``SHOP_DSN`` is not set.
        """
        if not environ.get("SHOP_DSN"):
            message = "SHOP_DSN is not set: give the shop a database, for example postgresql://localhost/shop"
            raise SystemExit(message)
        return cls(
            dsn=environ["SHOP_DSN"],
            payment_url=environ.get("SHOP_PAYMENT_URL", cls.payment_url),
            pool_size=int(environ.get("SHOP_POOL_SIZE", cls.pool_size)),
            max_overflow=int(environ.get("SHOP_MAX_OVERFLOW", cls.max_overflow)),
            pool_timeout=float(environ.get("SHOP_POOL_TIMEOUT", cls.pool_timeout)),
            pool_recycle=int(environ.get("SHOP_POOL_RECYCLE", cls.pool_recycle)),
            threads=int(environ.get("SHOP_THREADS", cls.threads)),
            slow_seconds=float(environ.get("SHOP_SLOW_SECONDS", cls.slow_seconds)),
        )

    @property
    def sqlalchemy_url(self) -> URL:
        """The same address with SQLAlchemy's name for psycopg 3."""
        return make_url(self.dsn).set(drivername="postgresql+psycopg")
