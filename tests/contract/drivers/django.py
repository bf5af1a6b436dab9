"""Django's own connections, persistent and not; each wrapper stands for that of a thread."""

from __future__ import annotations

import gc
import importlib.util
import threading
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from poolscope.adapters.django import ADAPTER
from tests.contract.drivers.base import Driver, Feature, Handle, PendingCheckout, ThreadCheckout

if TYPE_CHECKING:
    from pathlib import Path

    from examples.lab.postgres import Postgres
    from poolscope.adapters.base import Capability


class DjangoDriver(Driver):
    """An alias of its own; a wrapper that was returned is used again, as by the next request of its thread."""

    adapter = "django"
    on_postgres = True
    features = Feature.STATEMENTS | Feature.ABANDON | Feature.MANY
    max_age: ClassVar[int] = 0

    @property
    def capabilities(self) -> Capability:
        return ADAPTER.capabilities

    @classmethod
    def missing(cls) -> str | None:
        return None if importlib.util.find_spec("django") else "django missing"

    def open(self, where: Postgres | None, folder: Path, *, size: int, timeout: float, **options: Any) -> None:
        import django
        from django.conf import settings
        from django.db.utils import ConnectionHandler

        assert where is not None
        if not settings.configured:
            settings.configure()
            django.setup()
        database = {**where.django_settings(), "CONN_MAX_AGE": self.max_age}
        self.handler = ConnectionHandler({"default": {}, self.pool: database})
        self._free: list[Any] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        for wrapper in self._free:
            wrapper.close()

    def library_objects(self) -> list[Any]:
        return [self.handler, *self._free]

    def forget(self) -> None:
        del self.handler, self._free

    @property
    def limit(self) -> int | None:
        return None

    @property
    def timeout_error(self) -> str:
        return "none"

    def acquire(self) -> Handle:
        with self._lock:
            wrapper = self._free.pop() if self._free else self.handler.create_connection(self.pool)
        wrapper.inc_thread_sharing()
        wrapper.ensure_connection()
        return Handle(wrapper, lambda function, *args: function(*args))

    def begin(self) -> PendingCheckout:
        return ThreadCheckout(self.acquire)

    def release(self, handle: Handle) -> None:
        handle.connection.close_if_unusable_or_obsolete()
        with self._lock:
            self._free.append(handle.connection)

    def query(self, handle: Handle) -> object:
        with handle.connection.cursor() as cursor:
            cursor.execute("select 1")
            return cursor.fetchone()

    def abandon(self, handle: Handle) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)  # psycopg's own
            handle.connection = None
            gc.collect()


class Anew(DjangoDriver):
    label = "django-CONN_MAX_AGE=0"


class Persistent(DjangoDriver):
    label = "django-CONN_MAX_AGE=60"
    features = DjangoDriver.features | Feature.POOLED
    tells_what_is_out = False
    max_age = 60


DRIVERS: tuple[type[DjangoDriver], ...] = (Anew, Persistent)
